//! What the requests of one worker thread publish, on its way to the producer. A message to another thread wakes that
//! thread, which costs about as much as to map a webhook: so it is one message for all requests of one turn of the event loop.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::actor_ref::ActorRef;
use crate::producer::{MAILBOX_RECORDS, Producer, Publish, PublishAll, PublishError};

/// Where the outboxes of all worker threads lead to.
#[derive(Clone)]
pub(super) struct Outlet {
    producer: ActorRef<Producer>,
    /// For records on their way to the producer: a message can hold many.
    room: Arc<Semaphore>,
}

impl Outlet {
    pub(super) fn new(producer: ActorRef<Producer>) -> Self {
        let room = Arc::new(Semaphore::new(MAILBOX_RECORDS));
        Self { producer, room }
    }

    /// Records that there is no room for, or nobody to take, are refused at once.
    fn hand_over(&self, records: Vec<Publish>) {
        let wanted = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let refused = match self.room.clone().try_acquire_many_owned(wanted) {
            Err(_) => records,
            Ok(room) => {
                let room = Some(room);
                match self.producer.try_send(PublishAll { records, room }) {
                    Ok(()) => return,
                    Err(undelivered) => undelivered.into_message().records,
                }
            }
        };
        for publish in refused {
            // Who asked may have stopped waiting.
            let _ = publish.reply.send(Err(PublishError::NotTaken));
        }
    }
}

/// One for each worker thread.
pub(super) struct Outbox {
    outlet: Outlet,
    collected: RefCell<Vec<Publish>>,
}

impl Outbox {
    pub(super) fn new(outlet: Outlet) -> Rc<Self> {
        let collected = RefCell::default();
        Rc::new(Self { outlet, collected })
    }

    /// Takes a record along to the producer, as soon as the requests that are at hand have had their turn.
    pub(super) fn put(self: &Rc<Self>, publish: Publish) {
        let mut collected = self.collected.borrow_mut();
        collected.push(publish);
        if collected.len() == 1 {
            let outbox = self.clone();
            // Behind all that is ready now.
            actix::spawn(async move { outbox.outlet.hand_over(outbox.collected.take()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::message::OwnedHeaders;
    use tokio::sync::oneshot;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::kafka::KafkaSettings;
    use crate::producer::ProducerSettings;
    use crate::stats::Registry;
    use crate::supervision::ChildSpec;

    type Outcome = oneshot::Receiver<Result<crate::producer::Delivery, PublishError>>;

    fn put(outbox: &Rc<Outbox>) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        outbox.put(Publish {
            topic: "orders".into(),
            partition: None,
            key: None,
            value: None,
            headers: OwnedHeaders::new(),
            reply,
        });
        outcome
    }

    async fn refused(outcome: Outcome) -> bool {
        let answer = outcome.await.expect("it is told");
        matches!(answer, Err(PublishError::NotTaken))
    }

    #[actix::test]
    async fn nobody_waits_for_a_producer_that_is_away() {
        let outlet = Outlet::new(ActorRef::default());
        let outbox = Outbox::new(outlet.clone());
        for outcome in [put(&outbox), put(&outbox), put(&outbox)] {
            assert!(refused(outcome).await);
        }
        assert_eq!(outlet.room.available_permits(), MAILBOX_RECORDS, "it was given back");
        // As after it, so before: nothing of the first turn is left.
        assert!(outbox.collected.borrow().is_empty());
        assert!(refused(put(&outbox)).await);
    }

    /// Against a producer that lives and reaches no broker: what it took waits.
    #[actix::test]
    async fn what_there_is_no_room_for_is_refused_at_once() {
        let settings = ProducerSettings {
            kafka: KafkaSettings {
                brokers: "127.0.0.1:1".to_owned(),
                ..KafkaSettings::default()
            },
            delivery_timeout: Duration::from_secs(60),
            record_limit: 1 << 20,
            flush_timeout: Duration::from_millis(1),
        };
        let address = ActorRef::default();
        let make = move |life| Producer::new(life, settings.clone());
        let producer = ChildSpec::actor("producer", actix::Arbiter::current(), address.clone(), 16, make);
        let stats = Registry::default().node("producer", "Producer");
        let _ended = producer.run(CancellationToken::new(), stats);
        let outlet = Outlet::new(address);
        let outbox = Outbox::new(outlet.clone());
        let waits = async |outcome: Outcome| timeout(Duration::from_millis(200), outcome).await.is_err();
        while !waits(put(&outbox)).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(outlet.room.available_permits(), MAILBOX_RECORDS, "it was given back");
        let all_but_one = outlet.room.acquire_many(4095).await.expect("there is room");
        for outcome in [put(&outbox), put(&outbox)] {
            assert!(refused(outcome).await, "two of one turn, and room for one");
        }
        assert!(waits(put(&outbox)).await);
        drop(all_but_one);
        let two = [put(&outbox), put(&outbox)];
        for outcome in two {
            assert!(waits(outcome).await);
        }
    }
}
