//! Moments that clients name in the query string.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::problem::Problem;

/// Reads `as_of`: a time, or a date, which means its last moment.
///
/// # Errors
/// 422 when it is neither.
pub(crate) fn as_of(text: &str) -> Result<DateTime<Utc>, Problem> {
    // A `+` of an offset that was not escaped arrives as a space.
    let text = text.replace(' ', "+");
    if let Ok(time) = DateTime::parse_from_rfc3339(&text) {
        return Ok(time.to_utc());
    }
    let next_day = text.parse::<NaiveDate>().ok().and_then(|date| date.succ_opt());
    let end = next_day.and_then(|day| {
        day.and_time(NaiveTime::MIN).and_utc().checked_sub_signed(TimeDelta::microseconds(1))
    });
    end.ok_or_else(|| {
        Problem::invalid_field("as_of", "must be a time such as 2026-01-31T12:00:00Z, or a date")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_the_end_of_a_date() {
        let told = |text: &str| as_of(text).map(|time| time.to_rfc3339()).map_err(|problem| problem.status());
        assert_eq!(told("2026-01-31T12:00:00 01:00"), Ok("2026-01-31T11:00:00+00:00".to_owned()));
        assert_eq!(told("2026-01-31"), Ok("2026-01-31T23:59:59.999999+00:00".to_owned()));
        for wrong in ["", "yesterday", "2026-02-30"] {
            assert_eq!(told(wrong), Err(axum::http::StatusCode::UNPROCESSABLE_ENTITY), "{wrong}");
        }
    }
}
