//! Places where a test stops, stalls or fails a process, and defects that it plants there.
//!
//! All of it exists with the cargo feature `failpoints` alone. Without it [`crash_point!`](crate::crash_point)
//! does nothing and [`planted!`](crate::planted) is `false`, so that the compiler removes both with whatever
//! they guard.
//!
//! A crash point lies between two effects, where a real crash would leave the first without the second. What
//! happens there is said in the words of the crate `fail`: `return(abort)` ends the process as a power failure
//! would, `return(error)` gives the error of that place, `sleep(3000)` stalls whoever is there for 3 s, `1*…`
//! does so once, `off` does nothing. A point that belongs to something with a name (a subscription, a log) is
//! known as `point` for all of them and as `point/name` for one.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// From when on a stay at a point is told as a stall.
const STALL: Duration = Duration::from_millis(100);

/// Whether anything was ever armed: until then a point costs one look at this.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Arms points, as in `relay-acknowledged=1*return(abort);defect-gateway-new-key=return`.
///
/// # Errors
/// In one sentence, when the text cannot be read; what stood before the mistake is armed.
pub fn arm(points: &str) -> Result<(), String> {
    for point in points.split(';').map(str::trim).filter(|point| !point.is_empty()) {
        let (name, actions) =
            point.split_once('=').ok_or_else(|| format!("`{point}` does not say what is to happen there"))?;
        fail::cfg(name.trim(), actions.trim())
            .map_err(|error| format!("`{point}` is not understood: {error}"))?;
        ARMED.store(true, Ordering::Relaxed);
        tracing::warn!(failpoint = name, actions, "a failpoint is armed");
    }
    Ok(())
}

/// Does at a point what is armed there; says whether it is to fail. Use [`crash_point!`](crate::crash_point).
pub async fn reach(point: &'static str, of: &str) -> bool {
    if !ARMED.load(Ordering::Relaxed) {
        return false;
    }
    let mut failed = false;
    if !of.is_empty() {
        failed = act(format!("{point}/{of}")).await;
    }
    failed || act(point.to_owned()).await
}

async fn act(name: String) -> bool {
    let (begun, evaluated) = (Instant::now(), name.clone());
    // A stall sleeps on its thread: on one of the runtime's own it would stop tasks that are elsewhere.
    let asked = match tokio::task::spawn_blocking(move || fail::eval(&evaluated, |word| word)).await {
        Ok(asked) => asked,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => None,
    };
    match asked {
        None if begun.elapsed() >= STALL => {
            tracing::warn!(failpoint = name, "stalled here");
            false
        }
        None => false,
        Some(word) if word.as_deref() == Some("abort") => {
            tracing::warn!(failpoint = name, "aborting here");
            std::process::abort()
        }
        Some(_) => {
            tracing::warn!(failpoint = name, "failing here");
            true
        }
    }
}

/// Whether a defect is planted. Use [`planted!`](crate::planted).
pub fn is_planted(defect: &str) -> bool {
    ARMED.load(Ordering::Relaxed) && fail::eval(defect, |_| ()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crash_point, planted};

    async fn passes(of: &str) -> Result<(), &'static str> {
        crash_point!("passing", of, Err("it failed"));
        Ok(())
    }

    #[tokio::test]
    async fn a_point_fails_as_often_as_it_was_armed_for_and_for_whom() {
        assert_eq!(passes("ann").await, Ok(()));
        arm("passing/ann=1*return(error)").expect("it can be read");
        assert_eq!(passes("ben").await, Ok(()));
        assert_eq!(passes("ann").await, Err("it failed"));
        assert_eq!(passes("ann").await, Ok(()));
        arm("passing=return(error)").expect("it can be read");
        assert_eq!(passes("ben").await, Err("it failed"));
        arm("passing=off").expect("it can be read");
        assert_eq!(passes("ben").await, Ok(()));
    }

    #[test]
    fn a_defect_is_planted_until_it_is_taken_out() {
        assert!(!planted!("a-defect"));
        arm("a-defect=return").expect("it can be read");
        assert!(planted!("a-defect"));
        arm("a-defect=off").expect("it can be read");
        assert!(!planted!("a-defect"));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(arm("nowhere").is_err_and(|error| error.contains("nowhere")));
        assert!(arm("somewhere=dance").is_err_and(|error| error.contains("dance")));
    }
}
