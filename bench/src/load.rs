//! An HTTP client that costs little: prepared requests, keep-alive connections, one thread.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use dev::send::{Webhook, sign};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::limit::ingest::KIND;
use crate::product::SECRET;

/// The bytes of one signed webhook's request.
pub fn request(webhook: &Webhook) -> Result<Vec<u8>> {
    let mut head = format!(
        "POST /webhooks/{} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n",
        webhook.source
    );
    head += &format!("content-length: {}\r\n", webhook.body.len());
    head += &format!("{KIND}: {}\r\n", webhook.expect.kind);
    for (name, value) in sign(webhook, SECRET, "", chrono::Utc::now())? {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let mut request = head.into_bytes();
    request.extend_from_slice(&webhook.body);
    Ok(request)
}

/// Sends each connection's requests, one after another, and expects 202 for each; the times to the answers, sorted.
pub async fn send(address: &str, connections: Vec<Vec<Vec<u8>>>) -> Result<Vec<Duration>> {
    let answers = send_from_a_thread(address, connections, false).await?;
    let mut times: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
    times.sort_unstable();
    Ok(times)
}

/// The same where 503 is an answer, too: then a connection waits for as long as that says before it sends what is next.
pub async fn press(address: &str, connections: Vec<Vec<Vec<u8>>>) -> Result<Vec<Answered>> {
    send_from_a_thread(address, connections, true).await
}

/// An answer that came.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// 202 or 503.
    pub is_accepted: bool,
    /// From the request to it.
    pub took: Duration,
    /// When.
    pub at: Instant,
}

async fn send_from_a_thread(address: &str, connections: Vec<Vec<Vec<u8>>>, is_patient: bool) -> Result<Vec<Answered>> {
    let address = address.to_owned();
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        // Who asked may have been interrupted.
        let _ = done.send(send_here(&address, connections, is_patient));
    })?;
    result.await.context("the load's thread ended")?
}

fn send_here(address: &str, connections: Vec<Vec<Vec<u8>>>, is_patient: bool) -> Result<Vec<Answered>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let workers = connections.into_iter().map(|requests| {
            let address = address.to_owned();
            let worker = tokio::spawn(async move {
                let mut connection = Connection::open(&address).await?;
                let mut answers = Vec::with_capacity(requests.len());
                for request in requests {
                    let asked = Instant::now();
                    let Answer {
                        status,
                        body,
                        retry_after,
                    } = connection.ask(&request).await?;
                    let at = Instant::now();
                    answers.push(Answered {
                        is_accepted: status == 202,
                        took: at - asked,
                        at,
                    });
                    match (status, retry_after) {
                        (202, _) => {}
                        (503, Some(pause)) if is_patient => tokio::time::sleep(pause).await,
                        _ => bail!("answered {status}: {body}"),
                    }
                }
                Ok(answers)
            });
            async move { worker.await.map_err(|_| anyhow!("a connection's task ended"))? }
        });
        Ok(try_join_all(workers).await?.concat())
    })
}

/// Status and body of a GET over a connection of its own.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let answer = Connection::open(address).await?.ask(request.as_bytes()).await?;
    Ok((answer.status, answer.body))
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: String,
    retry_after: Option<Duration>,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Sends a request and reads its answer, whose length its head must tell.
    async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed before the answer");
            }
            if let Some(answer) = whole_answer(&self.buffer)? {
                return Ok(answer);
            }
        }
    }
}

/// An answer, once all of it is there.
fn whole_answer(bytes: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let (mut length, mut retry_after) = (None, None);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("retry-after") {
            retry_after = value.trim().parse().ok().map(Duration::from_secs);
        }
    }
    let (status, length) = (status.context("no status")?, length.context("no content-length")?);
    let body = &bytes[end + 4..];
    Ok((body.len() >= length).then(|| Answer {
        status,
        body: String::from_utf8_lossy(body).into_owned(),
        retry_after,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nRetry-After: 7\r\nx: y\r\n\r\n{}";
        for cut in 0..text.len() {
            assert_eq!(whole_answer(&text[..cut]).expect("it is well-formed"), None);
        }
        assert_eq!(
            whole_answer(text).expect("it is well-formed"),
            Some(Answer {
                status: 503,
                body: "{}".to_owned(),
                retry_after: Some(Duration::from_secs(7)),
            })
        );
        assert!(whole_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
