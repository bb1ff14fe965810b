//! Amounts of money between rows and the domain.

use aggregates::money::Money;

use crate::problem::Problem;

/// The amount that a row keeps in two columns.
///
/// # Errors
/// 500 when the row names a currency the mart does not know.
pub(crate) fn money(minor: i64, currency: &str) -> Result<Money, Problem> {
    currency.parse().map(|currency| Money::new(minor, currency)).map_err(Problem::internal)
}
