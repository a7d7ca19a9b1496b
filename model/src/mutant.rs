//! Ways to get the protocol wrong: the checker must find each.

/// One thing that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Mutant {
    /// The fence compares the offset and not the epoch.
    NoEpoch,
    /// The fence compares the epoch and not the offset.
    NoOffset,
    /// The rows are committed by one statement and the offset by the next.
    OffsetApart,
    /// The claim reads the offset by a plain SELECT, which waits for nobody, and then raises the epoch.
    PlainSelect,
    /// After a broken connection offset and epoch are read and not raised.
    ReRead,
    /// After a broken connection the epoch is raised though somebody else has raised it since.
    BlindReclaim,
    /// After a broken connection the statement counts as committed.
    AssumeCommitted,
    /// After a broken connection the statement counts as refused for a row's fault.
    BuryOnOutage,
    /// The offset passes a bad record before Kafka has acknowledged its dead letter.
    StepBeforeBuried,
    /// A redelivered event is a duplicate key, and so a row's fault.
    NoConflictClause,
    /// A cancelled write leaves its connection inside a transaction, and what follows on it is never committed.
    InsideTransaction,
}
