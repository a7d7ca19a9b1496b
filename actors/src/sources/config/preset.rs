//! The presets: texts in the form of `[[sources]]` itself, compiled in.

use std::time::Duration;

use serde::Deserialize;

use super::{AnswerConfig, AuthConfigs, HandshakeConfig, Invalid, RuleConfig, Unmapped, meant};

/// What a preset gives; in the form of `[[sources]]` itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preset {
    /// What to know about it: what it is for, where its key comes from, what is not confirmed.
    pub(super) about: String,
    pub(super) auth: AuthConfigs,
    pub(super) require_json: Option<bool>,
    #[serde(default, with = "humantime_serde::option")]
    pub(super) timeout: Option<Duration>,
    pub(super) each: Option<String>,
    pub(super) answer: Option<AnswerConfig>,
    #[serde(default)]
    pub(super) handshake: Vec<HandshakeConfig>,
    pub(super) unmapped: Option<Unmapped>,
    pub(super) invalid: Option<Invalid>,
    pub(super) map: Vec<RuleConfig>,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../presets/", $name, ".toml")))),*]
    };
}

const PRESETS: &[(&str, &str)] = presets![
    "adyen",
    "bigcommerce",
    "chargebee",
    "checkout",
    "github",
    "klarna",
    "paddle",
    "paypal",
    "razorpay",
    "shopify",
    "square",
    "standard",
    "stripe",
    "svix",
    "woocommerce",
];

/// The names of all presets, and what to know about each.
pub fn presets() -> impl Iterator<Item = (&'static str, Result<String, String>)> {
    PRESETS
        .iter()
        .map(|(name, _)| (*name, preset(name).map(|preset| preset.about)))
}

pub(super) fn preset(name: &str) -> Result<Preset, String> {
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        let meant = meant(name, known.iter().copied());
        return Err(format!(
            "names the preset {name:?}, which is unknown{meant}: there are {}",
            known.join(", ")
        ));
    };
    toml::from_str(text).map_err(|error| format!("has the preset {name:?}, which is broken: {error}"))
}
