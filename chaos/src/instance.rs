//! Instances of the product, with a door for the providers and a keeper that starts again what ended by itself, as any
//! deployment has one.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dev::clock::Clock;
use dev::process::{Process, Program};
use dev::proxy::Proxy;
use dev::stack::free_ports;
use serde_json::Value;

/// One instance: a place that a process of the product fills, again and again.
pub struct Instance {
    /// Its number.
    pub index: usize,
    process: Process,
    wanted: AtomicBool,
    /// The way of the providers to it.
    pub door: Proxy,
    /// Where providers send to.
    pub url: String,
    /// Where operators look, without a proxy.
    pub admin: String,
    /// Its wall clock.
    pub clock: Option<Clock>,
    client: reqwest::Client,
    /// Endings that nobody asked for.
    endings: Mutex<Vec<Ending>>,
}

/// A process that ended by itself.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Of which instance.
    pub instance: usize,
    /// The exit code; `None` for a signal.
    pub code: Option<i32>,
    /// How, in words, with the last that it said.
    pub how: String,
}

impl Instance {
    /// Starts an instance; `program` is all but where it listens.
    pub async fn start(index: usize, program: Program, clock: Option<Clock>) -> Result<Self> {
        let ports = free_ports(2)?;
        let [ingest, admin] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
        let mut program = program
            .env("HOOKMILL_INGEST__LISTEN", &ingest)
            .env("HOOKMILL_ADMIN__LISTEN", &admin);
        for (name, value) in clock.iter().flat_map(|clock| &clock.env) {
            program = program.env(*name, value);
        }
        let door = Proxy::start(ingest.parse()?).await?;
        Ok(Self {
            index,
            process: Process::spawn(program)?,
            wanted: AtomicBool::new(true),
            url: format!("http://{}", door.address()),
            door,
            admin: format!("http://{admin}"),
            clock,
            client: reqwest::Client::builder().timeout(Duration::from_secs(3)).build()?,
            endings: Mutex::default(),
        })
    }

    /// Its process, as it is at the moment.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGKILL; it stays away.
    pub fn kill(&self) {
        self.wanted.store(false, Relaxed);
        self.process.kill();
    }

    /// SIGTERM; it stays away. Fails if it does not stop within its own time-out and a little more.
    pub async fn stop(&self) -> Result<Option<i32>> {
        self.wanted.store(false, Relaxed);
        let status = self.process.stop(Duration::from_secs(30)).await?;
        Ok(status.code())
    }

    /// Starts it again.
    pub fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.wanted.store(true, Relaxed);
        Ok(())
    }

    /// Starts it again if it ended by itself.
    pub fn keep(&self) -> Result<()> {
        if !self.wanted.load(Relaxed) || self.process.is_running() {
            return Ok(());
        }
        // A fault may have come in between; then it is none of ours.
        if self.wanted.load(Relaxed) {
            let ending = Ending {
                instance: self.index,
                code: self.process.exit_status().and_then(|status| status.code()),
                how: format!("{:#}", self.process.obituary()),
            };
            self.endings.lock().unwrap_or_else(PoisonError::into_inner).push(ending);
            self.process.restart()?;
        }
        Ok(())
    }

    /// The endings that nobody asked for.
    pub fn endings(&self) -> Vec<Ending> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("{}/health/ready", self.admin)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Waits until it says so.
    pub async fn ready(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !self.is_ready().await {
            if !self.process.is_running() || Instant::now() > deadline {
                return Err(self.process.obituary()).context("it did not get ready");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// `/stats`, if it answers.
    pub async fn stats(&self) -> Option<Stats> {
        let answer = self.client.get(format!("{}/stats", self.admin)).send().await.ok()?;
        Some(Stats(answer.json().await.ok()?))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// What `/stats` said.
#[derive(Clone, Debug)]
pub struct Stats(Value);

/// One of its partitions.
#[derive(Clone, Debug)]
pub struct PartitionStat {
    /// Topic and number.
    pub id: (String, i32),
    /// Where the instance stands with it.
    pub state: String,
    /// Its epoch, as claimed.
    pub epoch: i64,
    /// First offset that is not in the tables.
    pub next_offset: i64,
    /// What waits on Kafka; -1 while that is not known.
    pub lag: i64,
    /// Rows that the process has written.
    pub rows: i64,
    /// Why it is halted.
    pub reason: String,
}

impl Stats {
    /// How the process calls itself.
    pub fn instance(&self) -> &str {
        self.0["instance"].as_str().unwrap_or_default()
    }

    /// Its partitions.
    pub fn partitions(&self) -> Vec<PartitionStat> {
        let list = self.0["partitions"].as_array().map_or(&[][..], Vec::as_slice);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_i64().unwrap_or(-1);
        list.iter()
            .map(|p| PartitionStat {
                id: (text(&p["topic"]), i32::try_from(number(&p["partition"])).unwrap_or(-1)),
                state: text(&p["state"]),
                epoch: number(&p["epoch"]),
                next_offset: number(&p["next_offset"]),
                lag: number(&p["lag"]),
                rows: number(&p["rows"]),
                reason: text(&p["reason"]),
            })
            .collect()
    }

    /// What the actor named `name` has dealt with.
    pub fn handled(&self, name: &str) -> i64 {
        let root = self.0["actors"].as_object().and_then(|tree| tree.values().next());
        root.and_then(|root| root["children"][name]["handled"].as_i64())
            .unwrap_or(-1)
    }
}
