//! The services that publish events.

use std::fmt;
use std::str::FromStr;

use crate::error::WireError;

/// A service that publishes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Users and their sessions.
    Users,
    /// Products.
    Catalog,
    /// Stock items.
    Inventory,
    /// Orders and carts.
    Orders,
    /// Payments.
    Payments,
    /// Notifications.
    Notifications,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Users, Self::Catalog, Self::Inventory, Self::Orders, Self::Payments, Self::Notifications];

    /// The service's name, as in its topic and its package.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Catalog => "catalog",
            Self::Inventory => "inventory",
            Self::Orders => "orders",
            Self::Payments => "payments",
            Self::Notifications => "notifications",
        }
    }

    /// The types of the aggregates in its log.
    #[must_use]
    pub fn aggregate_types(self) -> &'static [&'static str] {
        match self {
            Self::Users => &["user"],
            Self::Catalog => &["product"],
            Self::Inventory => &["stock_item"],
            Self::Orders => &["order", "cart"],
            Self::Payments => &["payment"],
            Self::Notifications => &["notification"],
        }
    }

    pub(crate) fn check_owns(self, aggregate_type: &str) -> Result<(), WireError> {
        if self.aggregate_types().contains(&aggregate_type) {
            Ok(())
        } else {
            Err(WireError::UnknownAggregate {
                service: self.name(),
                aggregate_type: aggregate_type.to_owned(),
            })
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = WireError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|service| service.name() == name)
            .ok_or_else(|| WireError::UnknownService(name.to_owned()))
    }
}
