//! Personal data inside events: known, sealed, or gone with its person.
//!
//! The log encrypts the named fields on the way in and opens them on the way out, so the domain sees the value,
//! or learns that it is withheld or erased. Nothing here prints one.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that belongs to a person.
#[derive(Clone, PartialEq, Eq)]
pub enum Personal<T> {
    /// The value itself.
    Known(T),
    /// Encrypted, and not opened for this reader.
    Sealed(String),
    /// Its key was destroyed: nobody can read it any more.
    Gone,
}

impl<T> Personal<T> {
    /// The value, where it may be seen.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Sealed(_) | Self::Gone => None,
        }
    }

    /// The value itself, where it may be seen.
    pub fn into_known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Sealed(_) | Self::Gone => None,
        }
    }
}

impl Personal<String> {
    /// The text, or the empty text where it is withheld.
    #[must_use]
    pub fn text(&self) -> &str {
        self.known().map_or("", String::as_str)
    }
}

impl<T> From<T> for Personal<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Known(_) => "[personal]",
            Self::Sealed(_) => "[sealed]",
            Self::Gone => "[gone]",
        })
    }
}

#[derive(Serialize)]
struct SealedForm<'a> {
    sealed: &'a str,
}

impl<T: Serialize> Serialize for Personal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(value) => value.serialize(serializer),
            Self::Sealed(sealed) => SealedForm { sealed }.serialize(serializer),
            Self::Gone => serializer.serialize_unit(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form<T> {
    Sealed { sealed: String },
    Known(T),
    Gone(()),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Personal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Sealed { sealed } => Self::Sealed(sealed),
            Form::Known(value) => Self::Known(value),
            Form::Gone(()) => Self::Gone,
        })
    }
}
