//! Requests that are no events but want an answer: challenges, pings and tests. Nothing of them lands in the tables.

use actix_web::http::header::HeaderValue;

use super::config::{AnswerConfig, Fault, HandshakeConfig, HandshakeMethod, Places, Under};
use super::expr::{Exprs, Pattern};
use super::tree::Trees;
use super::{HeaderLookup, Incoming, Method, expr, header_text};

/// A compiled handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    method: Method,
    signed: bool,
    when: Vec<(Place, Vec<Pattern>)>,
    status: u16,
    content_type: String,
    body: Vec<Piece>,
}

#[derive(Debug)]
enum Place {
    Header(String),
    Query(String),
    Form(String),
    /// In the body, which is read only if the request is signed.
    Body(Exprs),
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Place(Place),
}

/// What a handshake is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its media type.
    pub content_type: String,
    /// Its body.
    pub body: String,
}

impl From<&AnswerConfig> for Answer {
    fn from(config: &AnswerConfig) -> Self {
        Self {
            status: config.status,
            content_type: config.content_type.clone(),
            body: config.body.clone(),
        }
    }
}

/// Compiles handshakes; what they read of a body is added to `trees`.
pub(super) fn compile(configs: &[HandshakeConfig], trees: &mut Trees) -> Result<Vec<Handshake>, Fault> {
    let mut handshakes = Vec::with_capacity(configs.len());
    for (i, config) in configs.iter().enumerate() {
        let compiled = one(config, trees).map_err(|fault| Fault {
            why: format!("in its handshake {} {}", i + 1, fault.why),
            ..fault
        });
        handshakes.push(compiled.under(i).under("handshake")?);
    }
    Ok(handshakes)
}

/// That an answer can be given, and tells a provider that all is well: anything else it would send again.
pub(super) fn valid(answer: &AnswerConfig) -> Result<(), Fault> {
    let AnswerConfig {
        status, content_type, ..
    } = answer;
    if !(200..300).contains(status) {
        let why = format!(
            "has the status {status}: what is taken is answered with 200 to 299, anything else would be sent again"
        );
        return Err(why).under("status").under("answer");
    }
    if content_type.is_empty() || HeaderValue::from_str(content_type).is_err() {
        let why = format!("has the content_type {content_type:?}: write a media type such as \"text/plain\"");
        return Err(why).under("content_type").under("answer");
    }
    Ok(())
}

fn one(config: &HandshakeConfig, trees: &mut Trees) -> Result<Handshake, Fault> {
    if config.when.is_empty() {
        return Err("says nothing in `when`: it would take every request").under("when");
    }
    valid(&config.answer)?;
    let mut place = |text: &str| -> Result<Place, String> {
        Ok(match text.split_once(':') {
            Some(("header", name)) => Place::Header(name.to_ascii_lowercase()),
            Some(("query", name)) => Place::Query(name.to_owned()),
            Some(("form", name)) => Place::Form(name.to_owned()),
            _ if config.signed => Place::Body(Exprs::compile(&Places::One(text.to_owned()), trees)?),
            _ => {
                return Err(format!(
                    "has the place {text:?}, but the body of an unsigned request is not read: use \"header:NAME\", \"query:NAME\" or \"form:NAME\""
                ));
            }
        })
    };
    let mut when = Vec::with_capacity(config.when.len());
    for (text, values) in &config.when {
        let values = values.list().into_iter().map(Pattern::compile).collect();
        when.push((place(text).under(text).under("when")?, values));
    }
    let mut body = Vec::new();
    let mut rest = config.answer.body.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        // A brace that names no place is a brace: answers are often JSON.
        let named = after.split_once('}').filter(|(name, _)| {
            name.starts_with('/') || ["header:", "query:", "form:"].iter().any(|p| name.starts_with(p))
        });
        match named {
            Some((name, behind)) => {
                body.push(Piece::Text(before.to_owned()));
                body.push(Piece::Place(place(name).under("body").under("answer")?));
                rest = behind;
            }
            None => {
                body.push(Piece::Text(format!("{before}{{")));
                rest = after;
            }
        }
    }
    body.push(Piece::Text(rest.to_owned()));
    Ok(Handshake {
        method: match config.method {
            HandshakeMethod::Get => Method::Get,
            HandshakeMethod::Post => Method::Post,
        },
        signed: config.signed,
        when,
        status: config.answer.status,
        content_type: config.answer.content_type.clone(),
        body,
    })
}

impl Handshake {
    pub(super) fn is_signed(&self) -> bool {
        self.signed
    }

    pub(super) fn is_get(&self) -> bool {
        self.method == Method::Get
    }

    /// The answer, if this request asks for it. `found` is what was read of a signed request's body.
    pub(super) fn answer<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        found: Option<&expr::Request<'_, '_, H>>,
    ) -> Option<Answer> {
        if self.method != request.method {
            return None;
        }
        for (place, values) in &self.when {
            let value = self.read(place, request, found)?;
            if !values.iter().any(|wanted| wanted.fits(&value)) {
                return None;
            }
        }
        let mut body = String::new();
        for piece in &self.body {
            match piece {
                Piece::Text(text) => body.push_str(text),
                Piece::Place(place) => body.push_str(&self.read(place, request, found)?),
            }
        }
        Some(Answer {
            status: self.status,
            content_type: self.content_type.clone(),
            body,
        })
    }

    fn read<H: HeaderLookup + ?Sized>(
        &self,
        place: &Place,
        request: &Incoming<'_, H>,
        found: Option<&expr::Request<'_, '_, H>>,
    ) -> Option<String> {
        let pair = |input: &[u8], name: &str| {
            form_urlencoded::parse(input)
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        match place {
            Place::Header(name) => header_text(request.headers, name).map(|text| text.into_owned()),
            Place::Query(name) => pair(request.query.as_bytes(), name),
            Place::Form(name) => {
                let kind = header_text(request.headers, "content-type")?;
                let is_form = kind
                    .to_ascii_lowercase()
                    .starts_with("application/x-www-form-urlencoded");
                is_form.then(|| pair(request.body, name)).flatten()
            }
            Place::Body(exprs) => exprs.eval(found?).map(|text| text.into_owned()),
        }
    }
}
