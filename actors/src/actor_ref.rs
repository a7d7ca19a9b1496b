//! An address that outlives restarts.

use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::prelude::SendError;
use actix::{Actor, Addr, Handler, Message};

use crate::slot::Slot;

/// Leads to the living instance of a supervised actor. Cloning it does not clone the `Addr`: each clone of that would
/// add a slot to the actor's mailbox and so loosen its bound.
pub struct ActorRef<A: Actor>(Arc<Slot<Addr<A>>>);

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
        Self(Arc::default())
    }
}

impl<A: Actor> ActorRef<A> {
    pub(crate) fn set(&self, address: Addr<A>) {
        self.0.set(address);
    }

    pub(crate) fn clear(&self) {
        self.0.take();
    }

    /// Leads nowhere, for good: nobody waits for an instance.
    pub(crate) fn of_nobody() -> Self {
        let slot = Slot::default();
        slot.never_mind();
        Self(Arc::new(slot))
    }

    /// Resolves once there has been an instance. It does not wait for a restart.
    pub(crate) async fn came(&self) {
        self.0.came().await;
    }

    /// Puts a message into the living instance's mailbox, if there is one with room.
    pub fn try_send<M>(&self, message: M) -> Result<(), Undelivered<M>>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        match self.0.get().as_deref() {
            None => Err(Undelivered::Away(message)),
            Some(address) => address.try_send(message).map_err(|error| match error {
                SendError::Full(message) => Undelivered::Full(message),
                SendError::Closed(message) => Undelivered::Away(message),
            }),
        }
    }
}
