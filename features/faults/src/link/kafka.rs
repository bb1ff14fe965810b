//! What is known of a connection to a broker: which answers are about stored records. Brokers name their
//! address in answers, and clients go there: it is replaced by that of the link, so that they stay on it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The request that stores records.
const PRODUCE: i16 = 0;
/// The requests whose answers name brokers: for what there is, and for who coordinates a group.
const NAMING: [i16; 2] = [3, 10];
/// How brokers of these tests name their host.
const HOST: &[u8] = b"127.0.0.1";
/// The bytes before a message that tell its length.
const LENGTH_BYTES: usize = 4;

/// A connection, as far as its messages tell.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    asking: Mutex<Asking>,
    answering: Mutex<Messages>,
}

#[derive(Debug, Default)]
struct Asking {
    messages: Messages,
    /// The requests that store records or ask for brokers, by their numbers.
    open: HashMap<[u8; 4], i16>,
}

/// Messages out of the bytes of one direction.
#[derive(Debug, Default)]
struct Messages {
    waiting: Vec<u8>,
}

impl Messages {
    /// The next whole message, with its length before it.
    fn take(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.waiting.extend_from_slice(bytes);
        let length = self.waiting.get(..LENGTH_BYTES)?;
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if self.waiting.len() < LENGTH_BYTES + length {
            return None;
        }
        let rest = self.waiting.split_off(LENGTH_BYTES + length);
        Some(std::mem::replace(&mut self.waiting, rest))
    }
}

impl Dialogue {
    /// Listens to the client.
    pub(super) fn asks(&self, bytes: &[u8]) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = bytes;
        while let Some(message) = asking.messages.take(bytes) {
            bytes = &[];
            // The kind of request and its version, two bytes each, then its number.
            if let Some([kind_high, kind_low, _, _, number @ ..]) =
                message.get(LENGTH_BYTES..LENGTH_BYTES + 8)
            {
                let kind = i16::from_be_bytes([*kind_high, *kind_low]);
                if kind == PRODUCE || NAMING.contains(&kind) {
                    asking.open.insert([number[0], number[1], number[2], number[3]], kind);
                }
            }
        }
    }

    /// Listens to the server. Gives the whole messages among what was heard, with the broker's port replaced,
    /// and whether one of them says that records are stored.
    pub(super) fn answers(&self, bytes: &[u8], broker_port: u16, link_port: u16) -> (Vec<u8>, bool) {
        let mut answering = self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut passed, mut stored, mut bytes) = (Vec::new(), false, bytes);
        while let Some(mut message) = answering.take(bytes) {
            bytes = &[];
            let number = message.get(LENGTH_BYTES..LENGTH_BYTES + 4);
            let kind = number.and_then(|number| asking.open.remove(number));
            stored |= kind == Some(PRODUCE);
            if kind.is_some_and(|kind| NAMING.contains(&kind)) {
                replace_port(&mut message, broker_port, link_port);
            }
            passed.extend(message);
        }
        (passed, stored)
    }
}

/// Hosts and ports stand together: the text, then the port in four bytes. Both ports take the same room.
fn replace_port(message: &mut [u8], broker_port: u16, link_port: u16) {
    let named = [HOST, &u32::from(broker_port).to_be_bytes()].concat();
    let mut from = 0;
    while let Some(at) = message[from..].windows(named.len()).position(|part| part == named) {
        let port = from + at + HOST.len();
        message[port..port + 4].copy_from_slice(&u32::from(link_port).to_be_bytes());
        from = port + 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("it is short");
        [&length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn answers_about_stored_records_are_known_by_the_number_of_their_request() {
        let dialogue = Dialogue::default();
        dialogue.asks(&message(&[0, 3, 0, 1, 0, 0, 0, 7]));
        dialogue.asks(&message(&[0, 0, 0, 9, 0, 0, 0, 8]));
        let (other, stored) = (message(&[0, 0, 0, 7, 1]), message(&[0, 0, 0, 8, 1]));
        assert_eq!(dialogue.answers(&other, 1, 2), (other.clone(), false));
        assert_eq!(dialogue.answers(&stored[..5], 1, 2), (Vec::new(), false), "it is not whole yet");
        assert_eq!(dialogue.answers(&stored[5..], 1, 2), (stored.clone(), true));
    }

    #[test]
    fn the_port_of_the_broker_is_replaced_where_its_host_stands_before_it() {
        let dialogue = Dialogue::default();
        let named = |number: u8, port: u32| {
            message(&[&[0, 0, 0, number], &b"\0\x09127.0.0.1"[..], &port.to_be_bytes(), b"rest"].concat())
        };
        for (kind, number) in [(3, 1), (10, 2), (3, 3), (1, 4)] {
            dialogue.asks(&message(&[0, kind, 0, 1, 0, 0, 0, number]));
        }
        assert_eq!(dialogue.answers(&named(1, 40_001), 40_001, 50_002).0, named(1, 50_002));
        assert_eq!(dialogue.answers(&named(2, 40_001), 40_001, 50_002).0, named(2, 50_002));
        assert_eq!(dialogue.answers(&named(3, 40_003), 40_001, 50_002).0, named(3, 40_003));
        assert_eq!(
            dialogue.answers(&named(4, 40_001), 40_001, 50_002).0,
            named(4, 40_001),
            "fetched records"
        );
    }
}
