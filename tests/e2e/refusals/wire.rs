//! HTTP/1.1 by hand, to send what no client library would.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Instance, signed};

/// One connection.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// No answer takes longer than this.
const PATIENCE: Duration = Duration::from_secs(15);

impl Wire {
    pub async fn to(instance: &Instance) -> Self {
        let address = instance.url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.expect("it listens");
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends bytes; a server that has closed already says why in what can still be read.
    pub async fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes).await {
            let closed = matches!(
                error.kind(),
                std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
            );
            assert!(closed, "{error}");
        }
    }

    /// Sends a whole request.
    pub async fn request(&mut self, method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Answer {
        let mut head = head(method, path, headers);
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        self.send(&[head.as_bytes(), body].concat()).await;
        self.answer(method != "HEAD").await
    }

    /// Reads an answer.
    pub async fn answer(&mut self, with_body: bool) -> Answer {
        self.try_answer(with_body)
            .await
            .expect("an answer before the connection closes")
    }

    /// Reads an answer, if there comes one before the connection closes.
    pub async fn try_answer(&mut self, with_body: bool) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more().await {
                assert!(
                    self.read.is_empty(),
                    "half an answer: {}",
                    String::from_utf8_lossy(&self.read)
                );
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("text");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .expect("a status");
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length: usize = headers
            .get("content-length")
            .map_or(0, |n| n.parse().expect("a length"));
        let length = if with_body { length } else { 0 };
        while self.read.len() < length {
            assert!(self.more().await, "the answer ends early");
        }
        Some(Answer {
            status,
            headers,
            body: self.read.drain(..length).collect(),
        })
    }

    /// Whether the server closes, with nothing further said.
    pub async fn is_closed(&mut self) -> bool {
        !self.more().await
    }

    /// Shows that the connection still works.
    pub async fn works_on(&mut self, what: &str) {
        let body = good_order();
        let headers = signed("standard", body.as_bytes(), "msg_keep_alive", Utc::now());
        let answer = self
            .request("POST", "/webhooks/standard", &headers, body.as_bytes())
            .await;
        assert_eq!(answer.status, 202, "after {what}: {answer:?}");
    }

    async fn more(&mut self) -> bool {
        let mut some = [0; 8192];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut some));
        match read.await.expect("an answer in time") {
            Ok(0) => false,
            Ok(n) => {
                self.read.extend_from_slice(&some[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The head of a request, without its end.
pub fn head(method: &str, path: &str, headers: &[(String, String)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: hookmill\r\n");
    if !headers.iter().any(|(name, _)| name == "content-type") {
        head.push_str("content-type: application/json\r\n");
    }
    for (name, value) in headers.iter().filter(|(_, value)| value != "ABSENT") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

/// A webhook of the source "standard" that is as it should be.
pub fn good_order() -> String {
    let data = r#"{"id":"o1","user_id":"u1","amount":1,"currency":"EUR","status":"paid"}"#;
    format!(r#"{{"type":"order.created","timestamp":"2026-01-02T03:04:05Z","data":{data}}}"#)
}

/// What no answer may hold: secrets, and words from the inside.
const INSIDE: &[&str] = &[
    "whsec_",
    "-secret",
    "127.0.0.1",
    "rdkafka",
    "librdkafka",
    "postgres",
    "actix",
    "serde",
    "panicked",
    ".rs",
    "NotAcknowledged",
    "Broker",
];

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// That it is a problem document by RFC 9457 with this status and type; returns its detail.
    #[track_caller]
    pub fn is_problem(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{self:?}, {}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let document = self.json();
        assert_eq!(document["type"], format!("urn:hookmill:problem:{kind}"), "{document}");
        assert_eq!(document["status"], status);
        for member in ["title", "detail"] {
            let text = document[member].as_str().unwrap_or_default();
            assert!(text.len() > 5, "{member} says nothing: {document}");
        }
        assert_eq!(document.as_object().map(serde_json::Map::len), Some(4), "{document}");
        let text = document.to_string();
        for word in INSIDE {
            assert!(!text.contains(word), "{word} is said outside: {text}");
        }
        document["detail"].as_str().expect("a detail").to_owned()
    }

    /// The seconds after which the sender may try again.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        let seconds = self
            .headers
            .get("retry-after")
            .unwrap_or_else(|| panic!("no Retry-After: {self:?}"));
        seconds.parse().expect("seconds")
    }
}
