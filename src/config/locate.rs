//! Where a key stands in config.toml: errors name line and column.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Line and column, from 1, of what `path` leads to; of the key `unknown` in it, where there is one.
pub fn locate(text: &str, path: &[String], unknown: Option<&str>) -> Option<(usize, usize)> {
    let root = DeTable::parse(text).ok()?;
    let at = offset(root.get_ref(), path, unknown)?;
    Some(position(text, at))
}

/// Line and column, from 1, of the byte at `at`.
pub fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

fn offset(table: &DeTable<'_>, path: &[String], unknown: Option<&str>) -> Option<usize> {
    let key_at = |name: &str| table.iter().find(|(key, _)| key.get_ref() == name);
    match path.split_first() {
        None => key_at(unknown?).map(|(key, _)| key.span().start),
        Some((name, rest)) => {
            let (key, value) = key_at(name)?;
            below(value, rest, unknown).or(Some(key.span().start))
        }
    }
}

fn below(value: &Spanned<DeValue<'_>>, path: &[String], unknown: Option<&str>) -> Option<usize> {
    match (value.get_ref(), path.split_first()) {
        (DeValue::Table(table), _) => offset(table, path, unknown),
        (DeValue::Array(values), Some((index, rest))) => {
            let inner = values.get(index.parse::<usize>().ok()?)?;
            below(inner, rest, unknown).or(Some(inner.span().start))
        }
        _ => Some(value.span().start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_values_and_strangers_are_found() {
        let text = "[kafka]\nbroker = 1\n\n[[sources]]\nname = \"a\"\n[[sources]]\n  nam = \"b\"\n";
        let path = |parts: &[&str]| parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        assert_eq!(locate(text, &path(&["kafka"]), Some("broker")), Some((2, 1)));
        assert_eq!(locate(text, &path(&["kafka", "broker"]), None), Some((2, 10)));
        assert_eq!(locate(text, &path(&["sources", "1"]), Some("nam")), Some((7, 3)));
        assert_eq!(locate(text, &path(&["sources", "0", "name"]), None), Some((5, 8)));
        assert_eq!(locate(text, &path(&["nothing"]), None), None);
    }
}
