//! Messages into files, one for each, for a mart without a mail server.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use uuid::Uuid;

use aggregates::notifications::{Channel, DeliveryError};

use super::{Message, Messenger, Sender};

/// Addresses are for the owner of the folder only.
const FOLDER_MODE: u32 = 0o700;
/// As for the folder.
const FILE_MODE: u32 = 0o600;

/// Writes each message into a file named by its id: letters as `.eml`, text messages as `.txt`.
#[derive(Debug, Clone)]
pub struct FileMessenger {
    folder: PathBuf,
    sender: Sender,
}

impl FileMessenger {
    /// Writes into this folder, which is made when the first message comes.
    pub fn new(folder: PathBuf, sender: Sender) -> Self {
        Self { folder, sender }
    }

    fn content(&self, message: &Message) -> Result<(&'static str, Vec<u8>), DeliveryError> {
        match message.channel {
            Channel::Email => Ok(("eml", self.sender.letter(message)?.formatted())),
            Channel::Sms => Ok(("txt", format!("To: {}\n\n{}\n", message.to, message.body).into_bytes())),
        }
    }
}

#[async_trait]
impl Messenger for FileMessenger {
    async fn send(&self, message: &Message) -> Result<(), DeliveryError> {
        let (extension, content) = self.content(message)?;
        let (folder, id) = (self.folder.clone(), message.id);
        let written =
            tokio::task::spawn_blocking(move || write_once(&folder, &format!("{id}.{extension}"), &content));
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(notification.id = %id, %error, "a message could not be written");
                Err(DeliveryError::Unreachable)
            }
            Err(error) => {
                tracing::warn!(notification.id = %id, %error, "the writing of a message was broken off");
                Err(DeliveryError::Unreachable)
            }
        }
    }
}

/// Writes a file whole or not at all, however the process ends; one that is there already stays. It is not flushed:
/// that would hold up the flushes of the log, for letters that nobody is sent. After a power cut the last may be
/// missing.
fn write_once(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let path = folder.join(name);
    if path.try_exists()? {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let draft = folder.join(format!(".{name}.{}", Uuid::now_v7()));
    let written = write(&draft, content).and_then(|()| std::fs::rename(&draft, &path));
    if written.is_err() {
        // What is left of the draft is of no use; the error to tell is the one that came first.
        let _ = std::fs::remove_file(&draft);
    }
    written
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?.write_all(content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::mail::tests::{message, sender};

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("the folder was made");
        let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("it can be read").file_name();
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn a_letter_sent_twice_is_one_file() {
        let data = tempfile::tempdir().expect("there is room");
        let folder = data.path().join("mail");
        let messenger = FileMessenger::new(folder.clone(), sender());
        let letter = message("ada@example.org");
        assert_eq!(messenger.send(&letter).await, Ok(()));
        let path = folder.join(format!("{}.eml", letter.id));
        let first = std::fs::read(&path).expect("it was written");
        assert_eq!(messenger.send(&letter).await, Ok(()));
        assert_eq!(names(&folder), [format!("{}.eml", letter.id)]);
        assert_eq!(std::fs::read(&path).expect("it is there"), first);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
    }

    #[tokio::test]
    async fn a_text_message_has_a_number_and_a_text() {
        let data = tempfile::tempdir().expect("there is room");
        let messenger = FileMessenger::new(data.path().to_owned(), sender());
        let text = Message { channel: Channel::Sms, to: "+49 170 1234567".to_owned(), ..message("") };
        assert_eq!(messenger.send(&text).await, Ok(()));
        let written = std::fs::read_to_string(data.path().join(format!("{}.txt", text.id)));
        assert_eq!(
            written.expect("it was written"),
            "To: +49 170 1234567\n\nHi ada,\nThankyou for your order.\n"
        );
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_can_be_tried_again() {
        let data = tempfile::tempdir().expect("there is room");
        let blocked = data.path().join("file");
        std::fs::write(&blocked, "in the way").expect("it can be written");
        let messenger = FileMessenger::new(blocked, sender());
        assert_eq!(messenger.send(&message("ada@example.org")).await, Err(DeliveryError::Unreachable));
    }
}
