//! The providers' signatures, written from their documents and independently of the product: a check of its verifier.

use anyhow::{Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::generator::Webhook;

fn hmac(key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| anyhow!("no key"))?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac.finalize().into_bytes().to_vec())
}

/// The headers of a delivery at `now`, the signature among them.
pub fn sign(
    webhook: &Webhook,
    secret: &str,
    square_url: &str,
    now: DateTime<Utc>,
) -> Result<Vec<(&'static str, String)>> {
    let body = &webhook.body[..];
    let time = now.timestamp().to_string();
    let mut headers = webhook.headers.clone();
    match webhook.source {
        "stripe" => {
            let signature = hex::encode(hmac(secret.as_bytes(), &[time.as_bytes(), b".", body])?);
            headers.push(("stripe-signature", format!("t={time},v1={signature},v0=00")));
        }
        "shopify" => headers.push((
            "x-shopify-hmac-sha256",
            STANDARD.encode(hmac(secret.as_bytes(), &[body])?),
        )),
        "square" => {
            let signature = hmac(secret.as_bytes(), &[square_url.as_bytes(), body])?;
            headers.push(("x-square-hmacsha256-signature", STANDARD.encode(signature)));
        }
        "razorpay" => headers.push(("x-razorpay-signature", hex::encode(hmac(secret.as_bytes(), &[body])?))),
        "standard" => {
            let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret))?;
            let id = &webhook.expect.event_id;
            let signature = hmac(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body])?;
            headers.push(("webhook-id", id.clone()));
            headers.push(("webhook-timestamp", time));
            headers.push(("webhook-signature", format!("v1,{}", STANDARD.encode(signature))));
        }
        other => return Err(anyhow!("nobody knows how {other} signs")),
    }
    Ok(headers)
}
