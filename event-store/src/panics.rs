//! What panics ends nothing but itself: the event, the piece of work or the task in which it happens.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::subscription::ApplyError;

/// How long a task that panicked rests before it begins again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a panic says of itself.
pub fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// Lets an event whose treatment panics be one that cannot be applied: it is tried again, and parked in the end. What is
/// left half done is what the subscriber holds, which it is told to forget.
pub(crate) async fn blamed<T>(
    treatment: impl Future<Output = Result<T, ApplyError>>,
) -> Result<T, ApplyError> {
    AssertUnwindSafe(treatment).catch_unwind().await.unwrap_or_else(|panic| {
        let panic = text(panic.as_ref());
        tracing::error!(panic, "what is done about an event panicked");
        Err(ApplyError::Event(format!("it panicked: {panic}")))
    })
}

/// Keeps a task at work until `stop`: one that panics begins again after a moment.
pub async fn keep_running<F>(task: &str, stop: &CancellationToken, begin: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    while let Err(panic) = AssertUnwindSafe(begin()).catch_unwind().await {
        tracing::error!(task, panic = text(panic.as_ref()), "a task panicked; it begins again");
        metrics::counter!("mart_task_panics_total", "task" => task.to_owned()).increment(1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_begins_again_until_it_ends_by_itself() {
        let begun = AtomicU32::new(0);
        let task = async || {
            assert!(begun.fetch_add(1, Ordering::Relaxed) >= 1, "not this time");
        };
        keep_running("test", &CancellationToken::new(), task).await;
        assert_eq!(begun.into_inner(), 2);
    }

    #[tokio::test]
    async fn a_task_that_is_to_stop_does_not_begin_again() {
        let (begun, stop) = (AtomicU32::new(0), CancellationToken::new());
        stop.cancel();
        let task = async || {
            begun.fetch_add(1, Ordering::Relaxed);
            panic!("each time");
        };
        keep_running("test", &stop, task).await;
        assert_eq!(begun.into_inner(), 1);
    }
}
