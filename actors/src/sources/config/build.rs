//! From what is written to what works: preset and overrides come together, and are compiled.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::preset::{Preset, preset};
use super::{
    AnswerConfig, AuthConfig, AuthConfigs, Fault, HandshakeConfig, Invalid, RateLimit, RuleConfig, SecretConfig,
    SourceConfig, SourceConfigError, Under, Unmapped, meant,
};
use crate::sources::auth::{Auth, Certificates};
use crate::sources::mapping::Mapping;
use crate::sources::{Source, handshake};
use crate::stats::rfc3339;

/// A source as it works, after preset and overrides; secrets by reference only.
#[derive(Clone, Debug, Serialize)]
pub struct EffectiveSource {
    /// Its name.
    pub name: String,
    /// The preset it is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Where its webhooks are posted to.
    pub path: String,
    /// References to its secrets.
    pub secrets: Vec<ShownSecret>,
    /// The URL that is part of what is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Addresses that requests may come from; any where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<String>,
    /// Certificates that were given beforehand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<PathBuf>,
    /// Roots that a certificate's chain must lead to; those of the web where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_roots: Option<PathBuf>,
    /// Whether a request must say that it is JSON.
    pub require_json: bool,
    /// How many requests it may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How long the provider waits.
    #[serde(skip_serializing_if = "Option::is_none", with = "humantime_serde::option")]
    pub timeout: Option<Duration>,
    /// Where its several events are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// What becomes of an event that no rule wants.
    pub unmapped: Unmapped,
    /// What becomes of an event that lacks something.
    pub invalid: Invalid,
    /// The answer in the provider's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerConfig>,
    /// How requests are signed: any of these will do.
    pub auth: Vec<AuthConfig>,
    /// What is answered and is no event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handshake: Vec<HandshakeConfig>,
    /// The rules in the order in which they are tried.
    pub map: Vec<RuleConfig>,
}

/// A secret as it may be shown: where it is, never what it is.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum ShownSecret {
    /// Its reference.
    Reference(String),
    /// What else was said of it.
    Table {
        /// Its reference.
        from: String,
        /// What it is called in `/stats` and metrics.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// After this it vouches for nothing any more.
        #[serde(skip_serializing_if = "Option::is_none")]
        valid_until: Option<String>,
    },
}

impl ShownSecret {
    fn of(secret: &SecretConfig) -> Self {
        let from = secret.from.to_string();
        match (&secret.name, secret.valid_until) {
            (None, None) => ShownSecret::Reference(from),
            (name, valid_until) => ShownSecret::Table {
                from,
                name: name.clone(),
                valid_until: valid_until.map(rfc3339),
            },
        }
    }

    /// Its reference.
    pub fn reference(&self) -> &str {
        match self {
            ShownSecret::Reference(from) | ShownSecret::Table { from, .. } => from,
        }
    }
}

/// A rule, and where the user wrote or changed it: a list of the source, and the place in it.
struct Written {
    rule: RuleConfig,
    at: Option<(&'static str, usize)>,
    /// Whether it has the name of a preset's rule, or is one.
    of_preset: bool,
}

impl SourceConfig {
    /// A source of a preset, for tools that verify nothing.
    pub fn of_preset(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            preset: Some(name.to_owned()),
            path: None,
            secrets: Vec::new(),
            url: None,
            tolerance: None,
            auth: None,
            allow_from: Vec::new(),
            certificates: Vec::new(),
            certificate_roots: None,
            require_json: None,
            rate_limit: None,
            timeout: None,
            each: None,
            answer: None,
            handshake: Vec::new(),
            unmapped: None,
            invalid: None,
            map: Vec::new(),
            map_after: Vec::new(),
        }
    }

    /// Compiles the mapping without the secrets, for tools that verify nothing.
    pub fn compile_unverified(mut self) -> Result<Source, SourceConfigError> {
        self.auth = Some(AuthConfigs::One(Box::new(AuthConfig::None { anybody: None })));
        self.secrets = Vec::new();
        self.certificates = Vec::new();
        self.certificate_roots = None;
        self.compile()
    }

    /// What is wrong with the way its requests are signed, as far as it can be told without the secrets.
    pub fn check_auth(&self) -> Result<(), SourceConfigError> {
        let check = || {
            let given = self.given()?;
            let listed = matches!(self.auth, Some(AuthConfigs::Many(_)));
            Auth::check(
                &self.schemes(given.as_ref()),
                listed,
                self.secrets.len(),
                self.url.as_deref(),
            )
        };
        check().map_err(|fault| SourceConfigError::new(&self.name, fault))
    }

    /// The source after preset and overrides.
    pub fn effective(&self) -> Result<EffectiveSource, SourceConfigError> {
        let given = self
            .given()
            .map_err(|fault| SourceConfigError::new(&self.name, fault))?;
        let given = given.as_ref();
        Ok(EffectiveSource {
            name: self.name.clone(),
            preset: self.preset.clone(),
            path: self.path(),
            secrets: self.secrets.iter().map(ShownSecret::of).collect(),
            url: self.url.clone(),
            allow_from: self.allow_from.iter().map(ToString::to_string).collect(),
            certificates: self.certificates.clone(),
            certificate_roots: self.certificate_roots.clone(),
            rate_limit: self.rate_limit,
            require_json: self.require_json.or(given.and_then(|p| p.require_json)).unwrap_or(true),
            timeout: self.timeout.or(given.and_then(|p| p.timeout)),
            each: self.each.clone().or(given.and_then(|p| p.each.clone())),
            unmapped: self.unmapped.or(given.and_then(|p| p.unmapped)).unwrap_or_default(),
            invalid: self.invalid.or(given.and_then(|p| p.invalid)).unwrap_or_default(),
            answer: self.answer.clone().or(given.and_then(|p| p.answer.clone())),
            auth: self.schemes(given),
            handshake: self.handshakes(given),
            map: self.rules(given).into_iter().map(|written| written.rule).collect(),
        })
    }

    /// Resolves the secrets and compiles the mapping.
    pub fn compile(self) -> Result<Source, SourceConfigError> {
        let name = self.name.clone();
        self.build().map_err(|fault| SourceConfigError::new(&name, fault))
    }

    fn path(&self) -> String {
        self.path.clone().unwrap_or_else(|| format!("/webhooks/{}", self.name))
    }

    fn given(&self) -> Result<Option<Preset>, Fault> {
        self.preset.as_deref().map(preset).transpose().under("preset")
    }

    fn schemes(&self, given: Option<&Preset>) -> Vec<AuthConfig> {
        let auth = self.auth.as_ref().or(given.map(|p| &p.auth));
        let mut schemes = auth.map(|a| a.list().to_vec()).unwrap_or_default();
        if let Some(tolerance) = self.tolerance {
            schemes.iter_mut().for_each(|scheme| scheme.set_tolerance(tolerance));
        }
        schemes
    }

    fn handshakes(&self, given: Option<&Preset>) -> Vec<HandshakeConfig> {
        let of_preset = given.map(|p| p.handshake.clone()).unwrap_or_default();
        self.handshake.iter().cloned().chain(of_preset).collect()
    }

    /// The user's rules, the preset's with the user's changes, and the user's later ones.
    fn rules(&self, given: Option<&Preset>) -> Vec<Written> {
        let of_preset = given.map(|p| p.map.clone()).unwrap_or_default();
        let mut of_preset: Vec<Written> = of_preset
            .into_iter()
            .map(|rule| Written {
                rule,
                at: None,
                of_preset: true,
            })
            .collect();
        let own = |list, i, rule: &RuleConfig| Written {
            rule: rule.clone(),
            at: Some((list, i)),
            of_preset: false,
        };
        let mut rules = Vec::new();
        for (i, rule) in self.map.iter().enumerate() {
            let same = |w: &&mut Written| rule.name.is_some() && w.rule.name == rule.name;
            match of_preset.iter_mut().find(same) {
                Some(written) => {
                    written.rule = std::mem::take(&mut written.rule).changed_by(rule.clone());
                    written.at = Some(("map", i));
                }
                None => rules.push(own("map", i, rule)),
            }
        }
        rules.extend(of_preset);
        rules.extend((0..).zip(&self.map_after).map(|(i, rule)| own("map_after", i, rule)));
        rules
    }

    fn build(self) -> Result<Source, Fault> {
        let spelt = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if self.name.is_empty() || !self.name.bytes().all(spelt) {
            return Err("needs a name of letters, digits, '-', '_' and '.'").under("name");
        }
        let given = self.given()?;
        let given = given.as_ref();
        let path = self.path();
        if !path.starts_with('/') || path.contains(['?', '#']) {
            let why = format!("has the path {path:?}: it must begin with '/', and have neither '?' nor '#'");
            return Err(why).under("path");
        }
        if self.auth.is_none() && given.is_none() {
            return Err("says neither `preset` nor `auth`: how are its requests signed?".into());
        }
        let schemes = self.schemes(given);
        let rules = self.rules(given);
        if rules.is_empty() && given.is_none() {
            return Err("has no mapping: add [[sources.map]], or a preset".into());
        }
        let each = self.each.clone().or(given.and_then(|p| p.each.clone()));
        let certificates = Certificates::provisioned(&self.certificates, self.certificate_roots.as_deref())?;
        let mut mapping = Mapping::new(each.as_deref()).under("each")?;
        for (i, written) in rules.iter().enumerate() {
            let name = written.rule.name.clone().unwrap_or_else(|| format!("rule {}", i + 1));
            let added = mapping.add(&written.rule, name);
            added.map_err(|fault| place(fault, written, given))?;
        }
        let answer = self.answer.clone().or_else(|| given?.answer.clone());
        answer.as_ref().map(handshake::valid).transpose()?;
        let handshakes = handshake::compile(&self.handshakes(given), mapping.trees())?;
        let auth = Auth::compile(
            &schemes,
            matches!(self.auth, Some(AuthConfigs::Many(_))),
            &self.secrets,
            self.url.as_deref(),
            &certificates,
            self.allow_from,
            &mut mapping.trees().item,
        )?;
        Ok(Source {
            preset: self.preset,
            auth,
            certificates,
            mapping,
            handshakes,
            path,
            wants_json: self.require_json.or(given.and_then(|p| p.require_json)).unwrap_or(true),
            rate_limit: self.rate_limit,
            timeout: self.timeout.or(given.and_then(|p| p.timeout)),
            answer,
            unmapped: self.unmapped.or(given.and_then(|p| p.unmapped)).unwrap_or_default(),
            invalid: self.invalid.or(given.and_then(|p| p.invalid)).unwrap_or_default(),
            name: self.name,
        })
    }
}

/// Where a mistake in a rule stands in the source; and, where a rule is not complete by itself, which one of the preset's it may
/// have been meant to change.
fn place(mut fault: Fault, written: &Written, given: Option<&Preset>) -> Fault {
    if let (true, false, Some(name), Some(given)) = (
        fault.path.is_empty(),
        written.of_preset,
        &written.rule.name,
        given.filter(|p| !p.map.is_empty()),
    ) {
        let known: Vec<&str> = given.map.iter().filter_map(|rule| rule.name.as_deref()).collect();
        fault.why = if known.contains(&name.as_str()) {
            format!(
                "{}; to change the preset's rule {name:?}, write it under [[sources.map]]",
                fault.why
            )
        } else {
            let meant = meant(name, known.iter().copied());
            let known = known.join(", ");
            format!(
                "{}; no rule of the preset is called {name:?}{meant}: there are {known}",
                fault.why
            )
        };
    }
    if let Some((list, i)) = written.at {
        fault.path.splice(0..0, [list.to_owned(), i.to_string()]);
    }
    fault
}
