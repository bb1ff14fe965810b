//! The rows a projector wrote last, so that neither the next batch nor a query of the same process need read them.
//!
//! They count for as long as its process owns the partitions: each row is made of one stream, and is written in the
//! statement that moves the checkpoint of that stream's partition. Whoever finds the checkpoint where it left it knows
//! that nobody else has written the row; and a query believes a row for as long as nobody else is known to have moved
//! the checkpoint.

use std::sync::Arc;

use lru::LruCache;

/// How many bytes of JSON the remembered rows of one read model make up at most.
const REMEMBERED_BYTES: usize = 16 << 20;
/// About what a row takes beside its columns.
const ROW_BYTES: usize = 256;

/// A row as it was written, and how long its JSON is.
pub(crate) type Written<R> = (Arc<R>, usize);

/// Rows by their keys, those used last.
pub(crate) struct RowMemory<R> {
    rows: LruCache<String, Written<R>>,
    bytes: usize,
    /// What the statement under way writes; nothing for rows that it removes.
    staged: Vec<(String, Option<Written<R>>)>,
}

impl<R> Default for RowMemory<R> {
    fn default() -> Self {
        Self { rows: LruCache::unbounded(), bytes: 0, staged: Vec::new() }
    }
}

impl<R> RowMemory<R> {
    /// The row with a key, if it is remembered.
    pub(crate) fn get(&mut self, key: &str) -> Option<Arc<R>> {
        self.rows.get(key).map(|(row, _)| Arc::clone(row))
    }

    /// As [`RowMemory::get`], by somebody whose use does not keep it.
    pub(crate) fn peek(&self, key: &str) -> Option<Arc<R>> {
        self.rows.peek(key).map(|(row, _)| Arc::clone(row))
    }

    /// Notes what is about to be written.
    pub(crate) fn stage(&mut self, written: Vec<(String, Option<Written<R>>)>) {
        self.staged = written;
    }

    /// What was staged is committed.
    pub(crate) fn committed(&mut self) {
        for (key, written) in std::mem::take(&mut self.staged) {
            if let Some((_, bytes)) = self.rows.pop(&key) {
                self.bytes -= bytes + ROW_BYTES;
            }
            if let Some((row, bytes)) = written {
                self.bytes += bytes + ROW_BYTES;
                self.rows.put(key, (row, bytes));
            }
        }
        while self.bytes > REMEMBERED_BYTES
            && let Some((_, (_, bytes))) = self.rows.pop_lru()
        {
            self.bytes -= bytes + ROW_BYTES;
        }
    }

    /// Forgets everything.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, bytes: usize) -> Option<Written<String>> {
        Some((Arc::new(text.to_owned()), bytes))
    }

    #[test]
    fn only_what_is_committed_is_remembered() {
        let mut memory = RowMemory::default();
        memory.stage(vec![("a".to_owned(), written("first", 5))]);
        assert_eq!(memory.get("a"), None);
        memory.committed();
        assert_eq!(memory.get("a").as_deref(), Some(&"first".to_owned()));
        memory.stage(vec![("a".to_owned(), written("second", 6))]);
        memory.forget();
        memory.committed();
        assert_eq!(memory.get("a"), None, "neither what was there nor what was under way");
    }

    #[test]
    fn a_removed_row_is_not_remembered() {
        let mut memory = RowMemory::default();
        memory.stage(vec![("a".to_owned(), written("first", 5))]);
        memory.committed();
        memory.stage(vec![("a".to_owned(), None)]);
        memory.committed();
        assert_eq!((memory.get("a"), memory.bytes), (None, 0));
    }

    #[test]
    fn the_rows_not_used_for_longest_go_when_there_are_too_many() {
        let mut memory = RowMemory::default();
        for key in ["a", "b", "c"] {
            memory.stage(vec![(key.to_owned(), written(key, REMEMBERED_BYTES / 3))]);
            memory.committed();
            assert!(memory.get("a").is_some(), "it was used last but one");
        }
        assert_eq!(memory.get("b"), None);
        assert!(memory.get("c").is_some() && memory.bytes <= REMEMBERED_BYTES);
    }
}
