//! Mail over SMTP.

use std::time::Duration;

use async_trait::async_trait;
use lettre::transport::smtp::response::{Category, Code};
use lettre::transport::smtp::{AsyncSmtpTransport, Error};
use lettre::{AsyncTransport, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};

use aggregates::notifications::{Channel, DeliveryError};

use super::{MailError, Message, Messenger, Sender};

/// How long the server may take for one step.
const STEP_WITHIN: Duration = Duration::from_secs(15);
/// How long it may take for a whole letter.
const LETTER_WITHIN: Duration = Duration::from_secs(45);

/// Sends mail through a server.
pub struct SmtpMessenger {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    sender: Sender,
}

impl SmtpMessenger {
    /// Sends through the server of an address such as `smtps://user:password@mail.example.org`; with
    /// `smtp://…?tls=required` the encryption begins after the greeting. Nothing is connected yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(url: &SecretString, sender: Sender) -> Result<Self, MailError> {
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret());
        let transport = builder.map_err(MailError::Url)?.timeout(Some(STEP_WITHIN)).build();
        Ok(Self { transport, sender })
    }
}

#[async_trait]
impl Messenger for SmtpMessenger {
    async fn send(&self, message: &Message) -> Result<(), DeliveryError> {
        match message.channel {
            Channel::Email => {}
            // A mail server has no way to a telephone.
            Channel::Sms => return Err(DeliveryError::Rejected),
        }
        let letter = self.sender.letter(message)?;
        match tokio::time::timeout(LETTER_WITHIN, self.transport.send(letter)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let class = class(&error);
                // The error itself is not logged: the server's words may name the address.
                let code = error.status().map(|code| code.to_string());
                tracing::warn!(notification.id = %message.id, ?class, ?code, "a letter was not taken");
                Err(class)
            }
            Err(_) => {
                tracing::warn!(notification.id = %message.id, "the mail server did not answer in time");
                Err(DeliveryError::Unreachable)
            }
        }
    }
}

fn class(error: &Error) -> DeliveryError {
    match error.status() {
        Some(code) if is_about_us(code) => DeliveryError::Unreachable,
        Some(_) if error.is_permanent() => DeliveryError::Rejected,
        Some(_) => DeliveryError::Deferred,
        None => DeliveryError::Unreachable,
    }
}

/// Codes with 3 in the middle are about our account with the server (RFC 4954): no letter is to blame.
fn is_about_us(code: Code) -> bool {
    code.category == Category::Unspecified3
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::mail::tests::{message, sender};

    /// A server for one letter, which answers the naming of the recipient with `recipient`; gives what it was told.
    async fn server(recipient: &'static str) -> (SecretString, JoinHandle<std::io::Result<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let told = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let (reader, mut writer) = stream.split();
            let mut lines = BufReader::new(reader).lines();
            writer.write_all(b"220 mail.example.org\r\n").await?;
            let (mut told, mut in_letter) = (String::new(), false);
            while let Some(line) = lines.next_line().await? {
                told.push_str(&line);
                told.push('\n');
                let answer = match line.split([' ', ':']).next().unwrap_or_default() {
                    "." => "250 taken",
                    _ if in_letter => continue,
                    "RCPT" => recipient,
                    "DATA" => "354 go on",
                    "QUIT" => "221 bye",
                    _ => "250 fine",
                };
                in_letter = answer.starts_with("354");
                writer.write_all(format!("{answer}\r\n").as_bytes()).await?;
            }
            Ok(told)
        });
        (SecretString::from(format!("smtp://{address}")), told)
    }

    async fn sent(recipient: &'static str) -> (Result<(), DeliveryError>, String) {
        let (url, told) = server(recipient).await;
        let messenger = SmtpMessenger::new(&url, sender()).expect("the address is right");
        let sent = messenger.send(&message("ada@example.org")).await;
        let told = told.await.expect("the server ends").expect("the connection holds");
        (sent, told)
    }

    #[tokio::test]
    async fn a_letter_is_handed_to_the_server() {
        let (sent, told) = sent("250 fine").await;
        assert_eq!(sent, Ok(()));
        assert!(told.contains("MAIL FROM:<mart@shop.example.org>"), "{told}");
        assert!(told.contains("RCPT TO:<ada@example.org>"), "{told}");
        assert!(
            told.contains("Message-ID: <00000000-0000-0000-0000-000000000007@shop.example.org>"),
            "{told}"
        );
    }

    #[tokio::test]
    async fn what_the_server_says_has_three_classes() {
        assert_eq!(sent("550 no such user").await.0, Err(DeliveryError::Rejected));
        assert_eq!(sent("451 try later").await.0, Err(DeliveryError::Deferred));
        assert_eq!(sent("530 log in first").await.0, Err(DeliveryError::Unreachable));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_can_be_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let url = SecretString::from(format!("smtp://{address}"));
        let messenger = SmtpMessenger::new(&url, sender()).expect("the address is right");
        assert_eq!(messenger.send(&message("ada@example.org")).await, Err(DeliveryError::Unreachable));
    }

    #[tokio::test]
    async fn an_address_of_no_server_is_told_without_its_password() {
        let url = SecretString::from("http://user:secret@mail.example.org".to_owned());
        let error = SmtpMessenger::new(&url, sender()).err().expect("it is none");
        assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
    }
}
