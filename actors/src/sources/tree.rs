//! Reading a body once: all places that a source's rules name form a tree, and one walk over the JSON ([`super::json`])
//! collects their raw texts. Numbers keep their text, so no id above 2^53 and no amount passes through a floating-point
//! number.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json::{self, Wrong};

/// The places to collect.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
    pointers: Vec<String>,
}

/// The places in an event, and those in the body around several events.
#[derive(Debug, Default)]
pub(super) struct Trees {
    pub(super) item: Tree,
    pub(super) body: Tree,
    /// The slot of the array, in the body's tree, where a request has several events.
    pub(super) each: Option<usize>,
}

impl Trees {
    pub(super) fn new(each: Option<&str>) -> Result<Self, String> {
        let mut trees = Self::default();
        trees.each = each.map(|pointer| trees.body.slot(pointer)).transpose()?;
        Ok(trees)
    }

    pub(super) fn item_slot(&mut self, pointer: &str) -> Result<usize, String> {
        self.item.slot(pointer)
    }

    /// Without several events the body is the event: all of it is read in one walk.
    pub(super) fn body_slot(&mut self, pointer: &str) -> Result<usize, String> {
        match self.each {
            Some(_) => self.body.slot(pointer),
            None => self.item.slot(pointer),
        }
    }
}

/// A place in the tree, and those below it.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Where its text is collected, if anybody wants it.
    pub(super) slot: Option<usize>,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    key: String,
    /// The key as an array's index; RFC 6901 allows no leading zeros.
    index: Option<usize>,
    node: Node,
}

impl Node {
    /// The place below an object's key.
    pub(super) fn child(&self, key: &str) -> Option<&Node> {
        self.children
            .iter()
            .find(|child| child.key == key)
            .map(|child| &child.node)
    }

    /// The place below an array's index.
    pub(super) fn element(&self, index: usize) -> Option<&Node> {
        let found = self.children.iter().find(|child| child.index == Some(index));
        found.map(|child| &child.node)
    }
}

/// What was found, by slot.
#[derive(Debug)]
pub(super) struct Found<'a>(Vec<Option<&'a str>>);

impl Tree {
    /// The slot of a JSON Pointer (RFC 6901).
    pub(super) fn slot(&mut self, pointer: &str) -> Result<usize, String> {
        if let Some(slot) = self.pointers.iter().position(|known| known == pointer) {
            return Ok(slot);
        }
        let mut node = &mut self.root;
        for token in pointer
            .strip_prefix('/')
            .ok_or_else(|| format!("{pointer:?} is no JSON Pointer: it begins with '/'"))?
            .split('/')
        {
            let key = unescaped(token)
                .ok_or_else(|| format!("{pointer:?} is no JSON Pointer: write ~ as ~0, and / in a key as ~1"))?;
            let at = match node.children.iter().position(|child| child.key == key) {
                Some(at) => at,
                None => {
                    let index = key.parse().ok().filter(|index: &usize| index.to_string() == key);
                    let node_below = Node::default();
                    node.children.push(Child {
                        key,
                        index,
                        node: node_below,
                    });
                    node.children.len() - 1
                }
            };
            node = &mut node.children[at].node;
        }
        let slot = self.pointers.len();
        node.slot = Some(slot);
        self.pointers.push(pointer.to_owned());
        Ok(slot)
    }

    /// The pointer of a slot.
    pub(super) fn pointer(&self, slot: usize) -> &str {
        self.pointers.get(slot).map_or("", String::as_str)
    }

    /// Walks over the body. Fails if it is not JSON, or could be read in two ways.
    pub(super) fn read<'a>(&self, body: &'a str) -> Result<Found<'a>, Wrong> {
        let mut found = vec![None; self.pointers.len()];
        json::scan(body, &self.root, &mut found)?;
        Ok(Found(found))
    }
}

/// A token of a pointer as the key that it means.
fn unescaped(token: &str) -> Option<String> {
    let mut key = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        match c {
            '~' => match chars.next() {
                Some('0') => key.push('~'),
                Some('1') => key.push('/'),
                _ => return None,
            },
            _ => key.push(c),
        }
    }
    Some(key)
}

impl<'a> Found<'a> {
    /// The elements of an array, each with its own bytes; `None` where there is no array.
    pub(super) fn elements(&self, slot: usize) -> Option<Vec<&'a str>> {
        let raw = self.0.get(slot).copied().flatten()?;
        let elements: Vec<&'a RawValue> = serde_json::from_str(raw).ok()?;
        Some(elements.into_iter().map(RawValue::get).collect())
    }

    /// What stands there, if it is more than a scalar.
    pub(super) fn composite(&self, slot: usize) -> Option<&'static str> {
        match self.0.get(slot).copied().flatten()?.as_bytes().first()? {
            b'{' => Some("is an object"),
            b'[' => Some("is an array"),
            _ => None,
        }
    }

    /// The text of a scalar: a string's content, or a number's or truth value's own text. Null, the empty string, objects
    /// and arrays are none.
    pub(super) fn scalar(&self, slot: usize) -> Option<Cow<'a, str>> {
        let raw = self.0.get(slot).copied().flatten()?;
        match raw.as_bytes().first()? {
            b'"' => {
                let content = raw.get(1..raw.len().checked_sub(1)?)?;
                let text: Cow<'a, str> = match content.contains('\\') {
                    false => Cow::Borrowed(content),
                    true => Cow::Owned(serde_json::from_str(raw).ok()?),
                };
                (!text.is_empty()).then_some(text)
            }
            b'{' | b'[' | b'n' => None,
            _ => Some(Cow::Borrowed(raw)),
        }
    }
}

#[cfg(test)]
mod tests;
