//! Amounts: always an integer of the currency's minor unit, by ISO 4217; what does not fit exactly is refused, never rounded.

use std::collections::BTreeMap;

use iso_currency::Currency;

use super::config::MoneyUnit;

/// Most digits behind the point that any currency has.
const MOST_DIGITS: u8 = 4;

/// What a provider's amounts count.
#[derive(Debug)]
pub(super) struct Scale {
    unit: MoneyUnit,
    /// The digits behind the point that the provider's minor unit stands for, where they are not those of ISO 4217.
    digits: Vec<(String, u8)>,
}

impl Scale {
    pub(super) fn compile(unit: MoneyUnit, digits: &BTreeMap<String, u8>) -> Result<Self, String> {
        if unit == MoneyUnit::Major && !digits.is_empty() {
            return Err("says `digits`, which are of minor units, and the amount is in major ones".to_owned());
        }
        for (code, count) in digits {
            exponent(code)?;
            if *count > MOST_DIGITS {
                return Err(format!(
                    "says that {code} has {count} digits: there are at most {MOST_DIGITS}"
                ));
            }
        }
        Ok(Self {
            unit,
            digits: digits.iter().map(|(code, count)| (code.clone(), *count)).collect(),
        })
    }

    /// The amount in the minor unit that ISO 4217 gives `currency`.
    pub(super) fn minor(&self, text: &str, currency: &str) -> Result<i64, String> {
        match self.unit {
            MoneyUnit::Minor => {
                let amount = integer(text)?;
                match self.digits.iter().find(|(code, _)| code == currency) {
                    Some((_, counted)) => rescaled(amount, *counted, currency),
                    None => Ok(amount),
                }
            }
            MoneyUnit::Major => from_major(text, usize::from(exponent(currency)?)),
        }
    }
}

fn integer(text: &str) -> Result<i64, String> {
    let plain = text
        .strip_prefix('-')
        .unwrap_or(text)
        .bytes()
        .all(|b| b.is_ascii_digit());
    let parsed = plain.then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| "is no integer of 64 bits".to_owned())
}

/// From a minor unit of `counted` digits to that of ISO 4217.
fn rescaled(amount: i64, counted: u8, currency: &str) -> Result<i64, String> {
    let digits = exponent(currency)?;
    let factor = 10_i64.pow(u32::from(counted.abs_diff(digits)));
    if counted <= digits {
        let more = amount.checked_mul(factor);
        return more.ok_or_else(|| "is larger than 64 bits".to_owned());
    }
    if amount % factor == 0 {
        Ok(amount / factor)
    } else {
        Err(format!("has more than the {digits} fraction digits of its currency"))
    }
}

/// Upper-cases a currency's code.
pub(super) fn currency(text: &str) -> Result<String, String> {
    if text.len() == 3 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err("is no ISO 4217 code of three letters".to_owned())
    }
}

fn exponent(currency: &str) -> Result<u8, String> {
    let known = Currency::from_code(currency)
        .ok_or_else(|| format!("cannot be converted: {currency} is no currency of ISO 4217"))?;
    let digits = known.exponent().and_then(|digits| u8::try_from(digits).ok());
    digits.ok_or_else(|| format!("cannot be converted: {currency} has no minor unit"))
}

fn from_major(text: &str, digits: usize) -> Result<i64, String> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let is_number = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || rest.ends_with('.') {
        return Err("is no decimal number".to_owned());
    }
    let (kept, excess) = fraction.split_at(digits.min(fraction.len()));
    if excess.bytes().any(|b| b != b'0') {
        return Err(format!("has more than the {digits} fraction digits of its currency"));
    }
    let sign = if negative { "-" } else { "" };
    let padding = "0".repeat(digits - kept.len());
    format!("{sign}{whole}{kept}{padding}")
        .parse()
        .map_err(|_| "is larger than 64 bits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(text: &str, unit: MoneyUnit, currency: &str) -> Result<i64, String> {
        Scale::compile(unit, &BTreeMap::new())
            .expect("it compiles")
            .minor(text, currency)
    }

    #[test]
    fn a_minor_unit_that_is_not_isos_is_rescaled_exactly_or_refused() {
        let digits = |pairs: &[(&str, u8)]| pairs.iter().map(|(code, n)| ((*code).to_owned(), *n)).collect();
        let scale =
            Scale::compile(MoneyUnit::Minor, &digits(&[("ISK", 2), ("MGA", 0), ("CLF", 0)])).expect("it compiles");
        for (text, code, stored) in [
            ("500", "ISK", Ok(5)),
            ("-500", "ISK", Ok(-5)),
            ("7", "MGA", Ok(700)),
            ("1", "CLF", Ok(10_000)),
            ("550", "USD", Ok(550)),
        ] {
            assert_eq!(scale.minor(text, code), stored, "{text} {code}");
        }
        assert!(scale.minor("501", "ISK").is_err());
        assert!(scale.minor("9223372036854775807", "MGA").is_err());
        assert!(Scale::compile(MoneyUnit::Minor, &digits(&[("XYZ", 2)])).is_err());
        assert!(Scale::compile(MoneyUnit::Minor, &digits(&[("CLF", 4)])).is_ok());
        assert!(Scale::compile(MoneyUnit::Minor, &digits(&[("CLF", 5)])).is_err());
        assert!(Scale::compile(MoneyUnit::Major, &digits(&[("ISK", 2)])).is_err());
    }

    #[test]
    fn majors_convert_exactly_or_not_at_all() {
        for (text, code, minor_units) in [
            ("10.10", "USD", 1010),
            ("10", "USD", 1000),
            ("0.1", "USD", 10),
            ("-1.23", "EUR", -123),
            ("199.000", "USD", 19900),
            ("1500", "JPY", 1500),
            ("1.234", "KWD", 1234),
            ("90071992547409.93", "USD", 9_007_199_254_740_993),
        ] {
            assert_eq!(minor(text, MoneyUnit::Major, code), Ok(minor_units), "{text} {code}");
        }
        for (text, code) in [
            ("1.001", "USD"),
            ("1.5", "JPY"),
            ("1e3", "USD"),
            ("", "USD"),
            (".5", "USD"),
            ("1.", "USD"),
            ("1,5", "USD"),
            ("--1", "USD"),
            ("+5", "USD"),
            ("-+5", "USD"),
            ("92233720368547758.08", "USD"),
            ("1", "ZZZ"),
        ] {
            assert!(minor(text, MoneyUnit::Major, code).is_err(), "{text} {code}");
        }
    }

    #[test]
    fn minors_are_integers() {
        assert_eq!(minor("1010", MoneyUnit::Minor, "USD"), Ok(1010));
        for text in ["10.5", "1e3", "9223372036854775808", "", "+5", "-", " 5"] {
            assert!(minor(text, MoneyUnit::Minor, "USD").is_err(), "{text}");
        }
        assert_eq!(currency("usd"), Ok("USD".to_owned()));
        assert!(currency("US").is_err() && currency("U$D").is_err());
    }
}
