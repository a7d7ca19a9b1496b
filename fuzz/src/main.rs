//! Fuzz targets: one program, and `HOOKMILL_FUZZ` says which target it runs; see `dev/fuzz`.
//!
//! A target does more than not to panic: it states what must be true of any input.

#![no_main]

mod admin;
mod config;
mod dead_letter;
mod event;
mod http;
mod mapping;
mod server;
mod signature;
mod sources;

use std::sync::LazyLock;

/// What a target does with an input.
type Run = fn(&[u8]);

const TARGETS: [(&str, Run); 7] = [
    ("http", http::run),
    ("signature", signature::run),
    ("mapping", mapping::run),
    ("event", event::run),
    ("config", config::run),
    ("admin", admin::run),
    ("dead_letter", dead_letter::run),
];

static TARGET: LazyLock<Run> = LazyLock::new(|| {
    let wanted = std::env::var("HOOKMILL_FUZZ").unwrap_or_default();
    match TARGETS.iter().find(|(name, _)| *name == wanted) {
        Some((_, run)) => *run,
        None => panic!(
            "HOOKMILL_FUZZ={wanted:?} is no target: use dev/fuzz, or one of {:?}",
            TARGETS.map(|(name, _)| name)
        ),
    }
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (*TARGET)(input);
});
