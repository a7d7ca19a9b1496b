//! The words of the domain that are stored as text: kinds and canonical states.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an event is about: decides its topic and its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An order and its payment.
    Order,
    /// A dispute, chargeback or inquiry.
    Dispute,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 2] = [Kind::Order, Kind::Dispute];

    /// As it stands in events and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Order => "order",
            Kind::Dispute => "dispute",
        }
    }

    /// The canonical states of this kind, in the order of progress: with equal version and time the later one wins.
    pub fn statuses(self) -> &'static [Status] {
        use Status::*;
        match self {
            Kind::Order => &[
                Unknown,
                Pending,
                Failed,
                Authorized,
                Paid,
                PartiallyFulfilled,
                Fulfilled,
                PartiallyRefunded,
                Refunded,
                Cancelled,
            ],
            Kind::Dispute => &[
                Unknown,
                InquiryNeedsResponse,
                InquiryUnderReview,
                InquiryClosed,
                NeedsResponse,
                UnderReview,
                Accepted,
                Withdrawn,
                Lost,
                Won,
                Closed,
            ],
        }
    }

    /// The canonical state named `word`, if it is one of this kind.
    pub fn status(self, word: &str) -> Option<Status> {
        self.statuses().iter().copied().find(|s| s.as_str() == word)
    }

    /// Place of `status` in the order of progress; 0 for what is not of this kind.
    pub fn rank(self, status: Status) -> i16 {
        let place = self.statuses().iter().position(|s| *s == status).unwrap_or(0);
        i16::try_from(place).unwrap_or(i16::MAX)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! statuses {
    ($($name:ident = $word:literal),* $(,)?) => {
        /// The canonical states. What a provider says beyond them is kept beside, as the provider's word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum Status { $($name),* }

        impl Status {
            /// As it stands in events, tables and configuration.
            pub fn as_str(self) -> &'static str {
                match self { $(Status::$name => $word),* }
            }
        }
    };
}

statuses! {
    Unknown = "unknown",
    Pending = "pending",
    Authorized = "authorized",
    Paid = "paid",
    PartiallyFulfilled = "partially_fulfilled",
    Fulfilled = "fulfilled",
    PartiallyRefunded = "partially_refunded",
    Refunded = "refunded",
    Cancelled = "cancelled",
    Failed = "failed",
    InquiryNeedsResponse = "inquiry_needs_response",
    InquiryUnderReview = "inquiry_under_review",
    InquiryClosed = "inquiry_closed",
    NeedsResponse = "needs_response",
    UnderReview = "under_review",
    Won = "won",
    Lost = "lost",
    Accepted = "accepted",
    Withdrawn = "withdrawn",
    Closed = "closed",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_belong_to_their_kind() {
        assert_eq!(Kind::Order.status("paid"), Some(Status::Paid));
        assert_eq!(Kind::Order.status("won"), None);
        assert!(Kind::Order.rank(Status::Refunded) > Kind::Order.rank(Status::Paid));
        assert_eq!(Kind::Dispute.rank(Status::Paid), 0);
        assert_eq!(Kind::Dispute.to_string(), "dispute");
    }
}
