//! Times as providers write them.

use chrono::{DateTime, Datelike, NaiveDateTime, Utc};

use super::config::TimeUnit;

/// Reads a time. Only years 1 to 9999 can be written in RFC 3339, so others are refused.
pub(super) fn parse(text: &str, unit: TimeUnit) -> Result<DateTime<Utc>, String> {
    let at = match unit {
        TimeUnit::Unix => unix(text, 0),
        TimeUnit::UnixMs => unix(text, 3),
        TimeUnit::Rfc3339 => DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc()),
        TimeUnit::Rfc3339Utc => DateTime::parse_from_rfc3339(text)
            .map(|at| at.to_utc())
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|at| at.and_utc()))
            .ok(),
    };
    let at = at.ok_or_else(|| format!("is no time in {}", describe(unit)))?;
    if (1..=9999).contains(&at.year()) {
        Ok(at)
    } else {
        Err("is outside of the years 1 to 9999".to_owned())
    }
}

/// A decimal number of seconds times ten to the power of `scale`, since 1970.
fn unix(text: &str, scale: usize) -> Option<DateTime<Utc>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) || text.ends_with('.') {
        return None;
    }
    // Microseconds are what the tables hold; finer digits say nothing.
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(6 - scale).collect();
    DateTime::from_timestamp_micros(format!("{whole}{digits}").parse().ok()?)
}

fn describe(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Unix => "seconds since 1970",
        TimeUnit::UnixMs => "milliseconds since 1970",
        TimeUnit::Rfc3339 | TimeUnit::Rfc3339Utc => "RFC 3339",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_reads_its_own_and_nothing_else() {
        let at = |text: &str, unit| parse(text, unit).map(|at| at.timestamp_micros());
        assert_eq!(at("1760000000", TimeUnit::Unix), Ok(1_760_000_000_000_000));
        assert_eq!(at("1760000000.5", TimeUnit::Unix), Ok(1_760_000_000_500_000));
        assert_eq!(at("1760000000123", TimeUnit::UnixMs), Ok(1_760_000_000_123_000));
        assert_eq!(
            at("2025-10-09T10:53:20+02:00", TimeUnit::Rfc3339),
            Ok(1_760_000_000_000_000)
        );
        assert_eq!(
            at("2025-10-09T08:53:20", TimeUnit::Rfc3339Utc),
            Ok(1_760_000_000_000_000)
        );
        for (text, unit) in [
            ("2025-10-09T08:53:20", TimeUnit::Rfc3339),
            ("soon", TimeUnit::Unix),
            ("1.", TimeUnit::Unix),
            ("", TimeUnit::Unix),
            ("99999999999999", TimeUnit::Unix),
            ("1760000000", TimeUnit::Rfc3339),
        ] {
            let refused = at(text, unit).expect_err(text);
            assert_eq!(refused, format!("is no time in {}", describe(unit)));
        }
        let names = [TimeUnit::Unix, TimeUnit::UnixMs, TimeUnit::Rfc3339].map(describe);
        assert_eq!(names, ["seconds since 1970", "milliseconds since 1970", "RFC 3339"]);
    }
}
