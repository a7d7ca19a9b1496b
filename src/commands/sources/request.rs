//! A request given on the command line.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use hookmill_actors::sources::{HeaderLookup, Lookup, Method};

/// A request as it would come.
#[derive(clap::Args)]
pub struct RequestArgs {
    /// The file with its body, byte for byte; `-` for standard input.
    #[arg(long)]
    body: PathBuf,
    /// One of its headers, as 'Name: value'; as often as need be.
    #[arg(long = "header", short = 'H', value_parser = header)]
    header: Vec<(String, String)>,
    /// When it came: RFC 3339, or seconds since 1970; now unless said. A recorded request is only fresh at its own time.
    #[arg(long)]
    at: Option<String>,
    /// What stands behind the `?` of its target.
    #[arg(long, default_value = "")]
    query: String,
    /// Its method.
    #[arg(long, default_value = "POST", value_parser = method)]
    method: Method,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("{text:?} is no header: write it like 'Name: value'"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn method(text: &str) -> Result<Method, String> {
    match text.to_ascii_uppercase().as_str() {
        "POST" => Ok(Method::Post),
        "GET" => Ok(Method::Get),
        _ => Err("use POST or GET".to_owned()),
    }
}

impl RequestArgs {
    pub(super) fn body(&self) -> Result<Vec<u8>> {
        if self.body.as_os_str() == "-" {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body)?;
            return Ok(body);
        }
        std::fs::read(&self.body).with_context(|| format!("cannot read {}", self.body.display()))
    }

    pub(super) fn body_path(&self) -> String {
        self.body.display().to_string()
    }

    pub(super) fn headers(&self) -> Headers<'_> {
        Headers(self.header.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect())
    }

    pub(super) fn at(&self) -> Result<DateTime<Utc>> {
        self.at.as_deref().map_or_else(|| Ok(Utc::now()), super::time)
    }

    pub(super) fn query(&self) -> &str {
        &self.query
    }

    pub(super) fn method(&self) -> Method {
        self.method
    }
}

/// Headers by name.
pub(super) struct Headers<'a>(pub(super) Vec<(&'a str, &'a str)>);

impl Headers<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &(&str, &str)> {
        self.0.iter()
    }
}

impl HeaderLookup for Headers<'_> {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        self.0[..].lookup(name)
    }
}
