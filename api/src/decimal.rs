//! Decimal amounts from outside: a string or a JSON number, read digit by digit. A float would turn 999.99 into
//! 999.9899902….

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The largest exponent of a number, either way: an amount in 64 bits has 19 digits.
const EXPONENT_MAX: i32 = 40;

/// The text of a decimal number, exactly as it was sent; an exponent, which JSON numbers may have, is written out.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, example = "999.99")]
pub struct Decimal(String);

impl Decimal {
    /// The amount in units of 10^-`places`: with 2 places `"999.9"` is 99,990.
    ///
    /// # Errors
    /// What is wrong, for the client: no number, more places than the currency has, or too large.
    pub fn minor(&self, places: u32) -> Result<i64, String> {
        let not_decimal = || "must be a decimal number, such as \"12.50\"".to_owned();
        let (negative, digits) = match self.0.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, self.0.as_str()),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let dot_is_last = digits.ends_with('.');
        if whole.is_empty() || dot_is_last || !all_digits(whole) || !all_digits(fraction) {
            return Err(not_decimal());
        }
        // Zeros at the end are no more exact: 1.500 has two places.
        let fraction = fraction.trim_end_matches('0');
        let missing = usize::try_from(places)
            .ok()
            .and_then(|places| places.checked_sub(fraction.len()))
            .ok_or_else(|| format!("must have at most {places} decimal places"))?;
        let minor = format!("{whole}{fraction}{}", "0".repeat(missing))
            .parse::<i64>()
            .map_err(|_| "is too large".to_owned())?;
        Ok(if negative { -minor } else { minor })
    }
}

impl From<String> for Decimal {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text keeps a number's own digits, which any numeric type would lose.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        match text.bytes().next() {
            Some(b'"') => serde_json::from_str(text).map(Self).map_err(D::Error::custom),
            Some(b'-' | b'0'..=b'9') => Ok(Self(without_exponent(text).unwrap_or_else(|| text.to_owned()))),
            _ => Err(D::Error::custom("invalid type, expected a decimal number")),
        }
    }
}

/// `1.5e3` as `1500`; nothing for a number that has no exponent, or one that no amount needs.
fn without_exponent(number: &str) -> Option<String> {
    let (mantissa, exponent) = number.split_once(['e', 'E'])?;
    let exponent = exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= EXPONENT_MAX)?;
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let before = "0".repeat(usize::try_from(1 - point).unwrap_or(0));
    let digits = format!("{before}{whole}{fraction}");
    let point = usize::try_from(point.max(1)).ok()?;
    let after = "0".repeat(point.saturating_sub(digits.len()));
    let digits = format!("{digits}{after}");
    let (whole, fraction) = digits.split_at(point);
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// The text of an amount in units of 10^-`places`: 99,999 with 2 places is `999.99`.
pub fn to_text(minor: i64, places: u32) -> String {
    let width = usize::try_from(places).unwrap_or(usize::MAX);
    let sign = if minor < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = width + 1);
    let (whole, fraction) = digits.split_at(digits.len() - width);
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<i64, String> {
        serde_json::from_str::<Decimal>(json).map_err(|error| error.to_string())?.minor(2)
    }

    #[test]
    fn strings_and_numbers_are_read_exactly() {
        assert_eq!(read("\"999.99\""), Ok(99_999));
        assert_eq!(read("999.99"), Ok(99_999));
        assert_eq!(read("100"), Ok(10_000));
        assert_eq!(read("2.0"), Ok(200));
        assert_eq!(read("-0.05"), Ok(-5));
        assert_eq!(read("90071992547409.93"), Ok(9_007_199_254_740_993));
        for (number, minor) in [
            ("1e3", 100_000),
            ("1.25E+1", 1_250),
            ("-5e-2", -5),
            ("12345e-2", 12_345),
            ("0e9", 0),
            ("1.5e0", 150),
        ] {
            assert_eq!(read(number), Ok(minor), "{number}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for json in [
            "\"\"", "\"1.\"", "\".5\"", "\"1e5\"", "1e400", "1e-9", "\"+1\"", "\"1,50\"", "\" 1\"", "true",
            "null", "[]",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
        assert_eq!(read("1.001"), Err("must have at most 2 decimal places".to_owned()));
        assert_eq!(read("99999999999999999999"), Err("is too large".to_owned()));
    }

    #[test]
    fn amounts_are_written_with_all_their_places() {
        assert_eq!(to_text(99_999, 2), "999.99");
        assert_eq!(to_text(5, 2), "0.05");
        assert_eq!(to_text(-5, 2), "-0.05");
        assert_eq!(to_text(500, 0), "500");
        assert_eq!(to_text(i64::MIN, 2), "-92233720368547758.08");
    }
}
