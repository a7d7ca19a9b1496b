//! A signature in each of a request's several events (Adyen's form): an HMAC over some of its fields, kept in the item.

use super::hmac::Keyed;
use super::{AuthError, Key, Keys, envelope, key_bytes};
use crate::sources::config::{Encoding, Fault, ItemHmacConfig, Under};
use crate::sources::tree::{Found, Tree};

enum Piece {
    Text(String),
    /// A field; empty where it is missing.
    Field(usize),
}

/// A compiled scheme with its keys.
pub(in crate::sources) struct ItemHmac {
    signature: (String, usize),
    encoding: Encoding,
    length: usize,
    content: Vec<Piece>,
    keys: Keys<Keyed>,
}

impl ItemHmac {
    /// Compiles a scheme; the places it reads are added to the items' tree.
    pub(super) fn compile(config: &ItemHmacConfig, tree: &mut Tree, secrets: &[Key<'_>]) -> Result<Self, Fault> {
        let content = pieces(&config.content, tree).under("content")?;
        let mut keys = Vec::with_capacity(secrets.len());
        for secret in secrets {
            let bytes = key_bytes(secret, "", config.secret_encoding)?;
            keys.push((secret.index, secret.keyed(config.algorithm, &bytes)?));
        }
        let slot = tree.slot(&config.signature).under("signature")?;
        Ok(Self {
            signature: (config.signature.clone(), slot),
            encoding: config.encoding,
            length: Keyed::length(config.algorithm),
            content,
            keys: Keys(keys),
        })
    }

    /// Verifies one item; returns the secret that it was signed with.
    pub(super) fn verify(&self, item: &Found<'_>, valid: impl Fn(usize) -> bool) -> Result<usize, AuthError> {
        let (pointer, slot) = &self.signature;
        let text = item.scalar(*slot).ok_or_else(|| AuthError::MissingField {
            pointer: pointer.clone(),
        })?;
        let signature = envelope::decode(self.encoding, &text, self.length).ok_or(AuthError::Wrong)?;
        let mut right = None;
        for (index, key) in self.keys.0.iter().filter(|(index, _)| valid(*index)) {
            let mac = self.mac(key, item);
            if mac.matches(&signature) {
                right = Some(*index);
            }
        }
        right.ok_or(AuthError::Wrong)
    }

    /// Where the signature stands in an item.
    pub(super) fn pointer(&self) -> &str {
        &self.signature.0
    }

    /// The signature that an item should carry, made with the first secret.
    pub(super) fn sign(&self, item: &Found<'_>) -> Option<String> {
        let (_, key) = self.keys.0.first()?;
        Some(envelope::encode(self.encoding, &self.mac(key, item).finish()))
    }

    fn mac(&self, key: &Keyed, item: &Found<'_>) -> Keyed {
        let mut mac = key.clone();
        for piece in &self.content {
            match piece {
                Piece::Text(text) => mac.update(text.as_bytes()),
                Piece::Field(slot) => mac.update(item.scalar(*slot).unwrap_or_default().as_bytes()),
            }
        }
        mac
    }
}

/// What is signed: pointers in braces, and text between.
fn pieces(text: &str, tree: &mut Tree) -> Result<Vec<Piece>, String> {
    let mut content = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            content.push(Piece::Text(before.to_owned()));
        }
        let (pointer, behind) = after
            .split_once('}')
            .ok_or_else(|| format!("has auth.content = {text:?} with a brace that is not closed"))?;
        content.push(Piece::Field(tree.slot(pointer)?));
        rest = behind;
    }
    if !rest.is_empty() {
        content.push(Piece::Text(rest.to_owned()));
    }
    if !content.iter().any(|piece| matches!(piece, Piece::Field(_))) {
        return Err("has auth.content without a field: nothing of the event would be protected".to_owned());
    }
    Ok(content)
}
