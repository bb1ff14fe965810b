//! What was read of a read model, believed for as long as nothing is written to it.
//!
//! A version is taken before the database is asked, and what was read is kept under it. Whoever waits for a write to
//! become visible is woken after the version has changed, so that nobody is told less than was waited for.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

/// What a read model showed at a moment: the same as at another moment with an equal value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub(crate) subscription: String,
    pub(crate) version: u64,
}

/// What was read of one read model, by what was asked. Cheap to clone; clones share it.
pub struct Remembered<K, V> {
    inner: Arc<Mutex<Inner<K, V>>>,
    most: usize,
}

struct Inner<K, V> {
    seen: Option<Seen>,
    entries: HashMap<K, V>,
}

impl<K, V> Clone for Remembered<K, V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), most: self.most }
    }
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    /// Room for so many answers; when there are more, all are forgotten.
    pub fn new(most: usize) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { seen: None, entries: HashMap::new() })), most }
    }

    /// The answer, when it was read at a moment equal to this.
    pub fn find<Q: Eq + Hash + ?Sized>(&self, seen: &Seen, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let inner = self.inner.lock().ok()?;
        if inner.seen.as_ref() == Some(seen) { inner.entries.get(key).cloned() } else { None }
    }

    /// Keeps an answer that was asked for at this moment or later.
    pub fn keep(&self, seen: &Seen, key: K, value: V) {
        let Ok(mut inner) = self.inner.lock() else { return };
        if inner.seen.as_ref() != Some(seen) || inner.entries.len() >= self.most {
            inner.seen = Some(seen.clone());
            inner.entries.clear();
        }
        inner.entries.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: u64) -> Seen {
        Seen { subscription: "price_list@1.1".to_owned(), version }
    }

    #[test]
    fn what_was_read_is_believed_until_something_is_written() {
        let remembered = Remembered::<String, u32>::new(2);
        remembered.keep(&seen(1), "one".to_owned(), 1);
        assert_eq!(remembered.find(&seen(1), "one"), Some(1));
        assert_eq!(remembered.find(&seen(2), "one"), None);
        let rebuilt = Seen { subscription: "price_list@1.2".to_owned(), version: 1 };
        assert_eq!(remembered.find(&rebuilt, "one"), None);
        remembered.keep(&seen(2), "two".to_owned(), 2);
        assert_eq!((remembered.find(&seen(2), "one"), remembered.find(&seen(2), "two")), (None, Some(2)));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let remembered = Remembered::<u32, u32>::new(2);
        for number in 0..3 {
            remembered.keep(&seen(1), number, number);
        }
        assert_eq!([0, 1, 2].map(|number| remembered.find(&seen(1), &number)), [None, None, Some(2)]);
    }
}
