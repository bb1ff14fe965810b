//! Rules for texts that come from outside. Each takes what was sent and gives what is stored, in normal form C,
//! or a message for the client.

use std::ops::RangeInclusive;

use aggregates::text::{self, TextError};
use uuid::Uuid;

/// A text on one line: no control characters, nothing that turns the direction of reading around, no card
/// number, and as many characters as `length` says.
///
/// # Errors
/// What is wrong, for the client.
pub fn line(value: &str, length: RangeInclusive<usize>) -> Result<String, String> {
    let normal = text::normalise(value);
    text::check_line(&normal, *length.start(), *length.end()).map_err(|error| told(&error))?;
    not_blank(normal, &length)
}

/// A text of several lines: no control characters but line breaks and tabs, no card number.
///
/// # Errors
/// What is wrong, for the client.
pub fn lines(value: &str, length: RangeInclusive<usize>) -> Result<String, String> {
    let normal = text::normalise(value);
    let checked = text::check_paragraph(&normal, *length.start(), *length.end());
    checked.map_err(|error| match error {
        TextError::ControlCharacter => "must not contain control characters".to_owned(),
        other => told(&other),
    })?;
    not_blank(normal, &length)
}

/// A postal address: several lines without what could make it look like another one.
///
/// # Errors
/// What is wrong, for the client.
pub fn address(value: &str, length: RangeInclusive<usize>) -> Result<String, String> {
    let normal = lines(value, length)?;
    for part in normal.split(['\r', '\n']) {
        line(part, 0..=usize::MAX)?;
    }
    Ok(normal)
}

/// An e-mail address: something, one `@`, a domain with a dot.
///
/// # Errors
/// What is wrong, for the client.
pub fn email(value: &str) -> Result<String, String> {
    checked(value, text::check_email)
}

/// A name to log in with: 3 to 30 letters, digits, `_`, `.`, `-`; no `@`, so that it is never an address.
///
/// # Errors
/// What is wrong, for the client.
pub fn username(value: &str) -> Result<String, String> {
    checked(value, text::check_username)
}

/// A telephone number: 6 to 15 digits, with `+` before and spaces, dashes, dots and brackets between.
///
/// # Errors
/// What is wrong, for the client.
pub fn phone(value: &str) -> Result<String, String> {
    checked(value, text::check_phone)
}

/// A password: counted in characters, otherwise taken as it is. It is hashed, so that the rules for what is
/// stored do not concern it; normal form C, so that it does not matter on what keyboard it is typed.
///
/// # Errors
/// What is wrong, for the client; never the password.
pub fn password(value: &str, length: RangeInclusive<usize>) -> Result<String, String> {
    if value.contains('\0') {
        return Err("must not contain the NUL character".to_owned());
    }
    let normal = text::normalise(value);
    let characters = normal.chars().count();
    if characters < *length.start() {
        return Err(told(&TextError::TooShort { min: *length.start() }));
    }
    if characters > *length.end() {
        return Err(told(&TextError::TooLong { max: *length.end() }));
    }
    Ok(normal)
}

/// A UUID in the usual form.
///
/// # Errors
/// What is wrong, for the client.
pub fn uuid(value: &str) -> Result<Uuid, String> {
    // The crate takes braces and URNs too, and an id should have one spelling.
    let usual = value.len() == uuid::fmt::Hyphenated::LENGTH;
    Uuid::try_parse(value).ok().filter(|_| usual).ok_or_else(|| "must be a UUID".to_owned())
}

/// The name of a currency: three capital letters (ISO 4217); whether it is one the mart deals in is for the
/// domain to say.
///
/// # Errors
/// What is wrong, for the client.
pub fn currency(value: &str) -> Result<String, String> {
    if value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_uppercase()) {
        Ok(value.to_owned())
    } else {
        Err("must be a currency code of three capital letters".to_owned())
    }
}

/// A whole number within a range.
///
/// # Errors
/// What is wrong, for the client.
pub fn whole(value: i64, range: RangeInclusive<i64>) -> Result<i64, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    if *range.end() == i64::MAX {
        return Err(format!("must be greater than or equal to {}", range.start()));
    }
    Err(format!(
        "must be greater than or equal to {} and less than or equal to {}",
        range.start(),
        range.end()
    ))
}

/// The normal form of a text that keeps a rule of the domain.
fn checked(value: &str, rule: fn(&str) -> Result<(), TextError>) -> Result<String, String> {
    let normal = text::normalise(value);
    rule(&normal).map_err(|error| told(&error))?;
    Ok(normal)
}

/// What is asked for has to be more than white space.
fn not_blank(normal: String, length: &RangeInclusive<usize>) -> Result<String, String> {
    if *length.start() > 0 && normal.trim().is_empty() {
        return Err("must not be blank".to_owned());
    }
    Ok(normal)
}

/// A refusal of the domain in words for a client, who knows which field it is about.
fn told(error: &TextError) -> String {
    match error {
        TextError::TooShort { min } => format!("must have at least {min} characters"),
        TextError::TooLong { max } => format!("must have at most {max} characters"),
        TextError::ControlCharacter => "must be one line without control characters".to_owned(),
        TextError::BidirectionalOverride => {
            "must not contain characters that change the direction of reading".to_owned()
        }
        TextError::CardNumber => "must not contain a payment card number".to_owned(),
        TextError::MalformedEmail => "must be a valid e-mail address".to_owned(),
        TextError::MalformedUsername => "may have letters, digits, `_`, `.` and `-` only".to_owned(),
        TextError::MalformedPhone => "must be a valid telephone number".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_no_control_and_no_override_characters() {
        for text in ["a\0b", "a\nb", "a\u{7f}", "a\u{85}b", "a\u{202e}b", "a\u{2066}b", "a\u{2028}b"] {
            assert!(line(text, 0..=10).is_err(), "{text:?}");
        }
        assert_eq!(line("Zoë 👩‍🍳 שלום", 1..=20), Ok("Zoë 👩‍🍳 שלום".to_owned()));
    }

    #[test]
    fn several_lines_are_taken_without_nul() {
        assert_eq!(lines("a\n\tb", 1..=10), Ok("a\n\tb".to_owned()));
        for text in ["a\0b", "a\u{7f}b", "pay with 4111 1111 1111 1111"] {
            assert!(lines(text, 1..=50).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_has_lines_and_nothing_else_that_is_not_seen() {
        assert_eq!(address("Ann\r\nStreet 1\nTown", 1..=50), Ok("Ann\r\nStreet 1\nTown".to_owned()));
        for text in ["a\u{202e}b", "a\n\u{7f}", "a\tb", "a\0b", "\n", ""] {
            assert!(address(text, 1..=50).is_err(), "{text:?}");
        }
    }

    #[test]
    fn texts_are_stored_in_normal_form_c_and_counted_so() {
        assert_eq!(line("e\u{301}", 1..=1), Ok("é".to_owned()));
        assert_eq!(line("", 1..=5), Err("must have at least 1 characters".to_owned()));
        assert_eq!(line("   ", 1..=5), Err("must not be blank".to_owned()));
    }

    #[test]
    fn addresses_names_and_numbers() {
        for right in ["a@b.co", "patched.test_user@email.com", "o'neil+x@shop.example.org"] {
            assert_eq!(email(right), Ok(right.to_owned()));
        }
        for wrong in
            ["invalid_email.com", "a@b", "@b.co", "a@@b.co", "a b@c.de", "a@-b.co", "a@b..co", ".a@b.co"]
        {
            assert!(email(wrong).is_err(), "{wrong}");
        }
        assert!(username("john_d.1-x").is_ok());
        for wrong in ["ab", "a@b", "with space", &"x".repeat(31)] {
            assert!(username(wrong).is_err(), "{wrong}");
        }
        assert!(phone("+49 (170) 123-4567").is_ok());
        assert_eq!(phone("12345"), Err("must be a valid telephone number".to_owned()));
    }

    #[test]
    fn ids_have_one_spelling() {
        assert!(uuid("0194a3b2-7d11-7abc-8def-0123456789ab").is_ok());
        assert!(uuid("0194a3b27d117abc8def0123456789ab").is_err());
        assert!(uuid("{0194a3b2-7d11-7abc-8def-0123456789ab}").is_err());
    }

    #[test]
    fn a_number_out_of_range_is_told_the_range() {
        let message = "must be greater than or equal to 1 and less than or equal to 5";
        assert_eq!(whole(6, 1..=5), Err(message.to_owned()));
        assert_eq!(whole(0, 1..=i64::MAX), Err("must be greater than or equal to 1".to_owned()));
        assert_eq!(whole(5, 1..=5), Ok(5));
    }
}
