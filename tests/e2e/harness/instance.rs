//! An instance of the product, as a process.

use std::time::{Duration, Instant};

use dev::process::Process;
use serde_json::Value;

use super::until;

/// A running instance of the product.
pub struct Instance {
    pub process: Process,
    pub url: String,
    pub admin: String,
    pub client: reqwest::Client,
}

impl Instance {
    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        let patience = Duration::from_secs(60);
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(response) = self.client.get(format!("{}/health/ready", self.admin)).send().await
                && response.status().is_success()
            {
                return;
            }
            assert!(
                self.process.is_running() && Instant::now() < deadline,
                "not ready: {}",
                self.process.obituary()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Posts `body` to a path of the ingest listener, as JSON.
    pub async fn post(&self, path: &str, headers: &[(String, String)], body: &[u8]) -> reqwest::Response {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body.to_vec());
        if !headers.iter().any(|(name, _)| name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await.expect("an answer")
    }

    /// `/stats`, if it answers.
    pub async fn try_stats(&self) -> Option<Value> {
        let response = self
            .client
            .get(format!("{}/stats", self.admin))
            .timeout(Duration::from_secs(5))
            .send()
            .await
            .ok()?;
        response.json().await.ok()
    }

    /// `/stats`.
    pub async fn stats(&self) -> Value {
        self.try_stats()
            .await
            .unwrap_or_else(|| panic!("no stats: {}", self.process.obituary()))
    }

    /// An actor's node in `/stats`, by its path below the root.
    pub async fn actor(&self, path: &[&str]) -> Value {
        let stats = self.stats().await;
        let root = stats["actors"]
            .as_object()
            .expect("a tree")
            .values()
            .next()
            .expect("a root")
            .clone();
        path.iter().fold(root, |node, name| node["children"][*name].clone())
    }

    /// How many partitions of topics it runs.
    pub async fn running_partitions(&self) -> usize {
        let Some(stats) = self.try_stats().await else { return 0 };
        let partitions = stats["partitions"].as_array().cloned().unwrap_or_default();
        partitions.iter().filter(|p| p["state"] == "running").count()
    }

    /// Waits until it runs so many partitions.
    pub async fn runs(&self, partitions: usize, patience: Duration) {
        until(
            &format!("{} runs {partitions} partitions", self.process.name()),
            patience,
            async || self.running_partitions().await == partitions,
        )
        .await;
    }

    /// SIGTERM, and waits for a good end.
    pub async fn stop(&self) {
        let status = self
            .process
            .stop(Duration::from_secs(40))
            .await
            .expect("it stops in time");
        assert!(status.success(), "{}", self.process.obituary());
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).expect("it logs")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.process.kill();
    }
}
