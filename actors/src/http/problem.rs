//! The one place where an error becomes a status: problem documents by RFC 9457. `type` is stable and made for
//! programs; `detail` is for people. Neither ever holds a secret or an internal detail.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use serde_json::json;

use crate::producer::PublishError;
use crate::sources::{AuthError, Refusal};

/// An error as the client sees it.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    /// One that its status asks for.
    header: Option<(&'static str, &'static str)>,
}

impl Problem {
    fn new(status: StatusCode, slug: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            slug,
            title,
            detail: detail.into(),
            retry_after: None,
            header: None,
        }
    }

    /// 404: no source listens on this path.
    pub fn unknown_source() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-source",
            "Unknown source",
            "no source is configured for this path",
        )
    }

    /// 405: webhooks are POSTed.
    pub fn method(allow: &'static str) -> Self {
        let mut problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            format!("use {allow}"),
        );
        problem.header = Some(("allow", allow));
        problem
    }

    /// 408: the body did not come in time.
    pub fn slow_body(limit: Duration) -> Self {
        let detail = format!("the body did not arrive within {} s", limit.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "Request timeout", detail)
    }

    /// 400: the connection broke or the transfer coding is wrong.
    pub fn unreadable_body() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "body-unreadable",
            "Unreadable body",
            "the body could not be read to its end",
        )
    }

    /// 413: more than the cap.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "Body too large",
            format!("the body may have {limit} bytes"),
        )
    }

    /// 415: the source sends JSON.
    pub fn not_json_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Unsupported media type",
            "this source takes application/json",
        )
    }

    /// 415: a compressed body.
    pub fn coded() -> Self {
        let mut problem = Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-content-encoding",
            "Unsupported content encoding",
            "send the body as it is, without Content-Encoding",
        );
        problem.header = Some(("accept-encoding", "identity"));
        problem
    }

    /// 429: over the source's rate limit.
    pub fn too_many(wait: Duration) -> Self {
        let mut problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate-limited",
            "Too many requests",
            "this source is over its configured rate",
        );
        problem.retry_after = Some(wait);
        problem
    }

    /// 503: Kafka cannot take it within the deadline, or too many requests are under way.
    pub fn unavailable(detail: &'static str) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Service unavailable",
            detail,
        );
        problem.retry_after = Some(Duration::from_secs(1));
        problem
    }

    /// 401: the operator's token is missing or wrong.
    pub fn token() -> Self {
        let mut problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "token-required",
            "Token required",
            "send the admin token as `Authorization: Bearer …`",
        );
        problem.header = Some(("www-authenticate", "Bearer realm=\"hookmill admin\""));
        problem
    }

    /// 404 on the admin listener.
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "Not found",
            "see / for what there is",
        )
    }

    /// The stable name of the problem, as counted in the metrics.
    pub fn slug(&self) -> &'static str {
        self.slug
    }

    /// The HTTP response.
    pub fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.insert_header((header::RETRY_AFTER, seconds.max(1).to_string()));
        }
        if let Some(header) = self.header {
            response.insert_header(header);
        }
        let document = json!({
            "type": format!("urn:hookmill:problem:{}", self.slug),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        response.body(document.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotJson(why) => Self::new(StatusCode::BAD_REQUEST, "not-json", "Not JSON", why.to_string()),
            Refusal::Unauthorized(why @ AuthError::Address) => Self::new(
                StatusCode::FORBIDDEN,
                "address-not-allowed",
                "Address not allowed",
                why.to_string(),
            ),
            Refusal::Unauthorized(why) => {
                let slug = match why {
                    AuthError::Missing { .. } => "signature-missing",
                    AuthError::Malformed { .. } => "signature-malformed",
                    AuthError::MissingField { .. } => "signature-missing",
                    AuthError::Wrong | AuthError::CertificateNeeded { .. } => "signature-wrong",
                    AuthError::TooOld { .. } => "signature-too-old",
                    AuthError::TooFarAhead { .. } => "signature-too-far-ahead",
                    AuthError::Address => "address-not-allowed",
                };
                Self::new(StatusCode::UNAUTHORIZED, slug, "Not authenticated", why.to_string())
            }
            refusal @ Refusal::Unwanted { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "not-wanted",
                "Not wanted",
                refusal.to_string(),
            ),
            refusal @ Refusal::Unmappable { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "not-mappable",
                "Not mappable",
                refusal.to_string(),
            ),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "Body too large",
                "the event is larger than the queue behind this server takes",
            ),
            PublishError::NotTaken => Self::unavailable("the event cannot be taken now; send it again"),
            PublishError::QueueFull
            | PublishError::NotAcknowledged(_)
            | PublishError::Passed
            | PublishError::Client(_) => {
                Self::unavailable("the event could not be stored durably in time; send it again")
            }
        }
    }
}
