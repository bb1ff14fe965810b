//! Events in the hands of several readers of a process: none of them copies an event, and only the first one reads
//! what it says.

use std::any::Any;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::Recorded;

/// An event, and what the first reader made of it.
#[derive(Debug)]
pub struct ReadOnce {
    recorded: Recorded,
    read: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl ReadOnce {
    /// What `read` makes of the event, or has made of it for another reader.
    pub(crate) fn read_as<T: Any + Send + Sync, E>(
        &self,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let known = self.read.get().and_then(|known| Arc::clone(known).downcast().ok());
        if let Some(known) = known {
            return Ok(known);
        }
        let made = Arc::new(read()?);
        // Another reader may have been as fast; both have made the same.
        let _ = self.read.set(Arc::<T>::clone(&made));
        Ok(made)
    }
}

impl Deref for ReadOnce {
    type Target = Recorded;

    fn deref(&self) -> &Recorded {
        &self.recorded
    }
}

impl From<Recorded> for Arc<ReadOnce> {
    fn from(recorded: Recorded) -> Self {
        Self::new(ReadOnce { recorded, read: OnceLock::new() })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use chrono::Utc;

    use super::*;
    use crate::Metadata;

    fn event() -> Arc<ReadOnce> {
        let recorded = Recorded {
            position: 1,
            partition: 0,
            aggregate_type: "account".to_owned(),
            aggregate_id: "a".to_owned(),
            sequence: 1,
            event_type: "Deposited".to_owned(),
            event_version: "1.0".to_owned(),
            payload: "7".to_owned(),
            metadata: Metadata::default(),
            recorded_at: Utc::now(),
        };
        recorded.into()
    }

    #[test]
    fn an_event_is_read_once_for_all_who_make_the_same_of_it() {
        let event = event();
        let amount = |read: fn(&str) -> i64| event.read_as(|| Ok::<_, Infallible>(read(&event.payload)));
        let first = amount(|payload| payload.parse().expect("a number")).expect("read");
        let second = amount(|_| panic!("it was read")).expect("known");
        assert_eq!((*first, Arc::ptr_eq(&first, &second)), (7, true));
        let length = event.read_as(|| Ok::<_, Infallible>(event.payload.len())).expect("read");
        assert_eq!(*length, 1, "who makes something else of it reads it");
        assert_eq!(*amount(|_| panic!("it was read")).expect("known"), 7);
    }

    #[test]
    fn what_could_not_be_read_is_read_again() {
        let event = event();
        assert_eq!(event.read_as(|| Err::<i64, _>("not today")).expect_err("it fails"), "not today");
        assert_eq!(*event.read_as(|| Ok::<i64, &str>(7)).expect("read"), 7);
    }
}
