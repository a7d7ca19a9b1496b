//! Reading a body once: all places that a source's rules name form a tree, and one walk over the JSON collects their raw
//! texts. What nobody asks for is checked for syntax and stepped over. Numbers keep their text, so no id above 2^53 and no
//! amount passes through a floating-point number.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

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

#[derive(Debug, Default)]
struct Node {
    slot: Option<usize>,
    children: Vec<(String, Node)>,
}

/// What was found, by slot.
pub(super) struct Found<'a>(Vec<Option<&'a RawValue>>);

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
            let token = token.replace("~1", "/").replace("~0", "~");
            let at = match node.children.iter().position(|(key, _)| *key == token) {
                Some(at) => at,
                None => {
                    node.children.push((token, Node::default()));
                    node.children.len() - 1
                }
            };
            node = &mut node.children[at].1;
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

    /// Walks over the body. Fails if it is not JSON, or has a wanted key twice, so that it could be read in two ways.
    pub(super) fn read<'a>(&self, body: &'a str) -> Result<Found<'a>, serde_json::Error> {
        let mut found = Found(vec![None; self.pointers.len()]);
        let mut input = serde_json::Deserializer::from_str(body);
        Walk {
            node: &self.root,
            found: &mut found,
        }
        .deserialize(&mut input)?;
        input.end()?;
        Ok(found)
    }
}

impl<'a> Found<'a> {
    /// The elements of an array, each with its own bytes; `None` where there is no array.
    pub(super) fn elements(&self, slot: usize) -> Option<Vec<&'a RawValue>> {
        let raw = self.0.get(slot).copied().flatten()?.get();
        serde_json::from_str(raw).ok()
    }

    /// The text of a scalar: a string's content, or a number's or truth value's own text. Null, the empty string, objects
    /// and arrays are none.
    pub(super) fn scalar(&self, slot: usize) -> Option<Cow<'a, str>> {
        let raw = self.0.get(slot).copied().flatten()?.get();
        match raw.as_bytes().first()? {
            b'"' => {
                let text: Cow<'a, str> = match raw[1..raw.len() - 1].contains('\\') {
                    false => Cow::Borrowed(&raw[1..raw.len() - 1]),
                    true => Cow::Owned(serde_json::from_str(raw).ok()?),
                };
                (!text.is_empty()).then_some(text)
            }
            b'{' | b'[' | b'n' => None,
            _ => Some(Cow::Borrowed(raw)),
        }
    }
}

struct Walk<'t, 'f, 'a> {
    node: &'t Node,
    found: &'f mut Found<'a>,
}

impl<'a> DeserializeSeed<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, input: D) -> Result<(), D::Error> {
        let Some(slot) = self.node.slot else {
            return input.deserialize_any(self);
        };
        let raw = <&RawValue as serde::Deserialize>::deserialize(input)?;
        self.found.0[slot] = Some(raw);
        // A place may be wanted as a whole and in parts: an id, or the object that was expanded in its place.
        if !self.node.children.is_empty() && raw.get().starts_with(['{', '[']) {
            let mut inner = serde_json::Deserializer::from_str(raw.get());
            inner.deserialize_any(self).map_err(D::Error::custom)?;
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        let mut seen = 0_u64;
        while let Some(child) = map.next_key_seed(Key(self.node))? {
            let Some(i) = child else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (key, node) = &self.node.children[i];
            let bit = 1_u64.checked_shl(u32::try_from(i).unwrap_or(u32::MAX)).unwrap_or(0);
            if seen & bit != 0 {
                return Err(M::Error::custom(format_args!("the key {key:?} stands there twice")));
            }
            seen |= bit;
            map.next_value_seed(Walk {
                node,
                found: self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut seq: S) -> Result<(), S::Error> {
        for index in 0_usize.. {
            let child = self.node.children.iter().find(|(key, _)| key.parse() == Ok(index));
            let more = match child {
                Some((_, node)) => seq
                    .next_element_seed(Walk {
                        node,
                        found: self.found,
                    })?
                    .is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Finds a key among a node's children without copying it.
struct Key<'t>(&'t Node);

impl<'a> DeserializeSeed<'a> for Key<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'a>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.children.iter().position(|(known, _)| known == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(pointers: &[&str], body: &'a str) -> Result<Vec<Option<Cow<'a, str>>>, String> {
        let mut tree = Tree::default();
        let slots: Vec<usize> = pointers.iter().map(|p| tree.slot(p).expect("a pointer")).collect();
        let found = tree.read(body).map_err(|e| e.to_string())?;
        Ok(slots.into_iter().map(|slot| found.scalar(slot)).collect())
    }

    #[test]
    fn scalars_keep_their_text_and_others_are_none() {
        let body = r#"{"id": 12345678901234567890, "m": 10.10, "t": true, "n": null, "e": "", "o": {}, "s": "a\u00e9\n", "a": [{"x": "y"}], "k/~": 1}"#;
        let found = read(
            &["/id", "/m", "/t", "/n", "/e", "/o", "/s", "/a/0/x", "/k~1~0", "/none"],
            body,
        )
        .expect("JSON");
        let texts: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(
            texts,
            [
                Some("12345678901234567890"),
                Some("10.10"),
                Some("true"),
                None,
                None,
                None,
                Some("aé\n"),
                Some("y"),
                Some("1"),
                None
            ]
        );
    }

    #[test]
    fn a_place_may_be_a_scalar_or_an_object_in_its_stead() {
        let both = ["/charge", "/charge/id"];
        assert_eq!(read(&both, r#"{"charge":"ch_1"}"#), Ok(vec![Some("ch_1".into()), None]));
        assert_eq!(
            read(&both, r#"{"charge":{"id":"ch_1"}}"#),
            Ok(vec![None, Some("ch_1".into())])
        );
    }

    #[test]
    fn what_is_not_json_or_ambiguous_is_refused() {
        for bad in [
            "",
            "{",
            "{}x",
            "\u{feff}{}",
            "{\"a\":1,\"a\":2}",
            "{\"b\":{\"c\":1,\"c\":1}}",
            "nul",
            "{\"a\":01}",
            "{'a':1}",
        ] {
            assert!(read(&["/a", "/b/c"], bad).is_err(), "{bad}");
        }
        assert!(read(&["/a"], "{\"x\":1,\"x\":2}").is_ok(), "nobody reads x");
        let deep = "[".repeat(100_000);
        assert!(read(&["/a", "/0/0"], &deep).is_err());
    }
}
