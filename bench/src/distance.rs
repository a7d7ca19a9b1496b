//! A broker that is farther away: webhooks to Kafka through a proxy that delays each way, by how many requests may be in flight.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::ingest::Bench;
use crate::product::Product;
use crate::report::{Spread, hundredths};

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Milliseconds that what is sent takes longer, each way.
    #[arg(long, value_delimiter = ',', default_value = "0,1,5")]
    pub delays_ms: Vec<u64>,
    /// Requests in flight (`kafka.producer."max.in.flight.requests.per.connection"`).
    #[arg(long, value_delimiter = ',', default_value = "1,3,5")]
    pub in_flight: Vec<u32>,
    /// Connections that send at once.
    #[arg(long, value_delimiter = ',', default_value = "64,512")]
    pub connections: Vec<usize>,
    /// Webhooks in each round without a delay; fewer the farther it is.
    #[arg(long, default_value_t = 60_000)]
    pub events: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Use the release binary that is there, rather than have cargo bring it up to date.
    #[arg(long)]
    pub no_build: bool,
}

/// Runs the measurement and prints it.
pub async fn run(args: Args) -> Result<()> {
    let bench = Bench::start(Product::find(args.no_build).await?).await?;
    let mut rows = Vec::new();
    for &delay_ms in &args.delays_ms {
        let brokers = bench.distant_brokers(Duration::from_millis(delay_ms));
        let events = (args.events / (1 + 5 * delay_ms)).max(2000);
        for &connections in &args.connections {
            let mut measured = vec![Vec::new(); args.in_flight.len()];
            for round in 1..=args.rounds {
                for (in_flight, measured) in args.in_flight.iter().zip(&mut measured) {
                    let env = vec![
                        ("HOOKMILL_KAFKA__BROKERS", brokers.clone()),
                        (IN_FLIGHT, in_flight.to_string()),
                    ];
                    let name = format!("distance_{delay_ms}_{connections}_{in_flight}_{round}");
                    measured.push(bench.ours(&name, connections, events, env).await?);
                }
            }
            for (&in_flight, figures) in args.in_flight.iter().zip(&measured) {
                let rate = Spread::of(figures.iter().map(crate::report::Figures::rate));
                let latency = |pick: fn((f64, f64)) -> f64| {
                    Spread::of(figures.iter().filter_map(|figures| figures.latency_ms.map(pick)))
                };
                let (p50, p99) = (latency(|(p50, _)| p50), latency(|(_, p99)| p99));
                println!(
                    "{delay_ms} ms each way, {connections} connections, {in_flight} in flight: {} a second, p50 {} ms, p99 {} ms",
                    rate.text(0),
                    p50.text(1),
                    p99.text(1)
                );
                rows.push(json!({
                    "delay_ms": delay_ms,
                    "connections": connections,
                    "in_flight": in_flight,
                    "rate": rate.median.round(),
                    "p50_ms": hundredths(p50.median),
                    "p99_ms": hundredths(p99.median),
                }));
            }
        }
    }
    bench.stop().await;
    println!("{}", json!({ "bench": "distance", "rows": rows }));
    Ok(())
}

const IN_FLIGHT: &str = "HOOKMILL_KAFKA__PRODUCER__MAX.IN.FLIGHT.REQUESTS.PER.CONNECTION";
