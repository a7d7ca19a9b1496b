//! One Kafka record as plain data.

use std::ops::Range;

/// A record: its key, value and headers in a single buffer, so that a row costs one allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset in its partition.
    pub offset: i64,
    /// Its time stamp in ms since 1970, where it has one.
    pub timestamp_ms: Option<i64>,
    buffer: Vec<u8>,
    value: Option<Span>,
    key: Option<Span>,
    headers: Span,
}

/// A part of a record's buffer; records are far smaller than 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let bound = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            start: bound(start),
            end: bound(end),
        }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Length that stands for a header without a value.
const NO_VALUE: u32 = u32::MAX;

impl Record {
    /// Copies a record.
    pub fn new<'a>(
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Self {
        let mut buffer = Vec::with_capacity(value.map_or(0, <[u8]>::len) + key.map_or(0, <[u8]>::len) + 128);
        let mut put = |bytes: &[u8]| {
            let start = buffer.len();
            buffer.extend_from_slice(bytes);
            Span::new(start, buffer.len())
        };
        let value = value.map(&mut put);
        let key = key.map(&mut put);
        let start = buffer.len();
        for (name, value) in headers {
            put_chunk(&mut buffer, Some(name.as_bytes()));
            put_chunk(&mut buffer, value);
        }
        let headers = Span::new(start, buffer.len());
        Self {
            offset,
            timestamp_ms,
            buffer,
            value,
            key,
            headers,
        }
    }

    /// The key's bytes.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|span| &self.buffer[span.range()])
    }

    /// The value's bytes.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.map(|span| &self.buffer[span.range()])
    }

    /// The headers in their order; names may repeat.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let mut rest = &self.buffer[self.headers.range()];
        std::iter::from_fn(move || {
            let name = take_chunk(&mut rest)??;
            let value = take_chunk(&mut rest)?;
            // A name was a &str when it was put in.
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }

    /// Bytes it occupies.
    pub fn byte_len(&self) -> usize {
        self.buffer.len()
    }

    /// Where `part`, a piece of this record's value, lies in the buffer.
    pub(crate) fn span_of(&self, part: &str) -> Span {
        let start = part.as_ptr() as usize - self.buffer.as_ptr() as usize;
        Span::new(start, start + part.len())
    }

    /// Keeps a text that is not a piece of the value as it stands there, because it was escaped.
    pub(crate) fn keep(&mut self, text: &str) -> Span {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(text.as_bytes());
        Span::new(start, self.buffer.len())
    }

    /// The text at a span of this record.
    pub(crate) fn text(&self, span: Span) -> &str {
        // Spans are made of strings only.
        std::str::from_utf8(&self.buffer[span.range()]).unwrap_or_default()
    }

    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        &self.buffer[span.range()]
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("offset", &self.offset)
            .field("bytes", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

fn put_chunk(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(NO_VALUE, |b| u32::try_from(b.len()).unwrap_or(NO_VALUE - 1));
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(bytes.unwrap_or_default());
}

/// `None` at the end, `Some(None)` for a missing value.
fn take_chunk<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == NO_VALUE {
        *rest = after;
        return Some(None);
    }
    let (bytes, after) = after.split_at_checked(length as usize)?;
    *rest = after;
    Some(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back_byte_for_byte() {
        let headers = [
            ("a", Some(&b"1"[..])),
            ("b", None),
            ("a", Some(&b"\xff\x00"[..])),
            ("", Some(&b""[..])),
        ];
        let record = Record::new(7, Some(9), Some(b"k"), Some(b"\x00v"), headers.into_iter());
        assert_eq!(record.key(), Some(&b"k"[..]));
        assert_eq!(record.value(), Some(&b"\x00v"[..]));
        assert_eq!(record.headers().collect::<Vec<_>>(), headers);
        assert_eq!(
            record.byte_len(),
            3 + 8 * 4 + 3 + 3,
            "value and key, eight lengths, names, values"
        );
        let empty = Record::new(7, None, None, None, std::iter::empty());
        assert_eq!((empty.key(), empty.value(), empty.headers().count()), (None, None, 0));
    }
}
