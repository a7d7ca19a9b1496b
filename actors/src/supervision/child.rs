//! The recipe for a child: a factory of fresh instances and how long one may take to stop.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ArbiterHandle, AsyncContext, Context};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::life::{Exit, Life};
use super::policy::{Intensity, Restart};
use crate::actor_ref::ActorRef;
use crate::stats::ActorStats;

type Start = Arc<dyn Fn(Life) -> oneshot::Receiver<Exit> + Send + Sync>;

/// How to start a child, and when to start it again.
#[derive(Clone)]
pub struct ChildSpec {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) restart: Restart,
    /// Its supervisor's, unless it has one of its own.
    pub(super) intensity: Option<Intensity>,
    pub(super) shutdown: Duration,
    pub(super) ends_with_its_thread: bool,
    pub(super) start: Start,
}

impl ChildSpec {
    /// A child that is an actor of type `A`: `make` builds a fresh one on `arbiter`'s thread, where it may fail by
    /// panicking like the actor itself, and `address` always leads to the living instance. `mailbox` bounds the messages that wait.
    pub fn actor<A, F>(
        name: impl Into<String>,
        arbiter: ArbiterHandle,
        address: ActorRef<A>,
        mailbox: usize,
        make: F,
    ) -> Self
    where
        A: Actor<Context = Context<A>>,
        F: Fn(Life) -> A + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        let start: Start = Arc::new(move |life: Life| {
            let (done, ended) = oneshot::channel();
            let (make, address) = (make.clone(), address.clone());
            // A dead arbiter drops the closure, and `done` with it: the supervisor reads that as a failure.
            arbiter.spawn_fn(move || {
                actix::spawn(async move {
                    let instance = life.clone();
                    let here = address.clone();
                    let task = actix::spawn(async move {
                        let mut ctx = Context::<A>::new();
                        ctx.set_mailbox_capacity(mailbox);
                        let actor = make(instance);
                        here.set(ctx.address());
                        ctx.into_future(actor).await;
                    });
                    let exit = match task.await {
                        Ok(()) => life.take_exit(),
                        Err(error) if error.is_panic() => Exit::Panicked(panic_message(error.into_panic().as_ref())),
                        Err(_) => Exit::Failed("its task was cancelled".to_owned()),
                    };
                    address.clear();
                    // The supervisor may be gone already: nobody is left to tell.
                    let _ = done.send(exit);
                });
            });
            ended
        });
        let kind = std::any::type_name::<A>().rsplit("::").next().unwrap_or("Actor");
        Self {
            name: name.into(),
            kind,
            restart: Restart::Permanent,
            intensity: None,
            shutdown: Duration::from_secs(10),
            ends_with_its_thread: false,
            start,
        }
    }

    /// When to restart; [`Restart::Permanent`] unless said otherwise.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How many restarts of it are too many; as its supervisor says for all unless said here.
    pub fn intensity(mut self, intensity: Intensity) -> Self {
        self.intensity = Some(intensity);
        self
    }

    /// How long an instance may take to stop when asked before its supervisor stops waiting for it; 10 s unless said otherwise.
    pub fn shutdown(mut self, within: Duration) -> Self {
        self.shutdown = within;
        self
    }

    /// Its thread is somebody else's: when that ends, the child has stopped rather than failed.
    pub fn ends_with_its_thread(mut self) -> Self {
        self.ends_with_its_thread = true;
        self
    }
}

impl ChildSpec {
    /// Starts it as a root, with no supervisor above: the receiver is told how it ended.
    pub fn run(&self, stop: CancellationToken, stats: Arc<ActorStats>) -> oneshot::Receiver<Exit> {
        (self.start)(Life::new(stop, stats))
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
