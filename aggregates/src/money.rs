//! Money: integer minor units of an ISO 4217 currency, with checked arithmetic and exact text.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Active ISO 4217 codes whose minor unit is a hundredth.
const TWO_DECIMALS: &[&str] = &[
    "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BMD", "BND", "BOB",
    "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHF", "CNY", "COP", "CRC", "CUP", "CVE", "CZK",
    "DKK", "DOP", "DZD", "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GTQ",
    "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IRR", "JMD", "KES", "KGS", "KHR", "KPW", "KYD",
    "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR",
    "MVR", "MWK", "MXN", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP",
    "PKR", "PLN", "QAR", "RON", "RSD", "RUB", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS",
    "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB", "TJS", "TMT", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH",
    "USD", "UYU", "UZS", "VED", "VES", "WST", "XCD", "XCG", "YER", "ZAR", "ZMW", "ZWG",
];

/// Active ISO 4217 codes without a minor unit.
const NO_DECIMALS: &[&str] = &[
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF",
    "XPF",
];

/// Active ISO 4217 codes whose minor unit is a thousandth.
const THREE_DECIMALS: &[&str] = &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

/// A currency of ISO 4217; no other code can be made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    code: &'static str,
    exponent: u8,
}

impl Currency {
    /// The US dollar, the mart's default.
    pub const USD: Self = Self { code: "USD", exponent: 2 };

    /// The three-letter code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// How many decimals an amount of this currency has.
    #[must_use]
    pub fn exponent(&self) -> u8 {
        self.exponent
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        [(TWO_DECIMALS, 2), (NO_DECIMALS, 0), (THREE_DECIMALS, 3)]
            .into_iter()
            .find_map(|(codes, exponent)| {
                // They are sorted.
                let found = codes.binary_search(&code).ok()?;
                Some(Self { code: codes[found], exponent })
            })
            .ok_or(MoneyError::UnknownCurrency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Code;

        impl Visitor<'_> for Code {
            type Value = Currency;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the code of a currency")
            }

            fn visit_str<E: de::Error>(self, code: &str) -> Result<Currency, E> {
                code.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Code)
    }
}

/// An amount of one currency. It may be negative (a correction); rules about that belong to who uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// The amount in minor units (cents for USD).
    pub minor: i64,
    /// Of which currency.
    pub currency: Currency,
}

impl Money {
    /// An amount given in minor units.
    #[must_use]
    pub fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Nothing, in a currency.
    #[must_use]
    pub fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    /// The sum of two amounts.
    ///
    /// # Errors
    /// [`MoneyError::MixedCurrencies`], [`MoneyError::TooLarge`].
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_add)
    }

    /// This amount less another.
    ///
    /// # Errors
    /// [`MoneyError::MixedCurrencies`], [`MoneyError::TooLarge`].
    pub fn checked_subtract(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_sub)
    }

    /// This amount so many times.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`].
    pub fn checked_multiply(self, times: u32) -> Result<Self, MoneyError> {
        let minor = self.minor.checked_mul(i64::from(times)).ok_or(MoneyError::TooLarge)?;
        Ok(Self::new(minor, self.currency))
    }

    /// Reads a decimal such as `999.99`, exactly. More decimals than the currency has are an error even when
    /// they are zeros: an amount nobody can pay must not look like one.
    ///
    /// # Errors
    /// [`MoneyError::Malformed`], [`MoneyError::TooManyDecimals`], [`MoneyError::TooLarge`].
    pub fn parse(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(MoneyError::Malformed),
            Some(parts) => parts,
            None => (digits, ""),
        };
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Err(MoneyError::Malformed);
        }
        let exponent = usize::from(currency.exponent);
        if fraction.len() > exponent {
            return Err(MoneyError::TooManyDecimals { allowed: currency.exponent });
        }
        let sign = if negative { "-" } else { "" };
        let minor = format!("{sign}{whole}{fraction:0<exponent$}");
        minor.parse().map(|minor| Self::new(minor, currency)).map_err(|_| MoneyError::TooLarge)
    }
}

impl Money {
    fn combine(self, other: Self, operation: fn(i64, i64) -> Option<i64>) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::MixedCurrencies);
        }
        let minor = operation(self.minor, other.minor).ok_or(MoneyError::TooLarge)?;
        Ok(Self::new(minor, self.currency))
    }
}

/// Writes the decimal alone (`999.99`); the currency stands in a field of its own wherever money is shown.
impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minor < 0 { "-" } else { "" };
        let exponent = usize::from(self.currency.exponent);
        let digits = format!("{:0>width$}", self.minor.unsigned_abs(), width = exponent + 1);
        let (whole, fraction) = digits.split_at(digits.len() - exponent);
        match fraction {
            "" => write!(formatter, "{sign}{whole}"),
            fraction => write!(formatter, "{sign}{whole}.{fraction}"),
        }
    }
}

/// Why something is not an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
pub enum MoneyError {
    /// Not an active code of ISO 4217.
    #[error("unknown currency")]
    UnknownCurrency,
    /// Not a plain decimal number.
    #[error("not a decimal amount")]
    Malformed,
    /// Finer than the currency's minor unit.
    #[error("at most {allowed} decimals are allowed")]
    TooManyDecimals {
        /// The decimals of the currency.
        allowed: u8,
    },
    /// Beyond what can be counted.
    #[error("amount too large")]
    TooLarge,
    /// Amounts of two currencies do not add up.
    #[error("amounts of different currencies")]
    MixedCurrencies,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_found() {
        for (codes, exponent) in [(TWO_DECIMALS, 2), (NO_DECIMALS, 0), (THREE_DECIMALS, 3)] {
            for code in codes {
                assert_eq!(code.parse::<Currency>(), Ok(Currency { code, exponent }));
            }
        }
    }
}
