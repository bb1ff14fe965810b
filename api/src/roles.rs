//! What each command of `mart` does.

mod admin;
mod events;
mod maintain;
mod serve;
mod up;

use std::time::Duration;

use anyhow::{Context, bail};

use crate::cli::HealthcheckOptions;
use crate::{documentation, routes};

pub use admin::{admin, seed};
pub use events::events;
pub use maintain::{migrate, parked_events, replay, verify};
pub use serve::{project, serve, work};
pub use up::up;

/// How long a healthy mart may take to answer.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a running mart whether it is ready, or with `--live` whether it is alive.
///
/// # Errors
/// When it is not, or does not answer.
pub async fn healthcheck(options: HealthcheckOptions) -> anyhow::Result<()> {
    let path = if options.live { "livez" } else { "readyz" };
    let mut address = options.http_addr;
    // A server that listens everywhere is asked here.
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv6() {
            std::net::Ipv6Addr::LOCALHOST.into()
        } else {
            std::net::Ipv4Addr::LOCALHOST.into()
        });
    }
    // Without TLS: the question stays on this machine or within its network.
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(HEALTHCHECK_TIMEOUT)
        .build()
        .context("no HTTP client could be made")?;
    let answer = client.get(format!("http://{address}/{path}")).send().await;
    let status =
        answer.map_err(|_| anyhow::anyhow!("no mart answers on {address}: is it running?"))?.status();
    if !status.is_success() {
        bail!("the mart on {address} is not ready: it answers {status}");
    }
    Ok(())
}

/// Prints the OpenAPI document of all routes.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn openapi() -> anyhow::Result<()> {
    let text = documentation::document(routes::document()).into_openapi().to_pretty_json()?;
    println!("{text}");
    Ok(())
}
