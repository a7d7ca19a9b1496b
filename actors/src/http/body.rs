//! The body of a request: read within its bounds, or stepped over.

use std::time::Duration;

use actix_http::error::PayloadError;
use actix_http::{HttpMessage as _, Payload, Request};
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};
use actix_web::web;
use futures_util::StreamExt as _;

use super::budget::Share;
use super::problem::Problem;

/// The body of a request, as it comes.
pub(super) struct Body {
    payload: Payload,
    /// It was read to its end, so that the next request on the connection begins behind it.
    pub(super) ended: bool,
}

impl Body {
    pub(super) fn new(payload: Payload) -> Self {
        Self { payload, ended: false }
    }

    async fn next(&mut self) -> Option<Result<web::Bytes, PayloadError>> {
        let chunk = self.payload.next().await;
        self.ended = chunk.is_none();
        chunk
    }
}

/// How long the rest of a body that is refused anyway may take.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// Steps over the body of a request that was refused by its head, so that the next one on this connection is read from its
/// beginning. Where the body does not end soon, the server says that it closes, and does.
pub(super) async fn discard(body: &mut Body, limit: usize) {
    let mut left = limit;
    let rest = async {
        while let Some(Ok(chunk)) = body.next().await {
            match left.checked_sub(chunk.len()) {
                Some(less) => left = less,
                None => break,
            }
        }
    };
    // In time or not: what is left over is the server's to decide.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
}

/// Reads a body to its end, or to the limit; `share` is the memory that it may take.
pub(super) async fn read(
    request: &Request,
    body: &mut Body,
    limit: usize,
    share: &mut Share<'_>,
) -> Result<web::Bytes, Problem> {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let announced: Option<u64> = announced.and_then(|text| text.parse().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Problem::too_large(limit));
    }
    let expected = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    // Most bodies come in one piece, which needs no copy.
    let mut first = web::Bytes::new();
    let mut whole = web::BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Problem::unreadable_body())?;
        let length = first.len() + whole.len() + chunk.len();
        if length > limit {
            return Err(Problem::too_large(limit));
        }
        if !share.grow_to(length) {
            return Err(Problem::unavailable(
                "too many large requests are under way; send it again",
            ));
        }
        if length == expected && chunk.len() == expected {
            first = chunk;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(expected.min(FIRST_BUFFER).max(length));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// A length that is only announced gets no more memory than this in advance.
const FIRST_BUFFER: usize = 16 << 10;

/// Whether the body is coded, as by gzip. Signatures are over what was sent, no provider codes, and unpacking is work that a
/// stranger could have done here.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    let identity = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_ENCODING).any(|value| !identity(value))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use futures_util::stream;

    use super::super::budget::Budget;
    use super::*;

    type BoxedPieces = std::pin::Pin<Box<dyn stream::Stream<Item = Result<web::Bytes, PayloadError>>>>;

    /// What is read of a body of at most 8 bytes that comes in these pieces.
    async fn read_of(announced: Option<&str>, pieces: &[&'static str]) -> Result<web::Bytes, Problem> {
        let request = TestRequest::default();
        let request = match announced {
            Some(length) => request.insert_header((CONTENT_LENGTH, length)),
            None => request,
        };
        let request = request.to_request();
        let pieces = stream::iter(Vec::from(pieces)).map(|piece| Ok(web::Bytes::from_static(piece.as_bytes())));
        let payload = Payload::from(pieces.boxed_local() as BoxedPieces);
        let budget = Budget::new(0);
        read(&request, &mut Body::new(payload), 8, &mut budget.share()).await
    }

    #[actix_web::test]
    async fn a_body_is_all_of_its_pieces_whatever_was_announced() {
        for (announced, pieces) in [
            (Some("4"), &["abcd"][..]),
            (Some("4"), &["ab", "cd"]),
            (Some("2"), &["ab", "cd"]),
            (Some("2"), &["ab", "cd", "ef"]),
            (Some("2"), &["a", "bc", "de"]),
            (Some("2"), &["abc", "de"]),
            (Some("0"), &[]),
            (None, &["abcd"]),
            (None, &["a", "", "b"]),
            (None, &[]),
        ] {
            let body = read_of(announced, pieces).await;
            assert_eq!(
                body.ok().as_deref(),
                Some(pieces.concat().as_bytes()),
                "{announced:?} {pieces:?}"
            );
        }
        for (announced, pieces) in [
            (Some("9"), &["abcdefghi"][..]),
            (Some("3"), &["abc", "def", "ghi"]),
            (Some("8"), &["abcdefgh", "i"]),
            (None, &["abcdefgh", "i"]),
        ] {
            let refused = read_of(announced, pieces).await.expect_err("it is too large");
            assert_eq!(refused.slug(), "body-too-large", "{announced:?} {pieces:?}");
        }
    }

    #[test]
    fn bodies_are_taken_as_they_were_signed() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, value.parse().expect("a header value"));
            is_coded(&headers)
        };
        assert!(with("gzip") && with("identity, br") && with(""));
        assert!(!with("Identity") && !is_coded(&HeaderMap::new()));
    }
}
