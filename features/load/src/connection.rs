//! One keep-alive connection to a mart.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{LoadError, Result};

/// How long an answer may take; the mart itself gives up after 30 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);
/// How much of an answer is told when it was not expected.
const TOLD_BYTES: usize = 400;

/// Where a mart listens.
#[derive(Debug, Clone)]
pub struct Server {
    authority: Arc<str>,
    host: HeaderValue,
}

impl FromStr for Server {
    type Err = LoadError;

    /// Reads `http://127.0.0.1:8080`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || LoadError::BadAddress(text.to_owned());
        let authority = text.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
        let (name, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
        let port: u16 = port.parse().map_err(|_| bad())?;
        if name.is_empty() || name.contains('/') {
            return Err(bad());
        }
        let host = HeaderValue::from_str(authority).map_err(|_| bad())?;
        Ok(Self { authority: format!("{name}:{port}").into(), host })
    }
}

/// What is asked of a mart.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// How.
    pub method: Method,
    /// What.
    pub path: &'a str,
    /// As whom.
    pub token: Option<&'a HeaderValue>,
    /// With what; JSON.
    pub body: Bytes,
}

impl<'a> Call<'a> {
    /// Reads.
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, token: None, body: Bytes::new() }
    }

    /// Sends JSON.
    pub fn post(path: &'a str, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path, token: None, body: body.into() }
    }

    /// Removes.
    pub fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, path, token: None, body: Bytes::new() }
    }

    /// The same as somebody.
    #[must_use]
    pub fn token(self, token: &'a HeaderValue) -> Self {
        Self { token: Some(token), ..self }
    }
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body as it came.
    pub body: Bytes,
}

impl Answer {
    /// The body, read as JSON.
    ///
    /// # Errors
    /// When it is none, or another.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// The beginning of the body as text.
    pub fn told(&self) -> String {
        let end = self.body.len().min(TOLD_BYTES);
        String::from_utf8_lossy(&self.body[..end]).into_owned()
    }
}

/// A connection that is kept, and opened again when the mart has closed it.
#[derive(Debug)]
pub struct Connection {
    server: Server,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Opens it.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(server: &Server) -> Result<Self> {
        Ok(Self { sender: connect(server).await?, server: server.clone() })
    }

    /// Asks and waits for the whole answer.
    ///
    /// # Errors
    /// When the connection breaks or no answer comes in time; what became of the request is unknown then.
    pub async fn send(&mut self, call: Call<'_>) -> Result<Answer> {
        // The mart closes connections that are idle for some seconds.
        if self.sender.is_closed() {
            self.sender = connect(&self.server).await?;
        }
        let answered = timeout(ANSWER_WITHIN, self.exchange(&call)).await;
        let answered = match answered {
            // It was closed before anything was sent, so that it can be sent again.
            Ok(Err(LoadError::Http(error))) if error.is_canceled() => {
                self.sender = connect(&self.server).await?;
                timeout(ANSWER_WITHIN, self.exchange(&call)).await
            }
            answered => answered,
        };
        match answered {
            Ok(answer) => answer,
            Err(_) => {
                // The late answer must not be taken for that to the next request.
                self.sender = connect(&self.server).await?;
                Err(LoadError::Late(ANSWER_WITHIN))
            }
        }
    }

    /// Asks, and takes no other status than this.
    ///
    /// # Errors
    /// As [`Connection::send`], and when the status is another.
    pub async fn expect(&mut self, call: Call<'_>, status: u16) -> Result<Answer> {
        let asked = format!("{} {}", call.method, call.path);
        let answer = self.send(call).await?;
        match answer.status {
            429 => Err(LoadError::Limited),
            same if same == status => Ok(answer),
            other => Err(LoadError::Refused { call: asked, status: other, body: answer.told() }),
        }
    }

    async fn exchange(&mut self, call: &Call<'_>) -> Result<Answer> {
        self.sender.ready().await?;
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.parse().map_err(|_| LoadError::BadAddress(call.path.to_owned()))?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.server.host.clone());
        if let Some(token) = call.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        if !call.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, body })
    }
}

async fn connect(server: &Server) -> Result<SendRequest<Full<Bytes>>> {
    let unreachable = |source| LoadError::Unreachable { address: server.authority.to_string(), source };
    let stream = TcpStream::connect(&*server.authority).await.map_err(unreachable)?;
    // Requests are small and written at once: waiting to fill a packet only delays them.
    stream.set_nodelay(true).map_err(unreachable)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // How it ended is told to whoever waits for an answer.
        let _ = connection.await;
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_or_without_a_port() {
        let authority = |text: &str| text.parse::<Server>().map(|server| server.authority.to_string()).ok();
        assert_eq!(authority("http://127.0.0.1:8080/").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(authority("http://mart.example").as_deref(), Some("mart.example:80"));
        for wrong in ["https://mart.example", "127.0.0.1:8080", "http://:80", "http://mart/v1", "http://a:b"]
        {
            assert_eq!(authority(wrong), None, "{wrong}");
        }
    }
}
