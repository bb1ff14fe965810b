//! Messages into mailboxes, a file (mbox, RFC 4155) for each day, for a mart without a mail server.
//!
//! A file for each message would be simpler, and dear: to make one takes a file system up to some tenths of a
//! millisecond of the processor. Messages that come while others are written are written together after them.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use tokio::sync::oneshot;
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
/// How many messages are remembered at least. At twice as many the older half is forgotten.
const REMEMBERED: usize = 20_000;
/// How often it is tried to lock a mailbox that somebody else has, and the pause between.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// How long after some messages the next are written.
const PACE: Duration = Duration::from_millis(5);
/// What the first line of a message begins with.
const FROM: &str = "From ";
/// What headers and messages end with.
const END: &[u8] = b"\n\n";
/// The header that tells how many bytes follow behind the headers.
const LENGTH: &str = "Content-Length: ";

/// Puts messages into the mailbox of the day, which is made when the first one comes.
#[derive(Debug, Clone)]
pub struct MailboxMessenger {
    sender: Sender,
    outbox: Arc<Outbox>,
}

/// Messages on their way into mailboxes.
#[derive(Debug)]
struct Outbox {
    waiting: Mutex<Waiting>,
    mailboxes: Mutex<Mailboxes>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: Vec<Posted>,
    /// Whether somebody writes, and will look for more.
    is_written: bool,
}

/// A message and who waits for it to be written.
#[derive(Debug)]
struct Posted {
    id: Uuid,
    entry: String,
    written: oneshot::Sender<Result<(), DeliveryError>>,
}

impl MailboxMessenger {
    /// Puts them into mailboxes in this folder.
    pub fn new(folder: PathBuf, sender: Sender) -> Self {
        let mailboxes = Mutex::new(Mailboxes { folder, open: None, known: Known::default() });
        Self { sender, outbox: Arc::new(Outbox { waiting: Mutex::default(), mailboxes }) }
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
        let (written, answer) = oneshot::channel();
        if self.outbox.post(Posted { id, entry, written }) {
            tokio::spawn(Arc::clone(&self.outbox).write());
        }
        // Unanswered, it was broken off.
        answer.await.unwrap_or(Err(DeliveryError::Unreachable))
    }
}

impl Outbox {
    /// Leaves a message to be written. Says whether nobody does so yet.
    fn post(&self, posted: Posted) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.messages.push(posted);
        !std::mem::replace(&mut waiting.is_written, true)
    }

    /// The messages that wait; when there are none, nobody writes any more.
    fn take(&self) -> Vec<Posted> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.is_written = !waiting.messages.is_empty();
        std::mem::take(&mut waiting.messages)
    }

    /// Writes until nothing is left.
    async fn write(self: Arc<Self>) {
        loop {
            let messages = self.take();
            if messages.is_empty() {
                return;
            }
            let (outbox, day) = (Arc::clone(&self), clock::now().date_naive());
            let writing = tokio::task::spawn_blocking(move || outbox.write_all(messages, day));
            if let Err(error) = writing.await {
                tracing::warn!(%error, "the writing of messages was broken off");
            }
            tokio::time::sleep(PACE).await;
        }
    }

    fn write_all(&self, messages: Vec<Posted>, day: NaiveDate) {
        let entries: Vec<(Uuid, &str)> = messages.iter().map(|posted| (posted.id, &*posted.entry)).collect();
        // Whoever panicked with it in hand left a file whose end is looked at anyway.
        let mut mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let put = mailboxes.put(&entries, day);
        drop(mailboxes);
        if let Err(error) = &put {
            let ids: Vec<Uuid> = messages.iter().map(|posted| posted.id).collect();
            tracing::warn!(notification.ids = ?ids, %error, "messages could not be written");
        }
        for Posted { written, .. } in messages {
            // Whoever has given up asks again.
            let _ = written.send(if put.is_ok() { Ok(()) } else { Err(DeliveryError::Unreachable) });
        }
    }
}

/// A message as it stands in a mailbox, with the length of its body, by which one that was broken off is known. A line
/// that could be taken for the beginning of the next message is quoted.
fn entry(sender: &str, content: &str, now: DateTime<Utc>) -> String {
    let mut entry = format!("{FROM}{sender} {}\n", now.format("%a %b %e %H:%M:%S %Y"));
    let mut lines = content.lines();
    for header in lines.by_ref().take_while(|line| !line.is_empty()) {
        entry.push_str(header);
        entry.push('\n');
    }
    let mut body = String::new();
    for line in lines {
        if line.trim_start_matches('>').starts_with(FROM) {
            body.push('>');
        }
        body.push_str(line);
        body.push('\n');
    }
    entry.push_str(&format!("{LENGTH}{}\n\n{body}\n", body.len()));
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
    /// Appends messages, each whole or not at all, however the process ends; one that is there already is not written
    /// again. Nothing is flushed: that would hold up the flushes of the log, for letters that nobody is sent. After a
    /// power cut the last may be missing.
    fn put(&mut self, entries: &[(Uuid, &str)], day: NaiveDate) -> io::Result<()> {
        let mut mailbox = match self.open.take().filter(|open| open.day == day) {
            Some(open) => open,
            None => Mailbox::open(&self.folder, day)?,
        };
        mailbox.lock()?;
        if !mailbox.is_in_its_place() {
            // Somebody emptied the folder, or replaced the file: what is written into this one nobody reads.
            mailbox = Mailbox::open(&self.folder, day)?;
            mailbox.lock()?;
        }
        let written = mailbox.append(entries, &mut self.known);
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

    /// Keeps others out, as workers in other processes write into the same file.
    fn lock(&self) -> io::Result<()> {
        for _ in 0..LOCK_TRIES {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("somebody keeps {} locked", self.path.display()),
        ))
    }

    /// Whether the file at its path is this one.
    fn is_in_its_place(&self) -> bool {
        let identity = |found: io::Result<Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
        let known = identity(self.file.metadata());
        known.is_some() && known == identity(std::fs::metadata(&self.path))
    }

    fn append(&mut self, entries: &[(Uuid, &str)], known: &mut Known) -> io::Result<()> {
        let mut end = self.file.metadata()?.len();
        if end != self.read_to {
            end = self.look(end, known)?;
            self.read_to = end;
        }
        let mut new = String::new();
        let mut ids = HashSet::with_capacity(entries.len());
        for (id, entry) in entries {
            if !known.contains(*id) && ids.insert(*id) {
                new.push_str(entry);
            }
        }
        if let Err(error) = self.file.write_all(new.as_bytes()) {
            self.file.set_len(end)?;
            return Err(error);
        }
        self.read_to = end + new.len() as u64;
        for id in ids {
            known.insert(id);
        }
        Ok(())
    }

    /// Looks for the messages between what was seen last and the end, and takes away one that was broken off: it comes
    /// again. Gives the end.
    fn look(&mut self, end: u64, known: &mut Known) -> io::Result<u64> {
        let from = if self.read_to > end { 0 } else { self.read_to };
        let from = from.max(end.saturating_sub(SEARCHED_BYTES));
        self.file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        (&self.file).take(end - from).read_to_end(&mut tail)?;
        let whole = whole(&tail);
        for line in tail[..whole].split(|byte| *byte == b'\n') {
            if let Some(id) = id_in(line) {
                known.insert(id);
            }
        }
        let end = from + whole as u64;
        if whole < tail.len() {
            self.file.set_len(end)?;
        } else if !tail.is_empty() && !tail.ends_with(END) {
            // Another program left it so. The next message must begin behind an empty line.
            self.file.write_all(END)?;
            return Ok(end + END.len() as u64);
        }
        Ok(end)
    }
}

/// How much of the end of a mailbox is whole messages. What is not of this program is never taken for broken off: it may
/// have no length, and end in its own way.
fn whole(tail: &[u8]) -> usize {
    let next = [END, FROM.as_bytes()].concat();
    let last = tail.windows(next.len()).rposition(|window| window == next).map_or(0, |at| at + END.len());
    let message = &tail[last..];
    if !message.starts_with(FROM.as_bytes()) && !FROM.as_bytes().starts_with(message) {
        return tail.len();
    }
    let Some(headers) = message.windows(END.len()).position(|window| window == END) else { return last };
    let length = message[..headers]
        .split(|byte| *byte == b'\n')
        .find_map(|line| str::from_utf8(line.strip_prefix(LENGTH.as_bytes())?).ok()?.parse::<usize>().ok());
    match length {
        // Behind the body is an empty line.
        Some(length) if headers + END.len() + length < message.len() => {
            last + headers + END.len() + length + 1
        }
        Some(_) => last,
        None => tail.len(),
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
    async fn letters_that_come_at_the_same_time_stand_there_once_each() {
        let data = tempfile::tempdir().expect("there is room");
        let messenger = MailboxMessenger::new(data.path().to_owned(), sender());
        let letters: Vec<Message> = [1, 2, 2, 3, 1, 4, 4].map(letter).into();
        let sent = futures::future::join_all(letters.iter().map(|letter| messenger.send(letter))).await;
        assert_eq!(sent, vec![Ok(()); 7]);
        let (_, text) = mailbox(data.path());
        assert_eq!(ids(&text), [1, 2, 3, 4].map(Uuid::from_u128));
    }

    #[tokio::test]
    async fn a_letter_that_was_cut_off_is_written_anew() {
        let data = tempfile::tempdir().expect("there is room");
        let messenger = MailboxMessenger::new(data.path().to_owned(), sender());
        let letter =
            |number| Message { body: "Hi ada,\n\nFirst this.\n\nFor that.".to_owned(), ..letter(number) };
        for number in [1, 2] {
            assert_eq!(messenger.send(&letter(number)).await, Ok(()));
        }
        let (path, text) = mailbox(data.path());
        let second = text.rfind("\n\nFrom ").expect("there are two") + END.len();
        for end in second..text.len() {
            std::fs::write(&path, &text[..end]).expect("it can be cut");
            let after = MailboxMessenger::new(data.path().to_owned(), sender());
            for number in [2, 1] {
                assert_eq!(after.send(&letter(number)).await, Ok(()));
            }
            let mended = mailbox(data.path()).1;
            assert_eq!(ids(&mended), [1, 2].map(Uuid::from_u128), "cut at {end}");
            assert_eq!(mended.len(), text.len(), "cut at {end}: {mended}");
        }
    }

    #[tokio::test]
    async fn a_mailbox_that_was_taken_away_or_replaced_is_opened_anew() {
        let data = tempfile::tempdir().expect("there is room");
        let messenger = MailboxMessenger::new(data.path().to_owned(), sender());
        assert_eq!(messenger.send(&letter(1)).await, Ok(()));
        let (path, _) = mailbox(data.path());
        std::fs::remove_file(&path).expect("it can be removed");
        assert_eq!(messenger.send(&letter(2)).await, Ok(()));
        assert_eq!(ids(&mailbox(data.path()).1), [Uuid::from_u128(2)]);

        let edited = data.path().join("edited");
        std::fs::write(&edited, "").expect("it can be written");
        std::fs::rename(&edited, &path).expect("it can be replaced");
        assert_eq!(messenger.send(&letter(3)).await, Ok(()));
        assert_eq!(ids(&mailbox(data.path()).1), [Uuid::from_u128(3)]);
    }

    #[tokio::test]
    async fn what_another_program_left_in_a_mailbox_stays() {
        let data = tempfile::tempdir().expect("there is room");
        let messenger = MailboxMessenger::new(data.path().to_owned(), sender());
        assert_eq!(messenger.send(&letter(1)).await, Ok(()));
        let (path, _) = mailbox(data.path());
        for foreign in ["From eve now\nTo: ada@example.org\n\nHi", "no message at all\n\nbut a text\n"] {
            std::fs::write(&path, foreign).expect("it can be written");
            let after = MailboxMessenger::new(data.path().to_owned(), sender());
            assert_eq!(after.send(&letter(2)).await, Ok(()));
            let (_, text) = mailbox(data.path());
            assert!(text.starts_with(&format!("{foreign}\n\nFrom mart@shop.example.org ")), "{text}");
            assert_eq!(ids(&text), [Uuid::from_u128(2)]);
        }
    }

    #[tokio::test]
    async fn a_mailbox_that_somebody_keeps_can_be_tried_again() {
        let data = tempfile::tempdir().expect("there is room");
        let messenger = MailboxMessenger::new(data.path().to_owned(), sender());
        assert_eq!(messenger.send(&letter(1)).await, Ok(()));
        let (path, _) = mailbox(data.path());
        let reader = File::open(path).expect("it can be opened");
        reader.lock().expect("nobody else has it");
        assert_eq!(messenger.send(&letter(2)).await, Err(DeliveryError::Unreachable));
        reader.unlock().expect("it is given up");
        assert_eq!(messenger.send(&letter(2)).await, Ok(()));
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
            "To: +49 170 1234567\nMessage-ID: <{}@shop.example.org>\nContent-Length: 33\n\n\
             Hi ada,\nThankyou for your order.\n\n",
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
