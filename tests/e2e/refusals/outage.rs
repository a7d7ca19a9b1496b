//! Kafka away: 503 with Retry-After within the deadline, and the same webhook is taken once it is back.

use std::time::{Duration, Instant};

use chrono::Utc;

use super::wire::{Wire, good_order, head};
use crate::harness::{World, light, own_stack, signed, until};

#[test]
fn kafka_away_or_too_many_under_way() {
    light(async {
        let stack = own_stack("refusals-outage", 1, 1).await;
        let world = World::new(&stack, "refusals_outage")
            .await
            .through_proxies()
            .set("HOOKMILL_INGEST__DEADLINE", "2s")
            .set("HOOKMILL_INGEST__MAX_IN_FLIGHT", "3");
        let instance = world.start("only").await;
        let body = good_order();
        let body = body.as_bytes();
        let headers = |id: &str| signed("standard", body, id, Utc::now());
        let mut wire = Wire::to(&instance).await;
        wire.works_on("the start").await;

        // Bodies that take their time keep nobody out. "100 Continue" says that each is being read.
        let mut slow = Vec::new();
        for _ in 0..5 {
            let mut wire = Wire::to(&instance).await;
            let head = head("POST", "/webhooks/standard", &headers("slow"));
            let length = body.len();
            wire.send(format!("{head}content-length: {length}\r\nexpect: 100-continue\r\n\r\n").as_bytes())
                .await;
            assert_eq!(wire.answer(true).await.status, 100);
            slow.push(wire);
        }
        wire.works_on("five slow bodies").await;

        // Three that wait for Kafka are as many as there may be.
        stack.kafka(0).proxy().black_hole();
        for wire in &mut slow[..3] {
            wire.send(body).await;
        }
        // Their bodies are read in a moment, and then wait for 2 s.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        let answer = wire
            .request("POST", "/webhooks/standard", &headers("fourth"), body)
            .await;
        let detail = answer.is_problem(503, "unavailable");
        assert!(
            detail.contains("under way") && begun.elapsed() < Duration::from_secs(1),
            "{detail}"
        );
        assert!(answer.retry_after() >= 1);
        for wire in &mut slow[..3] {
            wire.answer(true).await.is_problem(503, "unavailable");
        }
        stack.kafka(0).proxy().restore();
        for wire in &mut slow[3..] {
            wire.send(body).await;
        }
        until("Kafka is back", Duration::from_secs(30), async || {
            let back = wire.request("POST", "/webhooks/standard", &headers("back"), body).await;
            back.status == 202
        })
        .await;
        wire.works_on("the crowd").await;

        for silent in [false, true] {
            let proxy = stack.kafka(0).proxy();
            if silent {
                proxy.black_hole();
            } else {
                proxy.cut();
            }
            for i in 0..3 {
                let begun = Instant::now();
                let answer = wire
                    .request("POST", "/webhooks/standard", &headers(&format!("away-{i}")), body)
                    .await;
                let detail = answer.is_problem(503, "unavailable");
                assert!(detail.contains("again"), "{detail}");
                assert!(answer.retry_after() >= 1);
                let took = begun.elapsed();
                assert!(
                    took < Duration::from_millis(2500),
                    "within the deadline of 2 s, not {took:?}"
                );
            }
            // What needs no Kafka is answered as ever.
            let answer = wire.request("POST", "/webhooks/standard", &[], body).await;
            answer.is_problem(401, "signature-missing");
            proxy.restore();
            until("webhooks are taken again", Duration::from_secs(20), async || {
                let answer = wire.request("POST", "/webhooks/standard", &headers("back"), body).await;
                answer.status == 202
            })
            .await;
        }
        // A refused webhook may have reached Kafka all the same; sent again, each is there once.
        for i in 0..3 {
            let answer = wire
                .request("POST", "/webhooks/standard", &headers(&format!("away-{i}")), body)
                .await;
            assert_eq!(answer.status, 202);
        }
        world.landed(Duration::from_secs(30)).await;
        for id in ["away-0", "away-1", "away-2", "back", "slow"] {
            let sql = format!("SELECT count(*) FROM order_events WHERE event_id = '{id}'");
            assert_eq!(world.sum(&sql).await, 1, "{id}");
        }
        instance.stop().await;
        stack.stop().await;
    });
}
