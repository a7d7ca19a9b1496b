//! An address that outlives restarts.

use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::prelude::SendError;
use actix::{Actor, Addr, Handler, Message};
use arc_swap::ArcSwapOption;

/// Leads to the living instance of a supervised actor. Cloning it does not clone the `Addr`: each clone of that would
/// add a slot to the actor's mailbox and so loosen its bound.
pub struct ActorRef<A: Actor>(Arc<ArcSwapOption<Addr<A>>>);

/// Why a message was not taken; it comes back to the sender.
#[derive(Debug)]
pub enum Undelivered<M> {
    /// The mailbox is full: push back.
    Full(M),
    /// There is no living instance now: it is being restarted, or stopped.
    Away(M),
}

impl<M> Undelivered<M> {
    /// The message that was not taken.
    pub fn into_message(self) -> M {
        match self {
            Undelivered::Full(message) | Undelivered::Away(message) => message,
        }
    }
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Actor> Default for ActorRef<A> {
    fn default() -> Self {
        Self(Arc::new(ArcSwapOption::empty()))
    }
}

impl<A: Actor> ActorRef<A> {
    pub(crate) fn set(&self, address: Addr<A>) {
        self.0.store(Some(Arc::new(address)));
    }

    #[cfg(test)]
    pub(crate) fn is_away(&self) -> bool {
        self.0.load().is_none()
    }

    pub(crate) fn clear(&self) {
        self.0.store(None);
    }

    /// Puts a message into the living instance's mailbox, if there is one with room.
    pub fn try_send<M>(&self, message: M) -> Result<(), Undelivered<M>>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        match self.0.load().as_deref() {
            None => Err(Undelivered::Away(message)),
            Some(address) => address.try_send(message).map_err(|error| match error {
                SendError::Full(message) => Undelivered::Full(message),
                SendError::Closed(message) => Undelivered::Away(message),
            }),
        }
    }
}
