//! Bounds of settings: a start with one that could only refuse everything, or overflow, is refused by its key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

/// That `key` is a time within these bounds.
pub fn time(key: &str, value: Duration, bounds: RangeInclusive<Duration>) -> Result<(), String> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let (from, to) = bounds.into_inner();
    Err(format!(
        "{key} = {value:?} is not between {from:?} and {to:?}: set it within"
    ))
}

/// That `key` is a number within these bounds.
pub fn number<N: PartialOrd + Display>(key: &str, value: N, bounds: RangeInclusive<N>) -> Result<(), String> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let (from, to) = bounds.into_inner();
    Err(format!("{key} = {value} is not between {from} and {to}: set it within"))
}
