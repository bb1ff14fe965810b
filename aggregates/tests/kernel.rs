//! Money, texts, identifiers and personal data.

use aggregates::identifiers::{ProductId, StockItemId};
use aggregates::money::{Currency, Money, MoneyError};
use aggregates::personal::Personal;
use aggregates::text::{self, TextError};
use proptest::prelude::{any, prop_assert_eq, proptest};
use uuid::Uuid;

fn currency(code: &str) -> Currency {
    code.parse().expect("a currency of ISO 4217")
}

proptest! {
    #[test]
    fn money_is_read_as_it_is_written(minor in any::<i64>(), code in "USD|JPY|KWD") {
        let money = Money::new(minor, currency(&code));
        prop_assert_eq!(Money::parse(&money.to_string(), money.currency), Ok(money));
    }
}

#[test]
fn money_has_exactly_the_decimals_of_its_currency() {
    assert_eq!(Money::parse("999.99", Currency::USD), Ok(Money::new(99_999, Currency::USD)));
    assert_eq!(Money::parse("65", Currency::USD).map(|money| money.to_string()), Ok("65.00".to_owned()));
    assert_eq!(Money::parse("1.234", Currency::USD), Err(MoneyError::TooManyDecimals { allowed: 2 }));
    assert_eq!(Money::parse("1e3", Currency::USD), Err(MoneyError::Malformed));
    assert_eq!(Money::new(-5, Currency::USD).to_string(), "-0.05");
}

#[test]
fn money_of_two_currencies_does_not_add_up() {
    let sum = Money::new(1, Currency::USD).checked_add(Money::new(1, currency("EUR")));
    assert_eq!(sum, Err(MoneyError::MixedCurrencies));
    assert_eq!("XXX".parse::<Currency>(), Err(MoneyError::UnknownCurrency));
}

#[test]
fn personal_data_is_never_printed_and_survives_its_forms() {
    for personal in [Personal::Known("ada".to_owned()), Personal::Sealed("x".to_owned()), Personal::Gone] {
        assert!(!format!("{personal:?}").contains("ada"));
        let json = serde_json::to_string(&personal).expect("personal data can be written");
        assert_eq!(serde_json::from_str::<Personal<String>>(&json).expect("and read"), personal);
    }
}

#[test]
fn card_numbers_are_found_however_they_are_written() {
    for card in [
        "4111111111111111",
        "card 4242 4242 4242 4242, thanks",
        "nr 7 4242-4242-4242-4242",
        "3782.822463.10005",
        "12 4111 1111 1111 1111 34",
        "４１１１１１１１１１１１１１１１",
        "card:6011000990139424.",
    ] {
        assert!(text::contains_card_number(card), "{card}");
    }
    for other in [
        "4242424242424241",
        "411111111111",
        "0194a3b2-7d11-7abc-8def-0123456789ab",
        "call 1, 2, 3, 4 and 5",
        "call +49 30 901820",
        "2026-11-21 10:00:00",
        "",
    ] {
        assert!(!text::contains_card_number(other), "{other}");
    }
}

#[test]
fn addresses_of_mail_and_telephone_numbers_are_told_from_other_texts() {
    for right in ["a@b.co", "test_user@email.com", "o'neil+x@shop.example.org", "zoë@bücher.example"] {
        assert_eq!(text::check_email(right), Ok(()), "{right}");
    }
    let long = format!("a@{}.org", "b".repeat(64));
    for wrong in
        ["invalid_email.com", "a@b", "@b.co", "a@@b.co", "a b@c.de", "a@-b.co", "a@b..co", ".a@b.co", &long]
    {
        assert_eq!(text::check_email(wrong), Err(TextError::MalformedEmail), "{wrong}");
    }
    // The last of these has the check digit of a card, which one in ten has.
    for right in ["+49 (170) 123-4567", "030/901820", "+378282246310005"] {
        assert_eq!(text::check_phone(right), Ok(()), "{right}");
    }
    for wrong in ["12345", "phone", "1234567890123456", "49+30901820"] {
        assert_eq!(text::check_phone(wrong), Err(TextError::MalformedPhone), "{wrong}");
    }
    assert_eq!(text::check_phone("378282246310005"), Err(TextError::CardNumber));
}

#[test]
fn a_line_has_no_control_and_no_override_characters() {
    assert_eq!(text::check_line("a\u{0}", 0, 9), Err(TextError::ControlCharacter));
    assert_eq!(text::check_line("a\u{2028}b", 0, 9), Err(TextError::ControlCharacter));
    assert_eq!(text::check_line("a\u{202e}b", 0, 9), Err(TextError::BidirectionalOverride));
    assert_eq!(text::check_username("ada@home"), Err(TextError::MalformedUsername));
}

#[test]
fn a_stock_item_is_named_by_its_product_and_its_place() {
    let main = StockItemId::main(ProductId(Uuid::nil()));
    let annex = StockItemId { location: "annex".to_owned(), ..main.clone() };
    assert_eq!(main.to_string().parse(), Ok(main));
    assert_eq!(annex.to_string().parse(), Ok(annex));
}
