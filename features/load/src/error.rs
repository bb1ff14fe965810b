//! Why a run could not go on.

use std::time::Duration;

/// What stops a run. A visit that fails does not: it is counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The address is none.
    #[error("`{0}` is no address of a mart: write it as http://127.0.0.1:8080")]
    BadAddress(String),
    /// Nobody answers there.
    #[error("no mart answers at {address}: start one with `MART_RATE_LIMITS=off mart up`")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A connection broke.
    #[error("the connection broke")]
    Http(#[from] hyper::Error),
    /// An answer took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// A preparation was refused.
    #[error("{call} was answered {status} {body}")]
    Refused {
        /// Method and path.
        call: String,
        /// The status.
        status: u16,
        /// What the mart said.
        body: String,
    },
    /// Log-ins are limited.
    #[error(
        "the mart limits registrations and log-ins: start it with MART_RATE_LIMITS=off to prepare many buyers"
    )]
    Limited,
    /// An answer is not what the interface promises.
    #[error("an answer could not be read")]
    Answer(#[from] serde_json::Error),
    /// Something did not come true in time.
    #[error("after {0:?} still: {1}")]
    Waiting(Duration, String),
    /// A task of the generator itself ended early.
    #[error("a visitor was lost")]
    Lost,
}

/// A result of this crate.
pub type Result<T, E = LoadError> = std::result::Result<T, E>;
