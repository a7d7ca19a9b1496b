//! Amounts: always an integer of the currency's minor unit, by ISO 4217; what does not fit exactly is refused, never rounded.

use iso_currency::Currency;

use super::config::MoneyUnit;

/// Upper-cases a currency's code.
pub(super) fn currency(text: &str) -> Result<String, String> {
    if text.len() == 3 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err("is no ISO 4217 code of three letters".to_owned())
    }
}

/// The amount in minor units of `currency`.
pub(super) fn minor(text: &str, unit: MoneyUnit, currency: &str) -> Result<i64, String> {
    match unit {
        MoneyUnit::Minor => text.parse().map_err(|_| "is no integer of 64 bits".to_owned()),
        MoneyUnit::Major => {
            let known = Currency::from_code(currency)
                .ok_or_else(|| format!("cannot be converted: {currency} is no currency of ISO 4217"))?;
            let digits = known
                .exponent()
                .ok_or_else(|| format!("cannot be converted: {currency} has no minor unit"))?;
            from_major(text, usize::from(digits))
        }
    }
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
            ("92233720368547758.08", "USD"),
            ("1", "ZZZ"),
        ] {
            assert!(minor(text, MoneyUnit::Major, code).is_err(), "{text} {code}");
        }
    }

    #[test]
    fn minors_are_integers() {
        assert_eq!(minor("1010", MoneyUnit::Minor, "USD"), Ok(1010));
        for text in ["10.5", "1e3", "9223372036854775808", ""] {
            assert!(minor(text, MoneyUnit::Minor, "USD").is_err(), "{text}");
        }
        assert_eq!(currency("usd"), Ok("USD".to_owned()));
        assert!(currency("US").is_err() && currency("U$D").is_err());
    }
}
