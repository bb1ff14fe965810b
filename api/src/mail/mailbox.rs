//! Messages into mailboxes, a file (mbox, RFC 4155) for each day, for a mart without a mail server.
//!
//! A file for each message would be simpler, and dearer than all else that is done for it: to make one takes a file
//! system a tenth of a millisecond and more.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use aggregates::notifications::{Channel, DeliveryError};

use super::{Message, Messenger, Sender};
use crate::clock;

/// Addresses are for the owner of the folder only.
const FOLDER_MODE: u32 = 0o700;
/// As for the folder.
const FILE_MODE: u32 = 0o600;
/// How much of the end of a mailbox is searched for messages that others put there, or this process before it ended:
/// one that comes again comes within seconds.
const SEARCHED_BYTES: u64 = 4 * 1024 * 1024;
/// After how many messages those before the last as many are forgotten.
const REMEMBERED: usize = 20_000;

/// Puts messages into the mailbox of the day, which is made when the first one comes.
#[derive(Debug, Clone)]
pub struct MailboxMessenger {
    sender: Sender,
    mailboxes: Arc<Mutex<Mailboxes>>,
}

impl MailboxMessenger {
    /// Puts them into mailboxes in this folder.
    pub fn new(folder: PathBuf, sender: Sender) -> Self {
        let mailboxes = Mailboxes { folder, open: None, known: Known::default() };
        Self { sender, mailboxes: Arc::new(Mutex::new(mailboxes)) }
    }

    fn content(&self, message: &Message) -> Result<String, DeliveryError> {
        match message.channel {
            Channel::Email => {
                let letter = self.sender.letter(message)?.formatted();
                String::from_utf8(letter).map_err(|_| DeliveryError::Rejected)
            }
            Channel::Sms => {
                let Message { id, to, body, .. } = message;
                Ok(format!("To: {to}\nMessage-ID: <{id}@{}>\n\n{body}", self.sender.0.email.domain()))
            }
        }
    }
}

#[async_trait]
impl Messenger for MailboxMessenger {
    async fn send(&self, message: &Message) -> Result<(), DeliveryError> {
        let (id, now) = (message.id, clock::now());
        let entry = entry(self.sender.0.email.as_ref(), &self.content(message)?, now);
        let mailboxes = Arc::clone(&self.mailboxes);
        let put = tokio::task::spawn_blocking(move || {
            // Whoever panicked with it in hand left a file whose end is looked at anyway.
            let mut mailboxes = mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
            mailboxes.put(id, &entry, now.date_naive())
        });
        match put.await {
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

/// A message as it stands in a mailbox. A line that could be taken for the beginning of the next is quoted.
fn entry(sender: &str, content: &str, now: DateTime<Utc>) -> String {
    let mut entry = format!("From {sender} {}\n", now.format("%a %b %e %H:%M:%S %Y"));
    for line in content.lines() {
        if line.trim_start_matches('>').starts_with("From ") {
            entry.push('>');
        }
        entry.push_str(line);
        entry.push('\n');
    }
    entry.push('\n');
    entry
}

/// The mailboxes of a folder.
#[derive(Debug)]
struct Mailboxes {
    folder: PathBuf,
    open: Option<Mailbox>,
    known: Known,
}

impl Mailboxes {
    /// Appends a message whole or not at all, however the process ends; one that is there already is not written
    /// again. Nothing is flushed: that would hold up the flushes of the log, for letters that nobody is sent. After a
    /// power cut the last may be missing.
    fn put(&mut self, id: Uuid, entry: &str, day: NaiveDate) -> io::Result<()> {
        let mut mailbox = match self.open.take().filter(|open| open.day == day && open.is_there()) {
            Some(open) => open,
            None => Mailbox::open(&self.folder, day)?,
        };
        // Workers in other processes write into the same file.
        mailbox.file.lock()?;
        let written = mailbox.append(id, entry, &mut self.known);
        mailbox.file.unlock()?;
        written?;
        self.open = Some(mailbox);
        Ok(())
    }
}

/// The mailbox of a day.
#[derive(Debug)]
struct Mailbox {
    day: NaiveDate,
    path: PathBuf,
    file: File,
    /// What stands before this was looked at.
    read_to: u64,
}

impl Mailbox {
    fn open(folder: &Path, day: NaiveDate) -> io::Result<Self> {
        let path = folder.join(format!("{day}.mbox"));
        let open = || OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
                open()?
            }
            opened => opened?,
        };
        Ok(Self { day, path, file, read_to: 0 })
    }

    /// Whether its file is still in the folder: somebody may have emptied that.
    fn is_there(&self) -> bool {
        self.path.exists()
    }

    fn append(&mut self, id: Uuid, entry: &str, known: &mut Known) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        if end != self.read_to {
            self.look(end, known)?;
        }
        if known.contains(id) {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(entry.as_bytes()) {
            self.file.set_len(end)?;
            return Err(error);
        }
        self.read_to = end + entry.len() as u64;
        known.insert(id);
        Ok(())
    }

    /// Looks for the messages between what was seen last and the end, and mends one that was broken off.
    fn look(&mut self, end: u64, known: &mut Known) -> io::Result<()> {
        let from = if self.read_to > end { 0 } else { self.read_to };
        self.file.seek(SeekFrom::Start(from.max(end.saturating_sub(SEARCHED_BYTES))))?;
        let mut tail = Vec::new();
        (&self.file).take(SEARCHED_BYTES).read_to_end(&mut tail)?;
        for line in tail.split(|byte| *byte == b'\n') {
            if let Some(id) = id_in(line) {
                known.insert(id);
            }
        }
        if !tail.ends_with(b"\n\n") && end > 0 {
            self.file.write_all(b"\n\n")?;
        }
        Ok(())
    }
}

/// The id in a line such as `Message-ID: <id@domain>`.
fn id_in(line: &[u8]) -> Option<Uuid> {
    let id = line.strip_prefix(b"Message-ID: <")?.split(|byte| *byte == b'@').next()?;
    Uuid::try_parse_ascii(id).ok()
}

/// Messages that were put into a mailbox lately.
#[derive(Debug, Default)]
struct Known {
    last: HashSet<Uuid>,
    before: HashSet<Uuid>,
}

impl Known {
    fn contains(&self, id: Uuid) -> bool {
        self.last.contains(&id) || self.before.contains(&id)
    }

    fn insert(&mut self, id: Uuid) {
        if self.last.len() >= REMEMBERED {
            self.before = std::mem::take(&mut self.last);
        }
        self.last.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::mail::tests::{message, sender};

    /// All that stands in the only mailbox of a folder.
    fn mailbox(folder: &Path) -> (PathBuf, String) {
        let entries = std::fs::read_dir(folder).expect("the folder was made");
        let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
        let [path] = &paths[..] else { panic!("one mailbox, not {paths:?}") };
        (path.clone(), std::fs::read_to_string(path).expect("it is text"))
    }

    fn ids(mailbox: &str) -> Vec<Uuid> {
        mailbox.lines().filter_map(|line| id_in(line.as_bytes())).collect()
    }

    fn letter(number: u128) -> Message {
        Message { id: Uuid::from_u128(number), ..message("ada@example.org") }
    }

    #[tokio::test]
    async fn letters_stand_one_behind_the_other() {
        let data = tempfile::tempdir().expect("there is room");
        let folder = data.path().join("mail");
        let messenger = MailboxMessenger::new(folder.clone(), sender());
        for number in [1, 2] {
            let body = "Hi ada,\nFrom now on:\n>From then".to_owned();
            assert_eq!(messenger.send(&Message { body, ..letter(number) }).await, Ok(()));
        }
        let (path, text) = mailbox(&folder);
        let entries: Vec<&str> = text.split("\n\nFrom mart@shop.example.org ").collect();
        assert_eq!(entries.len(), 2, "{text}");
        for entry in entries {
            assert!(entry.contains("\nTo: ada@example.org\n"), "{entry}");
            assert!(entry.trim_end().ends_with("Hi ada,\n>From now on:\n>>From then"), "{entry}");
        }
        assert_eq!(ids(&text), [Uuid::from_u128(1), Uuid::from_u128(2)]);
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path)), (FOLDER_MODE, FILE_MODE));
    }

    #[tokio::test]
    async fn a_letter_that_comes_again_stands_there_once_whoever_brings_it() {
        let data = tempfile::tempdir().expect("there is room");
        let [first, second] =
            std::array::from_fn(|_| MailboxMessenger::new(data.path().to_owned(), sender()));
        for (messenger, number) in
            [(&first, 1), (&first, 1), (&second, 1), (&second, 2), (&first, 2), (&first, 3)]
        {
            assert_eq!(messenger.send(&letter(number)).await, Ok(()));
        }
        let (_, text) = mailbox(data.path());
        assert_eq!(ids(&text), [1, 2, 3].map(Uuid::from_u128));
    }

    #[tokio::test]
    async fn a_mailbox_that_was_cut_off_or_taken_away_is_gone_on_with() {
        let data = tempfile::tempdir().expect("there is room");
        let messenger = MailboxMessenger::new(data.path().to_owned(), sender());
        assert_eq!(messenger.send(&letter(1)).await, Ok(()));
        let (path, whole) = mailbox(data.path());
        std::fs::write(&path, &whole[..whole.len() - 10]).expect("it can be cut");
        assert_eq!(messenger.send(&letter(2)).await, Ok(()));
        let (_, text) = mailbox(data.path());
        assert_eq!(text.matches("\n\nFrom mart@shop.example.org ").count(), 1, "{text}");

        std::fs::remove_file(&path).expect("it can be removed");
        assert_eq!(messenger.send(&letter(3)).await, Ok(()));
        assert_eq!(ids(&mailbox(data.path()).1), [Uuid::from_u128(3)]);
    }

    #[tokio::test]
    async fn a_text_message_has_a_number_and_a_text() {
        let data = tempfile::tempdir().expect("there is room");
        let messenger = MailboxMessenger::new(data.path().to_owned(), sender());
        let text = Message { channel: Channel::Sms, to: "+49 170 1234567".to_owned(), ..message("") };
        assert_eq!(messenger.send(&text).await, Ok(()));
        let (_, written) = mailbox(data.path());
        let (_, written) = written.split_once('\n').expect("it begins with a line of the mailbox");
        let expected = format!(
            "To: +49 170 1234567\nMessage-ID: <{}@shop.example.org>\n\nHi ada,\nThankyou for your order.\n\n",
            text.id
        );
        assert_eq!(written, expected);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_can_be_tried_again() {
        let data = tempfile::tempdir().expect("there is room");
        let blocked = data.path().join("file");
        std::fs::write(&blocked, "in the way").expect("it can be written");
        let messenger = MailboxMessenger::new(blocked.clone(), sender());
        assert_eq!(messenger.send(&letter(1)).await, Err(DeliveryError::Unreachable));
        std::fs::remove_file(&blocked).expect("it can be removed");
        assert_eq!(messenger.send(&letter(1)).await, Ok(()));
    }

    #[test]
    fn the_newest_messages_are_known_and_no_more_than_some() {
        let mut known = Known::default();
        for number in 0..3 * REMEMBERED as u128 {
            known.insert(Uuid::from_u128(number));
        }
        assert!(known.contains(Uuid::from_u128(3 * REMEMBERED as u128 - 1)));
        assert!(known.contains(Uuid::from_u128(2 * REMEMBERED as u128 - 1)));
        assert!(!known.contains(Uuid::from_u128(0)));
        assert!(known.last.len() + known.before.len() <= 2 * REMEMBERED);
    }
}
