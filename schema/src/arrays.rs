//! Binding a column of many rows as one array, written straight from the rows into the message to the server.

use std::error::Error;
use std::fmt;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type};

/// µs from 1970 to 2000, where Postgres' time stamps begin.
const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// One column of `rows` as an array of `element`s.
pub(crate) struct Column<'a, R> {
    rows: &'a [R],
    element: Type,
    put: fn(&R, &mut BytesMut) -> IsNull,
}

impl<'a, R> Column<'a, R> {
    /// A column whose value `put` writes in the element's binary form.
    pub(crate) fn new(rows: &'a [R], element: Type, put: fn(&R, &mut BytesMut) -> IsNull) -> Self {
        Self { rows, element, put }
    }
}

impl<R> fmt::Debug for Column<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values of {}", self.rows.len(), self.element)
    }
}

impl<R> ToSql for Column<'_, R> {
    /// The layout is that of Postgres' `array_recv`: dimensions, whether there are nulls, the element's type, then for
    /// the one dimension its length and lower bound, then each element with its length, -1 for a null.
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if self.rows.is_empty() {
            out.put_i32(0);
            out.put_i32(0);
            out.put_u32(self.element.oid());
            return Ok(IsNull::No);
        }
        out.put_i32(1);
        out.put_i32(1);
        out.put_u32(self.element.oid());
        out.put_i32(i32::try_from(self.rows.len())?);
        out.put_i32(1);
        for row in self.rows {
            put_sized(out, |out| (self.put)(row, out))?;
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A value after its length, which is -1 for a null: so stand an array's elements, and a row's fields in COPY.
pub(crate) fn put_sized(
    out: &mut BytesMut,
    put: impl FnOnce(&mut BytesMut) -> IsNull,
) -> Result<(), std::num::TryFromIntError> {
    let at = out.len();
    out.put_i32(0);
    let length = match put(out) {
        IsNull::Yes => -1,
        IsNull::No => i32::try_from(out.len() - at - 4)?,
    };
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

pub(crate) fn put_bytes(value: Option<&[u8]>, out: &mut BytesMut) -> IsNull {
    match value {
        Some(bytes) => {
            out.put_slice(bytes);
            IsNull::No
        }
        None => IsNull::Yes,
    }
}

pub(crate) fn put_text(value: Option<&str>, out: &mut BytesMut) -> IsNull {
    put_bytes(value.map(str::as_bytes), out)
}

pub(crate) fn put_i64(value: Option<i64>, out: &mut BytesMut) -> IsNull {
    match value {
        Some(value) => {
            out.put_i64(value);
            IsNull::No
        }
        None => IsNull::Yes,
    }
}

pub(crate) fn put_i32(value: i32, out: &mut BytesMut) -> IsNull {
    out.put_i32(value);
    IsNull::No
}

pub(crate) fn put_i16(value: i16, out: &mut BytesMut) -> IsNull {
    out.put_i16(value);
    IsNull::No
}

/// A time in µs since 1970.
pub(crate) fn put_time(us: i64, out: &mut BytesMut) -> IsNull {
    out.put_i64(us.saturating_sub(EPOCH_2000_US));
    IsNull::No
}
