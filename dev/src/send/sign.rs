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
    let mut headers = webhook.headers.clone();
    let id = &webhook.expect.event_id;
    headers.extend(sign_body(webhook.source, &webhook.body, id, secret, square_url, now)?);
    Ok(headers)
}

/// The headers that sign `body` as `source` does; `id` counts where the scheme signs one.
pub fn sign_body(
    source: &str,
    body: &[u8],
    id: &str,
    secret: &str,
    square_url: &str,
    now: DateTime<Utc>,
) -> Result<Vec<(&'static str, String)>> {
    let time = now.timestamp().to_string();
    Ok(match source {
        "stripe" => {
            let signature = hex::encode(hmac(secret.as_bytes(), &[time.as_bytes(), b".", body])?);
            vec![("stripe-signature", format!("t={time},v1={signature},v0=00"))]
        }
        "shopify" => vec![(
            "x-shopify-hmac-sha256",
            STANDARD.encode(hmac(secret.as_bytes(), &[body])?),
        )],
        "square" => {
            let signature = hmac(secret.as_bytes(), &[square_url.as_bytes(), body])?;
            vec![("x-square-hmacsha256-signature", STANDARD.encode(signature))]
        }
        "razorpay" => vec![("x-razorpay-signature", hex::encode(hmac(secret.as_bytes(), &[body])?))],
        "standard" => {
            let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret))?;
            let signature = hmac(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body])?;
            vec![
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", time),
                ("webhook-signature", format!("v1,{}", STANDARD.encode(signature))),
            ]
        }
        other => return Err(anyhow!("nobody knows how {other} signs")),
    })
}
