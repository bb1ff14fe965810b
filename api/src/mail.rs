//! Messages on their way to people: mail over SMTP, or into mailboxes on disk where there is no server. What goes
//! wrong is told as a class only, as what a mail server says may name the person.

mod mailbox;
mod smtp;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use lettre::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use uuid::Uuid;

use aggregates::notifications::{Channel, DeliveryError};

use crate::config::OutwardOptions;

pub use mailbox::MailboxMessenger;
pub use smtp::SmtpMessenger;

/// The folder of mail within that of the data.
const MAIL_FOLDER: &str = "mail";
/// The folder of text messages within that of the data.
const SMS_FOLDER: &str = "sms";

/// A message to a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The notification. A message sent again has the same id.
    pub id: Uuid,
    /// By what way it goes.
    pub channel: Channel,
    /// The e-mail address, or the telephone number.
    pub to: String,
    /// What it is about; text messages have none.
    pub subject: String,
    /// What it says.
    pub body: String,
}

/// Without the address and the text, so that neither comes into a log.
impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, channel, to: _, subject: _, body: _ } = self;
        formatter.debug_struct("Message").field("id", id).field("channel", channel).finish_non_exhaustive()
    }
}

/// A way for messages.
#[async_trait]
pub trait Messenger: Send + Sync + 'static {
    /// Hands a message over. The same message may come again, after a crash between the hand-over and its note.
    ///
    /// # Errors
    /// Why it was not taken.
    async fn send(&self, message: &Message) -> Result<(), DeliveryError>;
}

/// Why mail cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// `MART_SMTP_URL` is not one; it may hold a password, so it is not told.
    #[error("MART_SMTP_URL must be like smtps://user:password@mail.example.org")]
    Url(#[source] lettre::transport::smtp::Error),
    /// `MART_MAIL_FROM` is not a sender.
    #[error("MART_MAIL_FROM must be like Online Mart <mart@example.org>")]
    From(#[source] lettre::address::AddressError),
}

/// The way of messages that the options ask for: mail through a server, or into `mail` in the data folder; text
/// messages into `sms` there.
///
/// # Errors
/// When an option cannot be read.
pub fn messenger(options: &OutwardOptions, data_dir: &Path) -> Result<Arc<dyn Messenger>, MailError> {
    let sender = Sender::new(&options.mail_from)?;
    let mail: Arc<dyn Messenger> = match &options.smtp_url {
        Some(url) => Arc::new(SmtpMessenger::new(url, sender.clone())?),
        None => Arc::new(MailboxMessenger::new(data_dir.join(MAIL_FOLDER), sender.clone())),
    };
    // There is no gateway for text messages: whoever runs the mart takes them from the folder.
    let texts = Arc::new(MailboxMessenger::new(data_dir.join(SMS_FOLDER), sender));
    Ok(Arc::new(ByChannel { mail, texts }))
}

/// Each channel by its own way.
struct ByChannel {
    mail: Arc<dyn Messenger>,
    texts: Arc<dyn Messenger>,
}

#[async_trait]
impl Messenger for ByChannel {
    async fn send(&self, message: &Message) -> Result<(), DeliveryError> {
        match message.channel {
            Channel::Email => self.mail.send(message).await,
            Channel::Sms => self.texts.send(message).await,
        }
    }
}

/// Who mail comes from.
#[derive(Debug, Clone)]
pub struct Sender(Mailbox);

impl Sender {
    /// A sender such as `Online Mart <mart@example.org>`.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(from: &str) -> Result<Self, MailError> {
        from.parse().map(Self).map_err(MailError::From)
    }

    /// The message as a letter (RFC 5322). Its `Message-ID` follows from its id, so that a mailbox recognises
    /// one that is sent again; it calls itself automatic, so that nobody's absence answers it (RFC 3834).
    fn letter(&self, message: &Message) -> Result<lettre::Message, DeliveryError> {
        let to = message.to.parse::<Address>().map_err(|_| DeliveryError::Rejected)?;
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        MessageBuilder::new()
            .message_id(Some(format!("<{}@{}>", message.id, self.0.email.domain())))
            .date_now()
            .from(self.0.clone())
            .to(Mailbox::new(None, to))
            .subject(message.subject.trim_end())
            .raw_header(HeaderValue::new(name, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN)
            .body(message.body.clone())
            .map_err(|_| DeliveryError::Rejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn message(to: &str) -> Message {
        Message {
            id: Uuid::from_u128(7),
            channel: Channel::Email,
            to: to.to_owned(),
            subject: "Order Confirmation".to_owned(),
            body: "Hi ada,\nThankyou for your order.".to_owned(),
        }
    }

    pub(super) fn sender() -> Sender {
        Sender::new("Online Mart <mart@shop.example.org>").expect("it is a sender")
    }

    #[test]
    fn a_letter_says_who_whom_and_what() {
        let letter = sender().letter(&message("ada@example.org")).expect("the address is right");
        let text = String::from_utf8(letter.formatted()).expect("it is plain");
        for line in [
            "From: \"Online Mart\" <mart@shop.example.org>\r\n",
            "To: ada@example.org\r\n",
            "Subject: Order Confirmation\r\n",
            "Message-ID: <00000000-0000-0000-0000-000000000007@shop.example.org>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "\r\n\r\nHi ada,\r\nThankyou for your order.",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn an_address_brings_no_headers_of_its_own() {
        for address in ["ada@example.org\r\nBcc: eve@example.org", "no address", ""] {
            let refused = sender().letter(&message(address)).expect_err("it is none");
            assert_eq!(refused, DeliveryError::Rejected, "{address}");
        }
    }

    #[test]
    fn a_message_does_not_tell_its_address_to_the_log() {
        let told = format!("{:?}", message("ada@example.org"));
        assert!(!told.contains("ada"), "{told}");
    }

    #[test]
    fn a_sender_that_is_none_is_told_at_the_start() {
        assert!(matches!(Sender::new("nobody"), Err(MailError::From(_))));
    }
}
