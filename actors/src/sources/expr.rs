//! Places in a request: what the strings of a mapping compile to.

use std::borrow::Cow;

use super::config::{Places, meant};
use super::tree::{Found, Trees};
use super::{HeaderLookup, header_text};

#[derive(Debug)]
enum Expr {
    Pointer(usize),
    /// Into the whole body, where the request has several events.
    Body(usize),
    Header(String),
    Const(String),
    Template(Vec<Expr>),
    /// What stands behind the last slash of another place.
    Tail(Box<Expr>),
}

/// A value that a place may have.
#[derive(Debug)]
pub(super) enum Pattern {
    Exactly(String),
    /// All that begin so.
    Beginning(String),
}

impl Pattern {
    pub(super) fn compile(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Pattern::Beginning(beginning.to_owned()),
            None => Pattern::Exactly(text.to_owned()),
        }
    }

    /// The more it fits, the greater.
    pub(super) fn breadth(&self) -> usize {
        match self {
            Pattern::Exactly(_) => 0,
            Pattern::Beginning(beginning) => usize::MAX - beginning.len(),
        }
    }

    pub(super) fn fits(&self, text: &str) -> bool {
        match self {
            Pattern::Exactly(wanted) => text == wanted,
            Pattern::Beginning(beginning) => text.starts_with(beginning.as_str()),
        }
    }
}

/// Several places, of which the first that yields something counts.
#[derive(Debug)]
pub(super) struct Exprs {
    exprs: Vec<Expr>,
    /// As they were written, for messages.
    pub(super) written: Vec<String>,
}

/// The request that places are looked up in.
pub(super) struct Request<'r, 'a, H: ?Sized> {
    pub(super) headers: &'a H,
    /// The event.
    pub(super) item: &'r Found<'a>,
    /// What it came in; the same, unless the request has several events.
    pub(super) body: &'r Found<'a>,
}

impl Exprs {
    pub(super) fn compile(places: &Places, trees: &mut Trees) -> Result<Self, String> {
        let written = places.list();
        if written.is_empty() {
            return Err("is an empty list: name a place".to_owned());
        }
        let exprs = written
            .iter()
            .map(|text| compile(text, trees))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            exprs,
            written: written.into_iter().map(str::to_owned).collect(),
        })
    }

    /// The place that yields something, as it is written.
    pub(super) fn decided<H: HeaderLookup + ?Sized>(&self, request: &Request<'_, '_, H>) -> Option<&str> {
        let at = self.exprs.iter().position(|expr| expr.eval(request).is_some())?;
        self.written.get(at).map(String::as_str)
    }

    /// What stands at one of the places and is no value, such as "is an object".
    pub(super) fn composite<H: ?Sized>(&self, request: &Request<'_, '_, H>) -> Option<&'static str> {
        self.exprs.iter().find_map(|expr| match expr {
            Expr::Pointer(slot) => request.item.composite(*slot),
            Expr::Body(slot) => request.body.composite(*slot),
            Expr::Header(_) | Expr::Const(_) | Expr::Template(_) | Expr::Tail(_) => None,
        })
    }

    pub(super) fn eval<'a, H: HeaderLookup + ?Sized>(&self, request: &Request<'_, 'a, H>) -> Option<Cow<'a, str>> {
        self.exprs.iter().find_map(|expr| expr.eval(request))
    }
}

fn compile(text: &str, trees: &mut Trees) -> Result<Expr, String> {
    if text.contains('{') {
        return template(text, trees);
    }
    if text.starts_with('/') {
        return Ok(Expr::Pointer(trees.item_slot(text)?));
    }
    match text.split_once(':') {
        Some(("body", pointer)) => Ok(Expr::Body(trees.body_slot(pointer)?)),
        Some(("header", name)) if !name.is_empty() => Ok(Expr::Header(name.to_ascii_lowercase())),
        Some(("const", value)) if !value.is_empty() => Ok(Expr::Const(value.to_owned())),
        Some(("tail", place)) if !place.is_empty() => Ok(Expr::Tail(Box::new(compile(place, trees)?))),
        other => {
            const KNOWN: [&str; 4] = ["body", "header", "const", "tail"];
            let meant = other
                .filter(|(kind, _)| !KNOWN.contains(kind))
                .map(|(kind, _)| meant(kind, KNOWN.into_iter()))
                .unwrap_or_default();
            Err(format!(
                "has the place {text:?}{meant}: use \"/pointer\", \"body:/pointer\", \"header:NAME\", \"const:TEXT\", \"tail:PLACE\" or a template such as \"order:{{/id}}\""
            ))
        }
    }
}

fn template(text: &str, trees: &mut Trees) -> Result<Expr, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(Expr::Const(before.to_owned()));
        }
        let (place, behind) = after
            .split_once('}')
            .ok_or_else(|| format!("has the template {text:?} with a brace that is not closed"))?;
        parts.push(compile(place, trees)?);
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Expr::Const(rest.to_owned()));
    }
    Ok(Expr::Template(parts))
}

impl Expr {
    fn eval<'a, H: HeaderLookup + ?Sized>(&self, request: &Request<'_, 'a, H>) -> Option<Cow<'a, str>> {
        match self {
            Expr::Pointer(slot) => request.item.scalar(*slot),
            Expr::Body(slot) => request.body.scalar(*slot),
            Expr::Header(name) => header_text(request.headers, name),
            Expr::Const(text) => Some(Cow::Owned(text.clone())),
            Expr::Tail(place) => {
                let tail = match place.eval(request)? {
                    Cow::Borrowed(text) => Cow::Borrowed(behind_last_slash(text)),
                    Cow::Owned(text) => Cow::Owned(behind_last_slash(&text).to_owned()),
                };
                (!tail.is_empty()).then_some(tail)
            }
            Expr::Template(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Expr::Const(piece) => text.push_str(piece),
                        other => text.push_str(&other.eval(request)?),
                    }
                }
                Some(Cow::Owned(text))
            }
        }
    }
}

fn behind_last_slash(text: &str) -> &str {
    text.rsplit_once('/').map_or(text, |(_, tail)| tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_a_pattern_the_earlier_it_is_tried() {
        let breadth = |text: &str| Pattern::compile(text).breadth();
        let narrowing = ["*", "a*", "ab*", "abc*", "a"].map(breadth);
        assert!(narrowing.is_sorted_by(|one, next| one > next), "{narrowing:?}");
    }

    #[test]
    fn a_place_without_its_part_is_refused_as_it_was_written() {
        let refused = |text: &str| compile(text, &mut Trees::default()).expect_err("it is no place");
        for text in ["header:", "const:", "tail:", "tail:const:", "nothing"] {
            let message = refused(text);
            let written = format!(
                "has the place {:?}: use",
                text.strip_prefix("tail:c").map_or(text, |_| "const:")
            );
            assert!(message.starts_with(&written), "{message}");
        }
        let message = refused("haeder:x-id");
        assert!(
            message.starts_with(r#"has the place "haeder:x-id" (did you mean "header"?)"#),
            "{message}"
        );
    }

    #[test]
    fn a_template_keeps_what_stands_around_its_places() {
        let places = |text: &str| match compile(text, &mut Trees::default()).expect("a template") {
            Expr::Template(parts) => parts.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(["{/a}", "x{/a}", "{/a}x", "x{/a}y{/b}z"].map(places), [1, 2, 2, 5]);
    }
}
