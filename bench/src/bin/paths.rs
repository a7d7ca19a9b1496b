//! Runs one piece of the hot paths so many times and prints how often it allocated: `paths <piece> <times>`. What it costs
//! in instructions, valgrind tells; `bench/tests/counts.rs` keeps both from growing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result, bail};
use chrono::Utc;
use dev::send::{Generator, GeneratorSettings, Webhook, sign};
use hookmill_actors::sources::{Incoming, Received, Source, SourceConfig};
use hookmill_schema::{Kind, NewEvent, Part, Record, Row, Table, Writer};
use serde_json::json;

/// Counts allocations, and has the system make them.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const URL: &str = "https://hooks.example.com/webhooks/square";

/// Events in a batch.
const BATCH: usize = 1000;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [piece, times] = &args[..] else {
        bail!("paths <receive.SOURCE | encode | decode | batch> <times>");
    };
    let times: usize = times.parse().context("how often")?;
    let allocations = match piece.split_once('.') {
        Some(("receive", source)) => receive(source, times)?,
        None if piece == "encode" => encode(times)?,
        None if piece == "decode" => decode(times)?,
        None if piece == "batch" => batch(times)?,
        _ => bail!("there is no piece {piece:?}"),
    };
    println!("{allocations}");
    Ok(())
}

/// The allocations of `work`.
fn counted(work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let before = ALLOCATIONS.load(Relaxed);
    work()?;
    Ok(ALLOCATIONS.load(Relaxed) - before)
}

/// One of each step of an order's life, over and over.
fn webhooks(source: &str, count: usize) -> Result<Vec<Webhook>> {
    let source = dev::send::SOURCES.into_iter().find(|known| *known == source);
    Ok(Generator::new(GeneratorSettings {
        sources: vec![source.context("an unknown source")?],
        worker: 0,
        users: 20,
        disputes_percent: 0,
        old_one_in: 0,
        poison: 0,
        count: count as u64,
        seed: 1,
        run_id: "counts".to_owned(),
    })
    .collect())
}

fn source(name: &str) -> Result<Source> {
    let path = std::env::temp_dir().join(format!("hookmill-paths-{}", std::process::id()));
    std::fs::write(&path, SECRET)?;
    let url = (name == "square").then_some(URL);
    let config = json!({ "name": name, "preset": name, "url": url, "secrets": [format!("file:{}", path.display())] });
    let compiled = serde_json::from_value::<SourceConfig>(config)?.compile();
    std::fs::remove_file(&path)?;
    Ok(compiled?)
}

/// A request's verification, its mapping, and the record's value.
fn receive(name: &str, times: usize) -> Result<u64> {
    let (source, now) = (source(name)?, Utc::now());
    let webhooks = webhooks(name, 20)?;
    let signed: Vec<_> = webhooks
        .iter()
        .map(|webhook| sign(webhook, SECRET, URL, now))
        .collect::<Result<_>>()?;
    let requests: Vec<(Vec<_>, &[u8])> = signed
        .iter()
        .zip(&webhooks)
        .map(|(headers, webhook)| {
            (
                headers.iter().map(|(k, v)| (*k, v.as_str())).collect(),
                &webhook.body[..],
            )
        })
        .collect();
    counted(|| {
        for (headers, body) in requests.iter().cycle().take(times) {
            match source.receive(&Incoming::post(&headers[..], body, now))? {
                Received::Events { accepted, .. } if accepted.len() == 1 => {}
                other => bail!("{other:?}"),
            }
        }
        Ok(())
    })
}

fn value(webhook: &Webhook) -> Result<Vec<u8>> {
    let event = NewEvent {
        source: webhook.source,
        event_id: &webhook.expect.event_id,
        kind: Kind::Order,
        event_type: "order.paid",
        occurred_at: webhook.expect.occurred_at,
        user_id: &webhook.expect.user_id,
        order_id: Some(&webhook.expect.order_id),
        dispute_id: None,
        status: Kind::Order.status(webhook.expect.status).context("a state")?,
        provider_status: Some(webhook.expect.status),
        amount_minor: Some(1999),
        currency: Some("EUR"),
        entity_version: Some(3),
        received_at: webhook.expect.occurred_at,
        body: std::str::from_utf8(&webhook.body)?,
    };
    Ok(event.encode()?)
}

fn encode(times: usize) -> Result<u64> {
    let webhooks = webhooks("standard", 20)?;
    counted(|| {
        webhooks
            .iter()
            .cycle()
            .take(times)
            .try_for_each(|webhook| value(webhook).map(drop))
    })
}

fn row(value: &[u8], offset: i64) -> Result<Row> {
    let headers = [
        ("content-type", Some(&b"application/cloudevents+json"[..])),
        (
            "traceparent",
            Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ),
    ];
    let record = Record::new(
        offset,
        Some(1_760_000_000_000),
        Some(b"user-1"),
        Some(value),
        headers.into_iter(),
    );
    Row::decode(Table::Orders, record, "orders", 0).map_err(|(_, why)| why.into())
}

fn decode(times: usize) -> Result<u64> {
    let values: Vec<Vec<u8>> = webhooks("standard", 20)?.iter().map(value).collect::<Result<_>>()?;
    counted(|| {
        values
            .iter()
            .cycle()
            .take(times)
            .try_for_each(|value| row(value, 0).map(drop))
    })
}

/// From decoded rows to the bytes that go to Postgres; `times` events in batches of [`BATCH`].
fn batch(times: usize) -> Result<u64> {
    let rows: Vec<Row> = (0..)
        .zip(webhooks("standard", BATCH)?)
        .map(|(offset, webhook)| row(&value(&webhook)?, offset))
        .collect::<Result<_>>()?;
    let parts = [Part {
        partition: 0,
        from: 0,
        next: BATCH as i64,
        epoch: 1,
        rows: rows.iter().collect(),
    }];
    counted(|| {
        for _ in 0..times / BATCH {
            // A writer of its own each time: it remembers what it has seen.
            let bytes = Writer::default().rehearse(Table::Orders, &parts)?;
            if bytes < BATCH * 500 {
                bail!("{bytes} bytes are too few");
            }
        }
        Ok(())
    })
}
