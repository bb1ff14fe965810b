//! How somebody pays: a card, or what stands for one. A card's number and code are never stored, logged or told
//! back; in memory they are wiped when they were used.

use std::fmt;

use chrono::{Datelike, NaiveDate};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use zeroize::Zeroize;

use aggregates::money::{Currency, Money};
use aggregates::text::passes_luhn;

use crate::check::{Check, Field, Object};
use crate::decimal::Decimal;
use crate::gateway::Card;
use crate::problem::Problem;
use crate::text;

/// The digits of a card number (ISO/IEC 7812-1 has up to 19; 12 is the shortest in use).
const NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 12..=19;
/// The digits of the code on a card.
const CODE_DIGITS: std::ops::RangeInclusive<usize> = 3..=4;
/// The last year a card can be good for.
const LAST_YEAR: i64 = 2099;
/// The longest token, in characters.
const MAX_TOKEN_CHARS: usize = 200;

/// A text that is not shown anywhere.
#[derive(Clone)]
struct Hidden(SecretString);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[hidden]")
    }
}

/// A card.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CardDraft {
    /// 12 to 19 digits.
    #[serde(default)]
    #[schema(value_type = String, required, example = "4242424242424242")]
    number: Field<Hidden>,
    /// The month it expires.
    #[serde(default)]
    #[schema(value_type = i64, required, minimum = 1, maximum = 12)]
    exp_month: Field<i64>,
    /// The year it expires, in four digits.
    #[serde(default)]
    #[schema(value_type = i64, required, example = 2030)]
    exp_year: Field<i64>,
    /// Three or four digits.
    #[serde(default)]
    #[schema(value_type = String, required, example = "123")]
    cvc: Field<Hidden>,
}

/// A payment to be made: by a card, or by what stands for one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PayingDraft {
    /// The card.
    #[serde(default)]
    #[schema(value_type = Option<CardDraft>)]
    card: Field<Object<CardDraft>>,
    /// The gateway's token of a card.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    payment_token: Field<String>,
    /// What the payer means to pay: it must be what the order costs.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "999.99")]
    amount: Field<Decimal>,
}

/// A payment to be made, checked.
#[derive(Debug)]
pub(super) struct Paying {
    pub(super) means: Means,
    /// What the payer means to pay.
    pub(super) amount: Option<Money>,
}

/// What somebody pays with.
#[derive(Debug)]
pub(super) enum Means {
    Card(Card),
    Token(String),
}

impl PayingDraft {
    /// Checks a payment that is due in `currency`, on the day that is `today`.
    pub(super) fn check(self, currency: Currency, today: NaiveDate) -> Result<Paying, Problem> {
        let mut check = Check::new();
        let has_token = self.payment_token.is_sent();
        let token = check
            .optional("payment_token", self.payment_token, |value| text::line(&value, 1..=MAX_TOKEN_CHARS));
        let means = if has_token {
            if self.card.is_sent() {
                check.refuse("payment_token", "must not be sent with a card");
            }
            token.flatten().map(Means::Token)
        } else {
            let card = check.required("card", self.card, Ok);
            card.and_then(|Object(draft)| check.within("card", |check| draft.check(check, today)))
                .map(Means::Card)
        };
        let amount = check.optional("amount", self.amount, |value| {
            Ok(Money::new(value.minor(u32::from(currency.exponent()))?, currency))
        });
        check.finish(|| Some(Paying { means: means?, amount: amount? }))
    }
}

impl CardDraft {
    fn check(self, check: &mut Check, today: NaiveDate) -> Option<Card> {
        let number = check.required("number", self.number, |value| number(&value));
        let month = check.required("exp_month", self.exp_month, |value| text::whole(value, 1..=12));
        let year = check.required("exp_year", self.exp_year, |value| text::whole(value, 2000..=LAST_YEAR));
        let code = check.required("cvc", self.cvc, |Hidden(code)| {
            let right = is_digits(code.expose_secret(), &CODE_DIGITS);
            right.then_some(code).ok_or_else(|| "must be three or four digits".to_owned())
        });
        let this_month = (i64::from(today.year()), i64::from(today.month()));
        if year.zip(month).is_some_and(|expiry| expiry < this_month) {
            check.refuse("exp_year", "must not be past: the card has expired");
            return None;
        }
        Some(Card {
            number: number?,
            exp_month: u32::try_from(month?).ok()?,
            exp_year: u32::try_from(year?).ok()?,
            cvc: code?,
        })
    }
}

/// The digits of a card number, which may have been typed in groups.
fn number(typed: &Hidden) -> Result<SecretString, String> {
    let wrong = || "must be a card number".to_owned();
    let mut digits = typed
        .0
        .expose_secret()
        .chars()
        .filter(|character| !matches!(character, ' ' | '-'))
        .collect::<String>();
    let right = is_digits(&digits, &NUMBER_DIGITS) && passes_luhn(&digits);
    if right {
        return Ok(digits.into());
    }
    digits.zeroize();
    Err(wrong())
}

fn is_digits(text: &str, length: &std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn paying(body: Value) -> Result<Paying, Value> {
        let draft: PayingDraft = serde_json::from_value(body).expect("the body can be read");
        let today = NaiveDate::from_ymd_opt(2026, 5, 31).expect("it is a day");
        draft.check(Currency::USD, today).map_err(|problem| json!(problem.errors()))
    }

    fn card(number: &str, month: i64, year: i64, code: &str) -> Value {
        json!({"card": {"number": number, "exp_month": month, "exp_year": year, "cvc": code}})
    }

    #[test]
    fn a_card_is_taken_until_the_end_of_its_month() {
        let Paying { means, amount } =
            paying(card("4242 4242-42424242", 5, 2026, "012")).expect("the card is right");
        let Means::Card(sent) = means else { panic!("it is a card") };
        assert_eq!(sent.number.expose_secret(), "4242424242424242");
        assert_eq!((sent.exp_month, sent.exp_year, sent.cvc.expose_secret()), (5, 2026, "012"));
        assert_eq!(amount, None);
        let expired = json!({"card.exp_year": ["must not be past: the card has expired"]});
        assert_eq!(paying(card("4242424242424242", 4, 2026, "012")).expect_err("it has expired"), expired);
    }

    #[test]
    fn what_is_wrong_with_a_card_is_told_without_repeating_it() {
        let errors = paying(card("4242424242424241", 13, 26, "12")).expect_err("all of it is wrong");
        assert_eq!(
            errors,
            json!({
                "card.number": ["must be a card number"],
                "card.exp_month": ["must be greater than or equal to 1 and less than or equal to 12"],
                "card.exp_year": ["must be greater than or equal to 2000 and less than or equal to 2099"],
                "card.cvc": ["must be three or four digits"],
            })
        );
        let number = json!({"card": {"number": 4_242_424_242_424_242_i64, "cvc": 123}});
        let errors = paying(number).expect_err("they are no strings").to_string();
        assert!(errors.contains("must be a string") && !errors.contains("4242"), "{errors}");
    }

    #[test]
    fn a_card_or_what_stands_for_it_but_not_both() {
        let token = paying(json!({"payment_token": "tok_approved_visa_4242", "amount": "10.5"}));
        let Paying { means, amount } = token.expect("a token will do");
        assert!(matches!(means, Means::Token(token) if token == "tok_approved_visa_4242"));
        assert_eq!(amount, Some(Money::new(1050, Currency::USD)));
        assert_eq!(paying(json!({})).expect_err("there is neither"), json!({"card": ["is required"]}));
        let mut both = card("4242424242424242", 5, 2026, "012");
        both["payment_token"] = json!("tok");
        let refused = json!({"payment_token": ["must not be sent with a card"]});
        assert_eq!(paying(both).expect_err("there are both"), refused);
    }

    #[test]
    fn nothing_of_a_card_is_printed() {
        let draft: PayingDraft =
            serde_json::from_value(card("4242424242424242", 5, 2026, "987")).expect("it can be read");
        let printed = format!("{draft:?}");
        assert!(!printed.contains("4242") && !printed.contains("987"), "{printed}");
        let paying = paying(card("4242424242424242", 5, 2026, "987")).expect("the card is right");
        let printed = format!("{paying:?}");
        assert!(!printed.contains("4242") && !printed.contains("987"), "{printed}");
    }
}
