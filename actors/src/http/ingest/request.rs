//! What a request's head says.

use std::net::IpAddr;

use actix_http::{HttpMessage as _, Request};
use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use ipnet::IpNet;

use crate::kafka::new_trace_parent;
use crate::sources::{HeaderLookup, Lookup};

/// Who sent a request: the other end of its connection, or whom a trusted proxy there names.
pub(super) fn peer(request: &Request, trusted: &[IpNet]) -> Option<IpAddr> {
    let direct = request.peer_addr()?.ip().to_canonical();
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !is_trusted(&direct) {
        return Some(direct);
    }
    let chain = request
        .headers()
        .get_all("x-forwarded-for")
        .filter_map(|v| v.to_str().ok());
    let named: Vec<IpAddr> = chain
        .flat_map(|line| line.split(','))
        .filter_map(|text| text.trim().parse::<IpAddr>().ok())
        .collect();
    // The last one that is no proxy of ours: what stands before it anybody could have written.
    named.into_iter().rev().find(|ip| !is_trusted(ip)).or(Some(direct))
}

/// JSON by its media type, or by saying nothing.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let Ok(text) = value.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The caller's W3C trace context, or the start of a new one (<https://www.w3.org/TR/trace-context/>).
pub(super) fn trace_parent(headers: &HeaderMap) -> String {
    let given = headers.get("traceparent").and_then(|v| v.to_str().ok());
    match given.filter(|value| is_trace_parent(value)) {
        Some(value) => value.to_owned(),
        None => new_trace_parent(),
    }
}

fn is_trace_parent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let hex = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let [version, trace, span, flags] = parts[..] else {
        return false;
    };
    hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && trace.bytes().any(|b| b != b'0')
        && span.bytes().any(|b| b != b'0')
}

/// A request's headers, as a source asks for them.
pub(super) struct RequestHeaders<'a>(pub(super) &'a HeaderMap);

impl HeaderLookup for RequestHeaders<'_> {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        let mut values = self.0.get_all(name);
        match (values.next(), values.next()) {
            (None, _) => Lookup::Missing,
            (Some(value), None) => Lookup::One(value.as_bytes()),
            (Some(_), Some(_)) => Lookup::Many,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().expect("a header value"));
            is_json(&headers)
        };
        assert!(
            with("application/json") && with("Application/JSON; charset=utf-8") && with("application/cloudevents+json")
        );
        assert!(!with("text/plain") && !with("application/x-www-form-urlencoded") && !with("text/x+json"));
        assert!(is_json(&HeaderMap::new()));
    }

    #[test]
    fn only_a_well_formed_trace_parent_is_kept() {
        assert!(is_trace_parent(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ));
        assert!(!is_trace_parent(
            "00-00000000000000000000000000000000-b7ad6b7169203331-01"
        ));
        assert!(!is_trace_parent(
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"
        ));
        assert!(!is_trace_parent("nonsense"));
        assert!(is_trace_parent(&trace_parent(&HeaderMap::new())));
    }
}
