//! Places in a request: what the strings of a mapping compile to.

use std::borrow::Cow;

use super::config::Places;
use super::tree::{Found, Tree};
use super::{HeaderLookup, header_text};

#[derive(Debug)]
enum Expr {
    Pointer(usize),
    Header(String),
    Const(String),
    Template(Vec<Expr>),
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
    pub(super) body: &'r Found<'a>,
}

impl Exprs {
    pub(super) fn compile(places: &Places, tree: &mut Tree) -> Result<Self, String> {
        let written = places.list();
        let exprs = written
            .iter()
            .map(|text| compile(text, tree))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            exprs,
            written: written.into_iter().map(str::to_owned).collect(),
        })
    }

    pub(super) fn eval<'a, H: HeaderLookup + ?Sized>(&self, request: &Request<'_, 'a, H>) -> Option<Cow<'a, str>> {
        self.exprs.iter().find_map(|expr| expr.eval(request))
    }
}

fn compile(text: &str, tree: &mut Tree) -> Result<Expr, String> {
    if text.contains('{') {
        return template(text, tree);
    }
    if text.starts_with('/') {
        return Ok(Expr::Pointer(tree.slot(text)?));
    }
    match text.split_once(':') {
        Some(("header", name)) if !name.is_empty() => Ok(Expr::Header(name.to_ascii_lowercase())),
        Some(("const", value)) if !value.is_empty() => Ok(Expr::Const(value.to_owned())),
        _ => Err(format!(
            "has the place {text:?}: use \"/pointer\", \"header:NAME\", \"const:TEXT\" or a template such as \"order:{{/id}}\""
        )),
    }
}

fn template(text: &str, tree: &mut Tree) -> Result<Expr, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(Expr::Const(before.to_owned()));
        }
        let (place, behind) = after
            .split_once('}')
            .ok_or_else(|| format!("has the template {text:?} with a brace that is not closed"))?;
        parts.push(compile(place, tree)?);
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
            Expr::Pointer(slot) => request.body.scalar(*slot),
            Expr::Header(name) => header_text(request.headers, name),
            Expr::Const(text) => Some(Cow::Owned(text.clone())),
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
