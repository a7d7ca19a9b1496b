//! What a shard's refusal means for who asked: SQLSTATE decides
//! (<https://www.postgresql.org/docs/18/errcodes-appendix.html>).

use std::error::Error as _;

use tokio_postgres::error::{DbError, Severity, SqlState};

/// What to do about a failed statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// A row is at fault (classes 22 and 23, and 54: too long for an index, too deep): isolate it, then dead-letter it.
    Row,
    /// The server gave up for the time it took: make it smaller, then try again. Never a row's fault.
    TooSlow,
    /// Two parts of a merged statement met on one state row: write them one by one.
    Split,
    /// The server said no to all of it and the connection is usable: wait and try again.
    Retry,
    /// The connection is lost, and what became of the statement is unknown: discard it and reclaim.
    Connection,
    /// An event partition is missing: make it, then try again.
    MissingPartition,
    /// Tables are missing or different, or the role may not: an operator is needed; wait and try again, loudly.
    Schema,
}

/// A statement that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{message}", sqlstate.as_ref().map(|code| format!("[{code}] ")).unwrap_or_default())]
pub struct ShardError {
    /// What to do about it.
    pub class: ErrorClass,
    /// The server's code, if the server said anything.
    pub sqlstate: Option<String>,
    /// For people; never holds a password.
    pub message: String,
}

impl ShardError {
    /// A connection that is lost or could not be made.
    pub fn connection(message: impl Into<String>) -> Self {
        Self {
            class: ErrorClass::Connection,
            sqlstate: None,
            message: message.into(),
        }
    }
}

impl From<tokio_postgres::Error> for ShardError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) => {
                let fatal = matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
                let class = if fatal {
                    ErrorClass::Connection
                } else {
                    classify(said.code().code(), said.constraint())
                };
                Self {
                    class,
                    sqlstate: Some(said.code().code().to_owned()),
                    message: explain(said),
                }
            }
            None => {
                // What the server did not say itself is the connection's.
                let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                Self::connection(format!("{error}{cause}"))
            }
        }
    }
}

impl From<diesel::result::Error> for ShardError {
    /// diesel does not tell the code, so this is for upkeep only, where every failure means "later".
    fn from(error: diesel::result::Error) -> Self {
        Self {
            class: ErrorClass::Retry,
            sqlstate: None,
            message: error.to_string(),
        }
    }
}

fn explain(said: &DbError) -> String {
    let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let place = said
        .column()
        .or(said.constraint())
        .map(|name| format!(" [{name}]"))
        .unwrap_or_default();
    format!("{}{detail}{place}", said.message())
}

fn classify(code: &str, constraint: Option<&str>) -> ErrorClass {
    // A CHECK is named; that no partition takes the row has no name. (The message is in the server's language.)
    if code == SqlState::CHECK_VIOLATION.code() && constraint.is_none() {
        return ErrorClass::MissingPartition;
    }
    if code == SqlState::CARDINALITY_VIOLATION.code() {
        return ErrorClass::Split;
    }
    // Administrator's shutdown, crash of another backend, not accepting connections yet: the backend is gone. Read only:
    // the server was demoted, and the URL may lead to the new primary by now.
    if ["57P01", "57P02", "57P03", "57P04", "57P05", "25006"].contains(&code) {
        return ErrorClass::Connection;
    }
    // The statement's time-out; an operator's cancel looks the same.
    if code == SqlState::QUERY_CANCELED.code() {
        return ErrorClass::TooSlow;
    }
    match code.get(..2) {
        Some("22" | "23" | "54") => ErrorClass::Row,
        Some("08") => ErrorClass::Connection,
        Some("28" | "3D" | "3F" | "42") => ErrorClass::Schema,
        // 40 (rolled back), 53 (resources), 55 (not in the right state), 57 (operator),
        // 58 and XX (the server's own trouble): nothing of it is a row's fault, so nothing is ever dead-lettered for it.
        _ => ErrorClass::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide() {
        for (code, class) in [
            ("22021", ErrorClass::Row),
            ("22P02", ErrorClass::Row),
            ("23502", ErrorClass::Row),
            ("23514", ErrorClass::Row),
            ("54000", ErrorClass::Row),
            ("21000", ErrorClass::Split),
            ("08006", ErrorClass::Connection),
            ("57P01", ErrorClass::Connection),
            ("57014", ErrorClass::TooSlow),
            ("40P01", ErrorClass::Retry),
            ("53100", ErrorClass::Retry),
            ("53300", ErrorClass::Retry),
            ("55P03", ErrorClass::Retry),
            ("25006", ErrorClass::Connection),
            ("XX000", ErrorClass::Retry),
            ("42P01", ErrorClass::Schema),
            ("3D000", ErrorClass::Schema),
        ] {
            assert_eq!(classify(code, Some("a_constraint")), class, "{code}");
        }
        assert_eq!(classify("23514", None), ErrorClass::MissingPartition);
    }
}
