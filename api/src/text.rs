//! Rules for texts that come from outside. Each takes what was sent and gives what is stored, in normal form C,
//! or a message for the client.

use std::ops::RangeInclusive;

use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

/// Payment card numbers have this many digits (ISO/IEC 7812).
const CARD_DIGITS: RangeInclusive<usize> = 13..=19;

/// RFC 5321: a path may have 256 bytes, with its brackets.
const EMAIL_MAX_BYTES: usize = 254;

/// RFC 5321: the part before the `@`.
const EMAIL_LOCAL_MAX_BYTES: usize = 64;

/// RFC 1035: one name between two dots.
const DOMAIN_LABEL_MAX_BYTES: usize = 63;

/// Digits of a telephone number (E.164).
const PHONE_DIGITS: RangeInclusive<usize> = 6..=15;

/// A text on one line: no control characters, nothing that turns the direction of reading around, no card
/// number, and as many characters as `length` says.
///
/// # Errors
/// What is wrong, for the client.
pub fn line(value: &str, length: RangeInclusive<usize>) -> Result<String, String> {
    if value.chars().any(|character| character.is_control() || breaks_lines(character)) {
        return Err("must be one line without control characters".to_owned());
    }
    if value.chars().any(overrides_direction) {
        return Err("must not contain characters that change the direction of reading".to_owned());
    }
    lines(value, length)
}

/// A text of several lines: no NUL, no card number.
///
/// # Errors
/// What is wrong, for the client.
pub fn lines(value: &str, length: RangeInclusive<usize>) -> Result<String, String> {
    if value.contains('\0') {
        return Err("must not contain the NUL character".to_owned());
    }
    let normal = value.nfc().collect::<String>();
    if contains_card_number(&normal) {
        return Err("must not contain a payment card number".to_owned());
    }
    if *length.start() > 0 && !normal.is_empty() && normal.trim().is_empty() {
        return Err("must not be blank".to_owned());
    }
    check_length(&normal, length)?;
    Ok(normal)
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
    let invalid = || "must be a valid e-mail address".to_owned();
    let normal = line(value, 1..=EMAIL_MAX_BYTES)?;
    let (local, domain) = normal.split_once('@').ok_or_else(invalid)?;
    let local_right = (1..=EMAIL_LOCAL_MAX_BYTES).contains(&local.len())
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local
            .chars()
            .all(|character| character.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(character));
    let label_right = |label: &str| {
        (1..=DOMAIN_LABEL_MAX_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|character| character.is_alphanumeric() || character == '-')
    };
    let domain_right = domain.contains('.') && domain.split('.').all(label_right);
    let right = normal.len() <= EMAIL_MAX_BYTES && local_right && domain_right;
    if right { Ok(normal) } else { Err(invalid()) }
}

/// A name to log in with: 3 to 30 letters, digits, `_`, `.`, `-`; no `@`, so that it is never an address.
///
/// # Errors
/// What is wrong, for the client.
pub fn username(value: &str) -> Result<String, String> {
    let normal = line(value, 3..=30)?;
    let right = |character: char| character.is_alphanumeric() || "_.-".contains(character);
    if normal.chars().all(right) {
        Ok(normal)
    } else {
        Err("may have letters, digits, `_`, `.` and `-` only".to_owned())
    }
}

/// A telephone number: 6 to 15 digits, with `+` before and spaces, dashes, dots and brackets between.
///
/// # Errors
/// What is wrong, for the client.
pub fn phone(value: &str) -> Result<String, String> {
    let invalid = || "must be a valid telephone number".to_owned();
    let digits = value.chars().filter(char::is_ascii_digit).count();
    let rest = value.strip_prefix('+').unwrap_or(value);
    let right = |character: char| character.is_ascii_digit() || " -.()/".contains(character);
    if !PHONE_DIGITS.contains(&digits) || !rest.chars().all(right) {
        return Err(invalid());
    }
    // With a country code it is a telephone number whatever its digits add up to.
    if !value.starts_with('+') && contains_card_number(value) {
        return Err("must not contain a payment card number".to_owned());
    }
    Ok(value.to_owned())
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
    let normal = value.nfc().collect::<String>();
    check_length(&normal, length)?;
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

fn check_length(value: &str, length: RangeInclusive<usize>) -> Result<(), String> {
    let characters = value.chars().count();
    if characters < *length.start() {
        return Err(format!("must have at least {} characters", length.start()));
    }
    if characters > *length.end() {
        return Err(format!("must have at most {} characters", length.end()));
    }
    Ok(())
}

/// The separators of lines and paragraphs, which are no control characters.
fn breaks_lines(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}')
}

/// Embeddings, overrides and isolates (Unicode Standard Annex 9): they can make a text look like another one.
fn overrides_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether 13 to 19 digits that pass the Luhn test stand in the text, also in groups with a space, dash or dot
/// between, and also in the wide digits of other scripts' keyboards.
pub fn contains_card_number(text: &str) -> bool {
    digit_groups(text).iter().any(|groups| {
        (0..groups.len()).any(|start| {
            let mut digits = Vec::new();
            groups[start..].iter().any(|group| {
                digits.extend_from_slice(group);
                CARD_DIGITS.contains(&digits.len()) && passes_luhn(&digits)
            })
        })
    })
}

/// Runs of digit groups that are parted by one separator each.
fn digit_groups(text: &str) -> Vec<Vec<Vec<u32>>> {
    let mut runs: Vec<Vec<Vec<u32>>> = vec![Vec::new()];
    let mut between = 2;
    for character in text.nfkc() {
        let Some(digit) = character.to_digit(10) else {
            between = if matches!(character, ' ' | '-' | '.') { between + 1 } else { 2 };
            continue;
        };
        match between {
            0 => {}
            1 => runs.last_mut().expect("there is always a run").push(Vec::new()),
            _ => runs.push(vec![Vec::new()]),
        }
        between = 0;
        let group = runs.last_mut().and_then(|run| run.last_mut()).expect("a digit opens a group");
        group.push(digit);
    }
    runs
}

/// The check digit of ISO/IEC 7812-1, annex B.
pub fn passes_luhn(digits: &[u32]) -> bool {
    let sum = digits.iter().rev().enumerate().map(|(index, digit)| match index % 2 {
        0 => *digit,
        _ if *digit > 4 => digit * 2 - 9,
        _ => digit * 2,
    });
    sum.sum::<u32>() % 10 == 0
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
        assert!(lines("a\0b", 1..=10).is_err());
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
    fn card_numbers_are_found_however_they_are_written() {
        for text in [
            "4111111111111111",
            "pay with 4111 1111 1111 1111 please",
            "4111-1111-1111-1111",
            "3782.822463.10005",
            "12 4111 1111 1111 1111 34",
            "４１１１１１１１１１１１１１１１",
            "card:6011000990139424.",
        ] {
            assert!(contains_card_number(text), "{text}");
        }
        for text in [
            "4111111111111112",
            "411111111111",
            "0194a3b2-7d11-7abc-8def-0123456789ab",
            "call 1, 2, 3, 4 and 5",
            "2026-11-21 10:00:00",
            "",
        ] {
            assert!(!contains_card_number(text), "{text}");
        }
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
        for wrong in ["12345", "phone", "378282246310005", "1234567890123456"] {
            assert!(phone(wrong).is_err(), "{wrong}");
        }
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
