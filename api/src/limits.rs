//! How often an address may try, and how often an account may be tried: against guessing passwords and
//! registering by the thousand. The generic cell rate algorithm (ITU-T I.371), as governor has it.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};

use aggregates::text;

use crate::problem::Problem;

/// After so many checks what is as good as new is forgotten.
const CLEAN_EVERY_CHECKS: u32 = 4096;

/// So many attempts within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub attempts: NonZeroU32,
    /// Within what time.
    pub period: Duration,
}

/// The limits, in the syntax of `MART_RATE_LIMITS`: `off`, or what is to differ from the default, such as
/// `login=10/m,login_address=60/m,register_address=20/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Log-ins with one account; `None` means no limit.
    pub login: Option<Rate>,
    /// Log-ins from one address.
    pub login_address: Option<Rate>,
    /// Registrations of one account.
    pub register: Option<Rate>,
    /// Registrations from one address.
    pub register_address: Option<Rate>,
}

impl RateLimits {
    /// No limits at all: for tests.
    pub const OFF: Self = Self { login: None, login_address: None, register: None, register_address: None };
}

impl Default for RateLimits {
    fn default() -> Self {
        let a_minute = |attempts| {
            let attempts = NonZeroU32::new(attempts)?;
            Some(Rate { attempts, period: Duration::from_secs(60) })
        };
        Self {
            login: a_minute(10),
            login_address: a_minute(60),
            register: a_minute(5),
            register_address: a_minute(20),
        }
    }
}

/// The text is none of [`RateLimits`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no rate limit: write `off`, or limits such as `login=10/m,register_address=20/h` for login, login_address, register, register_address"
)]
pub struct BadRateLimits(String);

impl FromStr for RateLimits {
    type Err = BadRateLimits;

    fn from_str(text: &str) -> Result<Self, BadRateLimits> {
        let mut limits = match text.trim() {
            "off" => return Ok(Self::OFF),
            "" => return Ok(Self::default()),
            _ => Self::default(),
        };
        for part in text.split(',').map(str::trim) {
            let bad = || BadRateLimits(part.to_owned());
            let (name, rate) = part.split_once('=').ok_or_else(bad)?;
            let limit = match name.trim() {
                "login" => &mut limits.login,
                "login_address" => &mut limits.login_address,
                "register" => &mut limits.register,
                "register_address" => &mut limits.register_address,
                _ => return Err(bad()),
            };
            *limit = match rate.trim() {
                "off" => None,
                rate => Some(rate.parse().map_err(|BadRateLimits(_)| bad())?),
            };
        }
        Ok(limits)
    }
}

impl FromStr for Rate {
    type Err = BadRateLimits;

    /// Reads `10/s`, `10/m` or `10/h`.
    fn from_str(text: &str) -> Result<Self, BadRateLimits> {
        let bad = || BadRateLimits(text.to_owned());
        let (attempts, unit) = text.split_once('/').ok_or_else(bad)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(bad()),
        };
        let attempts = attempts.parse().map_err(|_| bad())?;
        Ok(Self { attempts, period: Duration::from_secs(seconds) })
    }
}

/// Keeps count, in this process.
#[derive(Debug)]
pub struct Limits {
    login: Option<Limit>,
    login_address: Option<Limit>,
    register: Option<Limit>,
    register_address: Option<Limit>,
}

impl Limits {
    /// Nobody has tried anything yet.
    pub fn new(limits: RateLimits) -> Self {
        Self {
            login: limits.login.map(Limit::new),
            login_address: limits.login_address.map(Limit::new),
            register: limits.register.map(Limit::new),
            register_address: limits.register_address.map(Limit::new),
        }
    }

    /// Counts a log-in from an address.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn check_login_address(&self, address: IpAddr) -> Result<(), Problem> {
        check(self.login_address.as_ref(), &address_key(address))
    }

    /// Counts a log-in to an account, before the password is looked at: by the id of the account, however it was named, or
    /// by the name where there is none.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn check_login(&self, account: &str) -> Result<(), Problem> {
        check(self.login.as_ref(), &account_key(account))
    }

    /// Counts a registration.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn check_registration(&self, address: IpAddr, account: &str) -> Result<(), Problem> {
        check(self.register_address.as_ref(), &address_key(address))?;
        check(self.register.as_ref(), &account_key(account))
    }
}

struct Limit {
    attempts: DefaultKeyedRateLimiter<[u8; 16]>,
    checks: AtomicU32,
}

impl Limit {
    fn new(rate: Rate) -> Self {
        let every = (rate.period / rate.attempts.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(every).expect("the time between two attempts is not zero");
        let quota = quota.allow_burst(rate.attempts);
        Self { attempts: RateLimiter::keyed(quota), checks: AtomicU32::new(0) }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Limit").field("keys", &self.attempts.len()).finish_non_exhaustive()
    }
}

fn check(limit: Option<&Limit>, key: &[u8; 16]) -> Result<(), Problem> {
    let Some(limit) = limit else { return Ok(()) };
    if limit.checks.fetch_add(1, Ordering::Relaxed) % CLEAN_EVERY_CHECKS == CLEAN_EVERY_CHECKS - 1 {
        limit.attempts.retain_recent();
    }
    limit.attempts.check_key(key).map_err(|not_until| {
        Problem::too_many_requests(not_until.wait_time_from(DefaultClock::default().now()))
    })
}

/// An IPv6 client has a whole /64 for itself.
fn address_key(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => (u128::from(address) >> 64 << 64).to_be_bytes(),
    }
}

/// Names and addresses are not kept, and a long one takes no more room than a short one.
fn account_key(account: &str) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::digest(text::fold(account.trim())).into();
    let mut key = [0; 16];
    key.copy_from_slice(&hash[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn limits_are_read_from_their_text() {
        assert_eq!("off".parse(), Ok(RateLimits::OFF));
        let limits: RateLimits = "login=3/s, register=off".parse().expect("it is right");
        let rate = Rate { attempts: NonZeroU32::MIN.saturating_add(2), period: Duration::from_secs(1) };
        assert_eq!(limits, RateLimits { login: Some(rate), register: None, ..RateLimits::default() });
        for wrong in ["login", "login=0/m", "login=5/d", "logins=5/m", "login=5/m,"] {
            assert!(wrong.parse::<RateLimits>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_account_that_was_tried_too_often_has_to_wait_and_others_have_not() {
        let limits = Limits::new("login=2/h".parse().expect("it is right"));
        for _allowed in 0..2 {
            limits.check_login("a@b.co").expect("it is below the limit");
        }
        let problem = limits.check_login("A@B.co ").expect_err("it is the same account");
        assert_eq!(problem.status(), 429);
        limits.check_login("\u{ff41}@b.co").expect_err("it is the same account in wide letters");
        limits.check_login("other@b.co").expect("it is another account");
    }

    #[test]
    fn an_address_that_tries_many_accounts_has_to_wait() {
        let limits = Limits::new("register_address=1/h".parse().expect("it is right"));
        let of_one_network = |last| IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        limits.check_registration(of_one_network(1), "a@b.co").expect("it is the first");
        limits.check_registration(of_one_network(2), "b@b.co").expect_err("it is the same network");
        limits.check_registration(ADDRESS, "c@b.co").expect("it is another address");
    }

    #[test]
    fn without_limits_nobody_waits() {
        let limits = Limits::new(RateLimits::OFF);
        for _attempt in 0..1000 {
            limits.check_login_address(ADDRESS).expect("there is no limit");
            limits.check_login("a@b.co").expect("there is no limit");
        }
    }
}
