//! The partitions of the event tables: one a month, bounds in UTC.

use chrono::{DateTime, Datelike, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use crate::error::ShardError;
use crate::row::Table;

/// A month of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: i32,
    month: u32,
}

impl Month {
    /// The month of a time in µs since 1970.
    pub fn of_us(us: i64) -> Self {
        Self::of(DateTime::from_timestamp_micros(us).unwrap_or_default())
    }

    /// The month of a time.
    pub fn of(at: DateTime<Utc>) -> Self {
        Self {
            year: at.year(),
            month: at.month(),
        }
    }

    /// The month after.
    pub fn next(self) -> Self {
        if self.month == 12 {
            Self {
                year: self.year + 1,
                month: 1,
            }
        } else {
            Self {
                month: self.month + 1,
                ..self
            }
        }
    }

    /// The month before.
    pub fn previous(self) -> Self {
        if self.month == 1 {
            Self {
                year: self.year - 1,
                month: 12,
            }
        } else {
            Self {
                month: self.month - 1,
                ..self
            }
        }
    }

    fn start(self) -> String {
        format!("{:04}-{:02}-01 00:00:00+00", self.year, self.month)
    }

    fn table(self, parent: &str) -> String {
        format!("{parent}_y{:04}m{:02}", self.year, self.month)
    }
}

/// A time in µs since 1970, for people.
pub fn display_us(us: i64) -> String {
    DateTime::from_timestamp_micros(us).map_or_else(|| format!("{us} µs since 1970"), |at| at.to_rfc3339())
}

fn parent(table: Table) -> Option<&'static str> {
    match table {
        Table::Orders => Some("order_events"),
        Table::Disputes => Some("dispute_events"),
        Table::DeadLetters => None,
    }
}

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    present: bool,
}

/// Makes the partition of `month` if it is missing; several processes may try at once, and one makes it. One that
/// somebody detached and left is attached again. Returns its name if it was missing when asked, or nothing if it was
/// there. The parent is locked for a moment only, and never long waited for.
pub async fn ensure_month(
    connection: &mut AsyncPgConnection,
    table: Table,
    month: Month,
) -> Result<Option<String>, ShardError> {
    let Some(parent) = parent(table) else { return Ok(None) };
    let name = month.table(parent);
    let found: Exists =
        diesel::sql_query("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass($1)) AS present")
            .bind::<Text, _>(&name)
            .get_result(connection)
            .await?;
    if found.present {
        return Ok(None);
    }
    let (from, to) = (month.start(), month.next().start());
    // One statement, so nothing can be left half-way. ATTACH, unlike CREATE … PARTITION OF, lets reads and writes go on.
    connection
        .batch_execute(&format!(
            "DO $$ BEGIN
                PERFORM set_config('lock_timeout', '2s', true);
                PERFORM pg_advisory_xact_lock(hashtext('hookmill:{name}'));
                IF to_regclass('{name}') IS NULL THEN
                    CREATE TABLE {name} (LIKE {parent} INCLUDING ALL);
                END IF;
                IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass('{name}')) THEN
                    ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}');
                END IF;
            END $$"
        ))
        .await?;
    Ok(Some(name))
}

/// Makes the partitions of last month, this month and `months` to come; returns the names of those that were missing.
pub async fn ensure_ahead(connection: &mut AsyncPgConnection, months: u32) -> Result<Vec<String>, ShardError> {
    let mut made = Vec::new();
    // Events of the last minutes of a month arrive in the next.
    let mut month = Month::of(Utc::now()).previous();
    for _ in 0..months.saturating_add(2) {
        for table in [Table::Orders, Table::Disputes] {
            made.extend(ensure_month(connection, table, month).await?);
        }
        month = month.next();
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_turn_with_the_year_in_utc() {
        let december = Month::of_us(1_767_225_599_999_999);
        assert_eq!(december.table("order_events"), "order_events_y2025m12");
        assert_eq!(december.next(), Month::of_us(1_767_225_600_000_000));
        assert_eq!(december.next().previous(), december);
        assert_eq!(december.next().start(), "2026-01-01 00:00:00+00");
    }
}
