//! What is known of a connection to PostgreSQL: whether a commit is under way on it, and when it is done.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The protocol code of a start-up message, version 3.0.
const START_UP: u32 = 196_608;
/// What commits by itself: the append of events, and checkpoints that move alone.
const COMMITTING: [&str; 2] = ["event_store.append(", "update event_store.checkpoints"];

/// A connection, as far as its messages tell.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    asking: Mutex<Asking>,
    answering: Mutex<Messages>,
}

#[derive(Debug, Default)]
struct Asking {
    /// Before the start-up message, messages have no type.
    started: bool,
    messages: Messages,
    /// What prepared statements say.
    statements: HashMap<String, bool>,
    commits: bool,
}

/// Messages out of the bytes of one direction: a type, the length of what follows with itself, what follows.
#[derive(Debug, Default)]
struct Messages {
    waiting: Vec<u8>,
}

impl Messages {
    fn take(&mut self, bytes: &[u8], typed: bool) -> Option<(u8, Vec<u8>)> {
        self.waiting.extend_from_slice(bytes);
        let head = usize::from(typed);
        let length = self.waiting.get(head..head + 4)?;
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = head + length.max(4);
        if self.waiting.len() < end {
            return None;
        }
        let rest = self.waiting.split_off(end);
        let message = std::mem::replace(&mut self.waiting, rest);
        Some((if typed { message[0] } else { 0 }, message[head + 4..].to_vec()))
    }
}

impl Dialogue {
    /// Listens to the client.
    pub(super) fn asks(&self, bytes: &[u8]) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = bytes;
        loop {
            let started = asking.started;
            let Some((kind, body)) = asking.messages.take(bytes, started) else { return };
            bytes = &[];
            asking.hear(kind, &body);
        }
    }

    /// Listens to the server. True: a commit is done, and the message that says so is among these bytes.
    pub(super) fn answers(&self, bytes: &[u8]) -> bool {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if !asking.started {
            // The answer to a request for encryption is a single byte and no message.
            return false;
        }
        let mut answering = self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut done, mut bytes) = (false, bytes);
        while let Some((kind, body)) = answering.take(bytes, true) {
            bytes = &[];
            // Ready for the next query, and in no transaction: what was to be committed is.
            if kind == b'Z' && body.first() == Some(&b'I') {
                done |= std::mem::take(&mut asking.commits);
            }
        }
        done
    }
}

impl Asking {
    fn hear(&mut self, kind: u8, body: &[u8]) {
        match kind {
            0 => {
                let code = body.get(..4).map(|code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]));
                self.started = code == Some(START_UP);
            }
            b'Q' => self.commits |= texts(body).next().is_some_and(|text| is_commit(&text)),
            b'P' => {
                let mut texts = texts(body);
                if let (Some(name), Some(statement)) = (texts.next(), texts.next()) {
                    let commits =
                        COMMITTING.iter().any(|text| statement.contains(text)) || is_commit(&statement);
                    self.statements.insert(name, commits);
                }
            }
            b'B' => {
                let name = texts(body).nth(1).unwrap_or_default();
                self.commits |= self.statements.get(&name).copied().unwrap_or(false);
            }
            _ => {}
        }
    }
}

fn is_commit(statement: &str) -> bool {
    statement.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("commit"))
}

/// The texts at the beginning of a message, each ended by a zero.
fn texts(body: &[u8]) -> impl Iterator<Item = String> + '_ {
    body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("it is short");
        let mut message = if kind == 0 { Vec::new() } else { vec![kind] };
        message.extend(length.to_be_bytes());
        message.extend(body);
        message
    }

    fn started() -> Dialogue {
        let dialogue = Dialogue::default();
        dialogue.asks(&message(0, &80_877_103_u32.to_be_bytes()));
        assert!(!dialogue.answers(b"N"));
        dialogue.asks(&message(0, &[&START_UP.to_be_bytes()[..], b"user\0mart\0\0"].concat()));
        assert!(!dialogue.answers(&message(b'Z', b"I")));
        dialogue
    }

    #[test]
    fn a_commit_is_done_when_the_server_is_ready_and_in_no_transaction() {
        let dialogue = started();
        dialogue.asks(&message(b'Q', b"BEGIN\0"));
        assert!(!dialogue.answers(&message(b'Z', b"T")));
        dialogue.asks(&message(b'Q', b"COMMIT\0"));
        let answer = [message(b'C', b"COMMIT\0"), message(b'Z', b"I")].concat();
        assert!(!dialogue.answers(&answer[..9]), "the message is not whole yet");
        assert!(dialogue.answers(&answer[9..]));
        assert!(!dialogue.answers(&message(b'Z', b"I")), "it is done once");
    }

    #[test]
    fn an_append_commits_by_itself_and_a_query_does_not() {
        let dialogue = started();
        let append = message(b'P', b"s_1\0select * from event_store.append($1)\0\0\0");
        let query = message(b'P', b"s_2\0select 1\0\0\0");
        dialogue.asks(&[append, query].concat());
        assert!(!dialogue.answers(&message(b'Z', b"I")));
        for (statement, commits) in [("s_1", true), ("s_2", false), ("s_1", true)] {
            dialogue.asks(&message(b'B', format!("\0{statement}\0").as_bytes()));
            assert_eq!(dialogue.answers(&message(b'Z', b"I")), commits, "{statement}");
        }
    }
}
