//! The one client that all producers share: it is made, watched, replaced when it is of no use any more, and flushed at
//! the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actix::prelude::*;
use fail::fail_point;
use tracing::{error, warn};

use super::deliveries::Deliveries;
use super::line::Line;
use super::native::NativeProducer;
use super::{Publish, PublishError};
use crate::kafka::{KafkaSettings, REPORT_EVERY_MS, told};
use crate::slot::Slot;
use crate::supervision::Life;

/// `[producer]` of the actor graph.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// How to reach Kafka.
    pub kafka: KafkaSettings,
    /// A record that is not acknowledged for so long is given up; less than the time a webhook may take.
    pub delivery_timeout: Duration,
    /// Largest record it takes, in bytes.
    pub record_limit: usize,
    /// How long a stopping producer waits for what is in flight.
    pub flush_timeout: Duration,
}

/// Leads to the living client, from any thread.
#[derive(Clone, Default)]
pub struct ClientRef(Arc<Slot<Client>>);

impl ClientRef {
    /// Hands a record over. Where it is not taken, `reply` hears why: at once, or where many are under way a moment later.
    pub fn send(&self, publish: Publish) {
        match &*self.0.get() {
            Some(client) => client.line.send(publish),
            // Who asked may have stopped waiting.
            None => drop(publish.reply.send(Err(PublishError::NotTaken))),
        }
    }

    /// Nobody shall wait for a client.
    pub(crate) fn will_not_come(&self) {
        self.0.never_mind();
    }

    /// Resolves once there has been a client. It does not wait for one that is being replaced.
    pub(super) async fn came(&self) {
        self.0.came().await;
    }

    /// Takes the client away, and waits for those who are just handing a record over: whoever holds it last drops it, which
    /// blocks, and that shall be none of them.
    fn withdraw(&self) -> Option<Client> {
        let mut client = self.0.take()?;
        loop {
            match Arc::try_unwrap(client) {
                Ok(client) => return Some(client),
                Err(held) => client = held,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// librdkafka's producer, and the thread that serves it.
struct Client {
    line: Arc<Line>,
    closing: Arc<AtomicBool>,
    reporter: Option<JoinHandle<()>>,
}

const NOBODY_REPORTS: &str = "the thread of the Kafka producer's delivery reports has ended; starting with a fresh one";

/// Owns librdkafka's producer, watches over it, and flushes it at its end.
pub struct ProducerClient {
    life: Life,
    settings: ProducerSettings,
    client: ClientRef,
}

impl ProducerClient {
    /// It creates its client when it starts; `client` leads to that.
    pub fn new(life: Life, settings: ProducerSettings, client: ClientRef) -> Self {
        Self { life, settings, client }
    }

    /// An idempotent producer that met a fatal error, or a client that knows no broker, sends nothing any more, and without its
    /// reporter not everybody hears that something was sent: only a fresh one helps.
    fn check_client(&self, ctx: &mut Context<Self>) {
        fail_point!("producer_client");
        let client = self.client.0.get();
        let Some(client) = client.as_ref() else { return };
        if client.reporter.as_ref().is_some_and(JoinHandle::is_finished) {
            self.life.fail(NOBODY_REPORTS);
            return ctx.stop();
        }
        let client = client.line.client();
        if let Some((code, reason)) = client.fatal_error() {
            self.life
                .fail(format!("fatal error of the Kafka producer: {code}: {reason}"));
            ctx.stop();
        } else if client.context().reach.is_lost(Instant::now()) {
            self.life
                .fail("the Kafka client knows no broker any more; starting with a fresh one");
            ctx.stop();
        }
    }
}

impl Client {
    fn start(producer: NativeProducer) -> io::Result<Self> {
        let line = Arc::new(Line::new(producer));
        let closing = Arc::<AtomicBool>::default();
        let (of_reporter, ends) = (line.clone(), closing.clone());
        let reporter = thread::Builder::new().name("deliveries".to_owned()).spawn(move || {
            let mut until = Instant::now();
            while !ends.load(Relaxed) {
                until = of_reporter.serve(until);
            }
        })?;
        line.client().context().report_through(reporter.thread().clone());
        Ok(Self {
            line,
            closing,
            reporter: Some(reporter),
        })
    }
}

impl Drop for Client {
    /// Waits for the reporter to let go of the producer, so that it is purged here.
    fn drop(&mut self) {
        self.closing.store(true, Relaxed);
        let Some(reporter) = self.reporter.take() else { return };
        reporter.thread().unpark();
        if reporter.join().is_err() {
            error!("the thread of the producer's delivery reports had panicked");
        }
    }
}

impl Actor for ProducerClient {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let ProducerSettings {
            kafka,
            delivery_timeout,
            record_limit,
            ..
        } = &self.settings;
        let mut config = kafka.producer(*delivery_timeout, *record_limit);
        config.set("statistics.interval.ms", REPORT_EVERY_MS.to_string());
        let deliveries = Deliveries::count_into(self.life.stats().clone());
        let client = NativeProducer::new(&config, deliveries)
            .map_err(|error| told(&error))
            .and_then(|producer| {
                Client::start(producer).map_err(|error| format!("no thread for its delivery reports: {error}"))
            });
        match client {
            Ok(client) => self.client.0.set(client),
            Err(why) => {
                self.life.fail(format!("cannot create the Kafka producer: {why}"));
                return ctx.stop();
            }
        }
        ctx.run_interval(Duration::from_secs(1), |act, ctx| act.check_client(ctx));
        let flush_timeout = self.settings.flush_timeout;
        ctx.spawn(self.life.stopped().into_actor(self).then(move |(), act, _| {
            let client = act.client.clone();
            // Dropping the client throws away what is in flight, and blocks: flush first, and off this thread.
            let closed = tokio::task::spawn_blocking(move || {
                if let Some(Err(error)) = client.withdraw().map(|client| client.line.flush(flush_timeout)) {
                    warn!(%error, "records were still in flight when the producer stopped; their senders were not told 202");
                }
            });
            closed.into_actor(act).map(|_, _, ctx| ctx.stop())
        }));
    }
}

impl Drop for ProducerClient {
    /// One that panicked takes its client along.
    fn drop(&mut self) {
        drop(self.client.withdraw());
    }
}

/// Longer than a busy machine takes to connect.
#[cfg(test)]
const ALONE_DELIVERS_WITHIN: Duration = Duration::from_secs(30);

/// Starts a client's owner on this thread, under nobody; and how it ends.
#[cfg(test)]
pub(crate) fn start_alone(
    kafka: KafkaSettings,
) -> (ClientRef, tokio::sync::oneshot::Receiver<crate::supervision::Exit>) {
    let settings = ProducerSettings {
        kafka,
        delivery_timeout: ALONE_DELIVERS_WITHIN,
        record_limit: 1 << 20,
        flush_timeout: Duration::from_secs(1),
    };
    let client = ClientRef::default();
    let of_it = client.clone();
    let make = move |life| ProducerClient::new(life, settings.clone(), of_it.clone());
    let (arbiter, address) = (Arbiter::current(), crate::actor_ref::ActorRef::default());
    let spec = crate::supervision::ChildSpec::actor("producer", arbiter, address, 1, make);
    let stats = crate::stats::Registry::default().node("producer", "ProducerClient");
    (client, spec.run(tokio_util::sync::CancellationToken::new(), stats))
}

#[cfg(test)]
mod tests;
