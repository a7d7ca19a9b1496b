//! A connection with bounds of its own. The HTTP library times the first head of a connection and the pause between
//! requests; everything else that a client can draw out (a later head, the rest of a body that nobody wants, an answer
//! that is not read) ends here.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::Request;
use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::peers::Turn;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// How long the handshake of TLS and the first request's head may take.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    /// Bytes of a request's head. A little more may arrive before it is noticed.
    pub head_limit: usize,
    /// A connection over which no answer went for so long is closed, whatever else goes over it.
    pub answer_timeout: Duration,
}

/// The bytes below, as they are or through TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn io(&mut self) -> Pin<&mut dyn Io> {
        let io: &mut dyn Io = match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &mut **stream,
        };
        Pin::new(io)
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// One connection, on the thread that serves it.
pub(super) struct Connection {
    stream: Stream,
    limits: ConnectionLimits,
    /// The start, and then the last answer that went out.
    answered: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Some of an answer has been written and not all of it flushed.
    answering: bool,
    head: Rc<Head>,
    _turn: Turn,
}

/// How much of a head has been read; shared with whoever serves the request, who knows where the head ends.
#[derive(Default)]
pub(super) struct Head {
    taken: Cell<usize>,
    /// The parser has had its look at a full measure of bytes.
    shown: Cell<bool>,
    /// A request is being served, or the rest of a refused one thrown away: what comes has bounds of its own.
    served: Cell<bool>,
}

impl Head {
    fn begin(&self) {
        self.taken.set(0);
        self.shown.set(false);
        self.served.set(false);
    }
}

/// Said to a head that is too large, where it still can be.
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

impl Connection {
    pub(super) fn new(stream: Stream, limits: ConnectionLimits, turn: Turn) -> Self {
        Self {
            stream,
            limits,
            answered: Instant::now(),
            alarm: Box::pin(sleep(limits.answer_timeout)),
            answering: false,
            head: Rc::default(),
            _turn: turn,
        }
    }

    pub(super) fn head(&self) -> Rc<Head> {
        self.head.clone()
    }

    /// Fails once no answer has gone out for too long. The alarm is only set again when it rings: answers are many.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let end = self.answered + self.limits.answer_timeout;
            if end <= Instant::now() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer for too long"));
            }
            self.alarm.as_mut().reset(end);
        }
        Ok(())
    }

    /// Whether the head may go on. At a full measure the parser looks first: it may be complete.
    fn may_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let head = &self.head;
        if head.served.get() || head.taken.get() < self.limits.head_limit {
            return Poll::Ready(Ok(()));
        }
        if !head.shown.replace(true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // It closes in any case; whether the client hears why is its own affair.
        let _ = self.stream.io().poll_write(cx, TOO_LARGE);
        let _ = self.stream.io().poll_flush(cx);
        Poll::Ready(Err(io::Error::other("the head is too large")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        ready!(this.may_read(cx))?;
        let before = buf.filled().len();
        ready!(this.stream.io().poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        this.head.taken.set(this.head.taken.get() + read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        this.answering = true;
        this.stream.io().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        ready!(this.stream.io().poll_flush(cx))?;
        // Called with nothing written, too; and a client that takes an answer byte by byte has not been answered.
        if this.answering {
            this.answering = false;
            this.answered = Instant::now();
            if !this.head.served.get() {
                this.head.begin();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        this.stream.io().poll_shutdown(cx)
    }
}

/// A request that is being served: the head is over, and what comes now is its body.
pub(super) struct Serving(Option<Rc<Head>>);

impl Serving {
    pub(super) fn begin(request: &Request) -> Self {
        let head = request.conn_data::<Rc<Head>>().cloned();
        if let Some(head) = &head {
            head.served.set(true);
        }
        Self(head)
    }

    /// It has been answered. Where its body was read to the end, the next head begins; else the connection closes, or
    /// throws the rest away first.
    pub(super) fn end(self, whole_body: bool) {
        if let Some(head) = self.0.filter(|_| whole_body) {
            head.begin();
        }
    }
}
