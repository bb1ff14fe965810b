//! Rules for text that people enter, shared by the domain and the edge.

use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

/// The longest e-mail address, in bytes (RFC 5321 allows a path of 256 octets with its brackets).
const MAX_EMAIL_BYTES: usize = 254;
/// The longest part of it before the `@`, in bytes (RFC 5321).
const MAX_EMAIL_LOCAL_BYTES: usize = 64;
/// The longest name between two dots of a domain, in bytes (RFC 1035).
const MAX_DOMAIN_LABEL_BYTES: usize = 63;
/// What may stand before the `@` beside letters and digits (RFC 5322, atext and dots).
const EMAIL_LOCAL_SIGNS: &str = "!#$%&'*+/=?^_`{|}~.-";
/// The fewest digits of a telephone number.
const MIN_PHONE_DIGITS: usize = 6;
/// The most digits of a telephone number (E.164).
const MAX_PHONE_DIGITS: usize = 15;
/// The most characters of a telephone number, with all that stands between its digits.
const MAX_PHONE_CHARS: usize = 30;
/// The fewest digits of a payment card number (ISO/IEC 7812).
const MIN_CARD_DIGITS: usize = 13;
/// The most digits of a payment card number (ISO/IEC 7812).
const MAX_CARD_DIGITS: usize = 19;

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error, serde::Serialize)]
pub enum TextError {
    /// Fewer characters than allowed.
    #[error("shorter than minimum length {min}")]
    TooShort {
        /// The fewest characters.
        min: usize,
    },
    /// More characters than allowed.
    #[error("longer than maximum length {max}")]
    TooLong {
        /// The most characters.
        max: usize,
    },
    /// A control character, which has no place in a single line, or NUL, which has none anywhere.
    #[error("contains a control character")]
    ControlCharacter,
    /// A character that turns the direction of writing and so can make text look like another.
    #[error("contains a bidirectional override character")]
    BidirectionalOverride,
    /// Digits that look like a payment card number.
    #[error("contains what looks like a card number")]
    CardNumber,
    /// Not an e-mail address.
    #[error("not a valid email address")]
    MalformedEmail,
    /// A user name has letters, digits, `_`, `.` and `-` only.
    #[error("may contain letters, digits, '_', '.' and '-' only")]
    MalformedUsername,
    /// Not a telephone number.
    #[error("not a valid telephone number")]
    MalformedPhone,
}

/// The text in Unicode normal form C, as it is stored.
#[must_use]
pub fn normalise(text: &str) -> String {
    text.nfc().collect()
}

/// The key under which texts that differ in case or in compatibility forms only are the same.
#[must_use]
pub fn fold(text: &str) -> String {
    text.nfkc().collect::<String>().to_lowercase().nfkc().collect()
}

/// A text on one line, of `min` to `max` characters, without control, bidirectional override characters and card
/// numbers.
///
/// # Errors
/// The first [`TextError`] found.
pub fn check_line(text: &str, min: usize, max: usize) -> Result<(), TextError> {
    if text.chars().any(|character| character.is_control() || is_separator(character)) {
        return Err(TextError::ControlCharacter);
    }
    if text.chars().any(is_bidirectional_override) {
        return Err(TextError::BidirectionalOverride);
    }
    check_length(text, min, max)?;
    check_card_free(text)
}

/// A text on several lines: as [`check_line`], but line breaks and tabs are allowed.
///
/// # Errors
/// The first [`TextError`] found.
pub fn check_paragraph(text: &str, min: usize, max: usize) -> Result<(), TextError> {
    if text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\r' | '\t')) {
        return Err(TextError::ControlCharacter);
    }
    check_length(text, min, max)?;
    check_card_free(text)
}

/// An e-mail address: one `@`, something before it, a dotted name after it, no white space.
///
/// # Errors
/// [`TextError::MalformedEmail`] or the first rule of [`check_line`] it breaks.
pub fn check_email(email: &str) -> Result<(), TextError> {
    check_line(email, 1, MAX_EMAIL_BYTES)?;
    let (local, domain) = email.split_once('@').ok_or(TextError::MalformedEmail)?;
    let local_holds = (1..=MAX_EMAIL_LOCAL_BYTES).contains(&local.len())
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local
            .chars()
            .all(|character| character.is_alphanumeric() || EMAIL_LOCAL_SIGNS.contains(character));
    let label_holds = |label: &str| {
        (1..=MAX_DOMAIN_LABEL_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|character| character.is_alphanumeric() || character == '-')
    };
    let domain_holds = domain.contains('.') && domain.split('.').all(label_holds);
    if email.len() <= MAX_EMAIL_BYTES && local_holds && domain_holds {
        Ok(())
    } else {
        Err(TextError::MalformedEmail)
    }
}

/// A user name: 3 to 30 letters, digits, `_`, `.` or `-`; so it can never be taken for an e-mail address.
///
/// # Errors
/// [`TextError::MalformedUsername`] or a length refusal.
pub fn check_username(username: &str) -> Result<(), TextError> {
    if !username.chars().all(|character| character.is_alphanumeric() || "_.-".contains(character)) {
        return Err(TextError::MalformedUsername);
    }
    check_line(username, 3, 30)
}

/// A telephone number: 6 to 15 digits, with `+` before and spaces, dashes, dots, slashes and brackets between.
///
/// # Errors
/// [`TextError::MalformedPhone`]; [`TextError::CardNumber`] unless it begins with a country code: then it is a
/// telephone number whatever its digits add up to, which for one in ten is what those of a card would.
pub fn check_phone(phone: &str) -> Result<(), TextError> {
    let rest = phone.strip_prefix('+').unwrap_or(phone);
    let digits = rest.chars().filter(char::is_ascii_digit).count();
    let holds = (MIN_PHONE_DIGITS..=MAX_PHONE_DIGITS).contains(&digits)
        && phone.chars().count() <= MAX_PHONE_CHARS
        && rest.chars().all(|character| character.is_ascii_digit() || " -.()/".contains(character));
    if !holds {
        return Err(TextError::MalformedPhone);
    }
    if phone.starts_with('+') { Ok(()) } else { check_card_free(phone) }
}

/// Whether a text holds digits, in groups parted by single spaces, dots or hyphens, that have the length and the
/// check digit of a payment card number.
#[must_use]
pub fn contains_card_number(text: &str) -> bool {
    runs_of_groups(text).iter().any(|groups| {
        (0..groups.len()).any(|first| {
            let mut digits = String::new();
            groups[first..].iter().any(|group| {
                digits.push_str(group);
                (MIN_CARD_DIGITS..=MAX_CARD_DIGITS).contains(&digits.len()) && passes_luhn(&digits)
            })
        })
    })
}

/// The check of ISO/IEC 7812-1, annex B, over ASCII digits.
#[must_use]
pub fn passes_luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte.wrapping_sub(b'0'));
            match (place % 2, digit) {
                (0, digit) => digit,
                (_, digit) if digit > 4 => digit * 2 - 9,
                (_, digit) => digit * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn check_length(text: &str, min: usize, max: usize) -> Result<(), TextError> {
    match text.chars().count() {
        length if length < min => Err(TextError::TooShort { min }),
        length if length > max => Err(TextError::TooLong { max }),
        _ => Ok(()),
    }
}

fn check_card_free(text: &str) -> Result<(), TextError> {
    if contains_card_number(text) { Err(TextError::CardNumber) } else { Ok(()) }
}

/// The separators of lines and paragraphs, which are no control characters.
fn is_separator(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}')
}

/// The embeddings, overrides and isolates of UAX #9, and the marks that act like them.
fn is_bidirectional_override(character: char) -> bool {
    matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' | '\u{061C}')
}

/// Digit groups that stand side by side; a run ends at anything but a digit or a single separator.
fn runs_of_groups(text: &str) -> Vec<Vec<String>> {
    let mut runs = vec![Vec::new()];
    let mut group = String::new();
    let mut separated = false;
    // Compatibility forms, full-width digits among them, are still digits to whoever reads them.
    for character in text.nfkc() {
        if character.is_ascii_digit() {
            group.push(character);
            separated = false;
            continue;
        }
        let run = runs.last_mut().expect("there is always a run");
        if !group.is_empty() {
            run.push(std::mem::take(&mut group));
        }
        if separated || !matches!(character, ' ' | '-' | '.') {
            runs.push(Vec::new());
        }
        separated = matches!(character, ' ' | '-' | '.');
    }
    if !group.is_empty() {
        runs.last_mut().expect("there is always a run").push(group);
    }
    runs
}
