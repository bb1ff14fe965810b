//! What a handler answers with: a body, its version, and where in the log it stands.

use axum::Json;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use event_store::event::partition_of;
use event_store::read_your_writes::Place;
use serde::Serialize;

/// The header that names the position of a write.
pub(super) const POSITION: HeaderName = HeaderName::from_static("mart-position");

/// An answer on its way.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    status: StatusCode,
    headers: HeaderMap,
    place: Option<Place>,
    body: Option<T>,
}

/// 200 with a body.
pub fn ok<T>(body: T) -> Answer<T> {
    Answer { status: StatusCode::OK, headers: HeaderMap::new(), place: None, body: Some(body) }
}

/// 201 with a body and where the new thing is.
pub fn created<T>(location: &str, body: T) -> Answer<T> {
    ok(body).with_status(StatusCode::CREATED).with_location(location)
}

/// 204.
pub fn no_content() -> Answer<()> {
    Answer { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), place: None, body: None }
}

impl<T> Answer<T> {
    /// With another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With the place of what is answered.
    #[must_use]
    pub fn with_location(mut self, location: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(location) {
            self.headers.insert(LOCATION, value);
        }
        self
    }

    /// With the version of the aggregate.
    #[must_use]
    pub fn with_version(mut self, version: i64) -> Self {
        if let Ok(value) = HeaderValue::from_str(&format!("\"{version}\"")) {
            self.headers.insert(ETAG, value);
        }
        self
    }

    /// With the position of the last event of the write; 0 when it wrote none.
    #[must_use]
    pub fn with_position(mut self, service: &str, aggregate_id: &str, position: i64) -> Self {
        self.place = Some(written(&mut self.headers, service, aggregate_id, position));
        self
    }
}

/// Names the position of a write in the headers of its answer, and gives its place.
pub(crate) fn written(headers: &mut HeaderMap, service: &str, aggregate_id: &str, position: i64) -> Place {
    if let Ok(value) = HeaderValue::from_str(&format!("{service}:{position}")) {
        headers.insert(POSITION, value);
    }
    Place { source: service.to_owned(), partition: Some(partition_of(aggregate_id)), position }
}

/// The place that the headers of an answer name.
pub(super) fn place_of(headers: &HeaderMap) -> Option<Place> {
    let (source, position) = headers.get(POSITION)?.to_str().ok()?.split_once(':')?;
    Some(Place { source: source.to_owned(), partition: None, position: position.parse().ok()? })
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => (self.status, self.headers, Json(body)).into_response(),
            None => (self.status, self.headers).into_response(),
        };
        if let Some(place) = self.place {
            response.extensions_mut().insert(place);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_its_place_in_its_headers_too() {
        let response = ok(()).with_position("orders", "an order", 17).into_response();
        let place = Place { source: "orders".to_owned(), partition: None, position: 17 };
        assert_eq!(place_of(response.headers()), Some(place));
        assert_eq!(place_of(&HeaderMap::new()), None);
    }
}
