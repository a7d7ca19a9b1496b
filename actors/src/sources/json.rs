//! One strict walk over a JSON text: what is verified is what is mapped, so a text that programs could read in different
//! ways is refused as a whole. That is any key that stands twice in one object, also where no rule looks; a byte order
//! mark; a number that is infinite in a double; and nesting that a recursive reader could not follow. Everything else is
//! RFC 8259. The raw text of every wanted place is collected on the way.

use std::borrow::Cow;
use std::collections::HashSet;

use super::tree::Node;

/// Arrays and objects in each other. serde_json reads 127, and the event around a body is one of them; Postgres' own parser
/// goes much deeper.
const DEEPEST: usize = 126;

/// Keys of one object that are compared one by one; more of them are hashed.
const FEW_KEYS: usize = 32;

/// Longest digits without an exponent that are certain to be finite in a double.
const SURELY_FINITE: usize = 300;

/// Why a text is not taken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    what: Cow<'static, str>,
    line: usize,
    column: usize,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at line {} column {}", self.what, self.line, self.column)
    }
}

/// Walks over all of `text`, and puts the raw text of each place under `root` into its slot of `found`.
pub(super) fn scan<'a>(text: &'a str, root: &Node, found: &mut [Option<&'a str>]) -> Result<(), Wrong> {
    let mut scanner = Scanner {
        text,
        at: 0,
        depth: 0,
        // Room for most bodies' keys at once: growing cost up to three allocations.
        keys: Vec::with_capacity(FEW_KEYS),
        found,
    };
    if text.starts_with('\u{feff}') {
        return Err(scanner.wrong("a byte order mark"));
    }
    scanner.value(Some(root))?;
    scanner.space();
    match scanner.peek() {
        None => Ok(()),
        Some(_) => Err(scanner.wrong("something after the end of the value")),
    }
}

struct Scanner<'a, 'f> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// The keys of the objects around this place, innermost last.
    keys: Vec<Cow<'a, str>>,
    found: &'f mut [Option<&'a str>],
}

/// A string's content between its quotes.
struct Content<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Scanner<'a, '_> {
    fn value(&mut self, node: Option<&Node>) -> Result<(), Wrong> {
        self.space();
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.nested(|s| s.object(node))?,
            Some(b'[') => self.nested(|s| s.array(node))?,
            Some(b'"') => {
                self.string()?;
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.literal("true")?,
            Some(b'f') => self.literal("false")?,
            Some(b'n') => self.literal("null")?,
            Some(_) => return Err(self.wrong("no value")),
            None => return Err(self.wrong("an end where a value should be")),
        }
        if let Some(slot) = node.and_then(|node| node.slot)
            && let Some(place) = self.found.get_mut(slot)
        {
            *place = self.text.get(start..self.at);
        }
        Ok(())
    }

    fn nested(&mut self, inside: impl FnOnce(&mut Self) -> Result<(), Wrong>) -> Result<(), Wrong> {
        if self.depth == DEEPEST {
            return Err(self.wrong(format!("more than {DEEPEST} arrays and objects in each other")));
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        inside(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self, node: Option<&Node>) -> Result<(), Wrong> {
        if self.takes(b'}') {
            return Ok(());
        }
        let base = self.keys.len();
        let (mut seen, mut many) = (0_u64, None);
        loop {
            let start = self.at;
            let key = self.key()?;
            if !self.is_new(&key, base, &mut seen, &mut many) {
                self.at = start;
                return Err(self.wrong(format!("the key {:?} a second time", shortened(&key))));
            }
            let child = node.and_then(|node| node.child(&key));
            match &mut many {
                Some(many) => {
                    many.insert(key);
                }
                None => self.keys.push(key),
            }
            self.space();
            if !self.takes(b':') {
                return Err(self.wrong("no colon after a key"));
            }
            self.value(child)?;
            self.space();
            if self.takes(b'}') {
                self.keys.truncate(base);
                return Ok(());
            }
            if !self.takes(b',') {
                return Err(self.wrong("neither a comma nor the end of an object"));
            }
            self.space();
        }
    }

    /// Whether an object has no such key yet. `seen` holds a bit for each key there is, so that most are told at once.
    fn is_new(&self, key: &str, base: usize, seen: &mut u64, many: &mut Option<HashSet<Cow<'a, str>>>) -> bool {
        let here = self.keys.get(base..).unwrap_or_default();
        if many.is_none() && here.len() == FEW_KEYS {
            *many = Some(here.iter().cloned().collect());
        }
        if let Some(many) = many {
            return !many.contains(key);
        }
        let bytes = key.as_bytes();
        let ends = [bytes.first(), bytes.get(bytes.len() / 2), bytes.last()];
        let mixed = ends.iter().flatten().fold(bytes.len(), |sum, b| {
            sum.wrapping_mul(31).wrapping_add(usize::from(**b))
        });
        let bit = 1_u64 << (mixed % 64);
        let maybe = *seen & bit != 0;
        *seen |= bit;
        !(maybe && here.iter().any(|known| known == key))
    }

    fn key(&mut self) -> Result<Cow<'a, str>, Wrong> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("no key"));
        }
        let start = self.at;
        let Content { raw, escaped } = self.string()?;
        if !escaped {
            return Ok(Cow::Borrowed(raw));
        }
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(quoted)
            .map(Cow::Owned)
            .map_err(|_| self.wrong("a key that is no text"))
    }

    fn array(&mut self, node: Option<&Node>) -> Result<(), Wrong> {
        if self.takes(b']') {
            return Ok(());
        }
        for index in 0.. {
            self.value(node.and_then(|node| node.element(index)))?;
            self.space();
            if self.takes(b']') {
                break;
            }
            if !self.takes(b',') {
                return Err(self.wrong("neither a comma nor the end of an array"));
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Content<'a>, Wrong> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            self.at += plain(rest);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.wrong("a control character in a string")),
                None => return Err(self.wrong("a string without an end")),
            }
        }
        let raw = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(Content { raw, escaped })
    }

    fn escape(&mut self) -> Result<(), Wrong> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                let digits = self.text.as_bytes().get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.wrong("an escape that is none"));
                }
                self.at += 5;
                Ok(())
            }
            _ => Err(self.wrong("an escape that is none")),
        }
    }

    fn number(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        self.takes(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.wrong("a number without digits")),
        }
        if self.takes(b'.') {
            self.some_digits()?;
        }
        let mut exponent = false;
        if self.takes(b'e') || self.takes(b'E') {
            exponent = true;
            if !self.takes(b'-') {
                self.takes(b'+');
            }
            self.some_digits()?;
        }
        if exponent || self.at - start > SURELY_FINITE {
            let text = self.text.get(start..self.at).unwrap_or_default();
            if !text.parse::<f64>().is_ok_and(f64::is_finite) {
                self.at = start;
                return Err(self.wrong("a number that is too large"));
            }
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Wrong> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.wrong("a number without digits"));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Wrong> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.wrong("no value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn wrong(&self, what: impl Into<Cow<'static, str>>) -> Wrong {
        let before = self.text.as_bytes().get(..self.at).unwrap_or_default();
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Wrong {
            what: what.into(),
            line: before.iter().filter(|b| **b == b'\n').count() + 1,
            column: self.at - line_start + 1,
        }
    }
}

/// How many bytes precede the first quote, backslash or control character, all of them if there is none: eight are looked at together
/// (<https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>).
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        // In each of the three a byte's high bit says that it is one. A borrow can only set bits of bytes after one that is, and only
        // the first counts.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = quote.wrapping_sub(ONES) & !quote;
        let backslash = backslash.wrapping_sub(ONES) & !backslash;
        let stops = (control | quote | backslash) & HIGH;
        if stops != 0 {
            return i * 8 + stops.trailing_zeros() as usize / 8;
        }
    }
    let stops = |b: &u8| matches!(b, 0..0x20 | b'"' | b'\\');
    words.len() * 8 + rest.iter().position(stops).unwrap_or(rest.len())
}

/// A key as it may stand in a message.
fn shortened(key: &str) -> &str {
    const LONGEST: usize = 64;
    let end = (0..=LONGEST.min(key.len())).rev().find(|at| key.is_char_boundary(*at));
    key.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::plain;

    /// Every byte at every place of a text of several words and a rest, alone, and before each other kind of stop.
    #[test]
    fn a_run_ends_at_the_first_byte_that_ends_it() {
        let ends = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    for after in [b'a', 0xff, b'"', b'\\', 0, 0x1f, b'#', b'!'] {
                        let mut text = vec![b'z'; length];
                        text[at] = byte;
                        text[at + 1..].fill(after);
                        let first = text.iter().position(ends).unwrap_or(length);
                        assert_eq!(plain(&text), first, "{text:?}");
                    }
                }
            }
        }
    }
}
