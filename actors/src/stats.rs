//! What every actor shows of itself: plain atomics that outlive its restarts, read by `/stats` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

/// Where an actor stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ActorState {
    /// Lives.
    Running,
    /// Ended, and will be started again after a delay.
    Restarting,
    /// Has been asked to end.
    Stopping,
    /// Ended for good.
    Stopped,
    /// Failed too often; its supervisor gave up.
    Failed,
}

impl ActorState {
    fn from_u8(value: u8) -> Self {
        match value {
            0 => ActorState::Running,
            1 => ActorState::Restarting,
            2 => ActorState::Stopping,
            3 => ActorState::Stopped,
            _ => ActorState::Failed,
        }
    }
}

/// Counters of one actor.
#[derive(Debug)]
pub struct ActorStats {
    kind: &'static str,
    state: AtomicU8,
    restarts: AtomicU64,
    /// Messages or records this actor has dealt with.
    pub handled: AtomicU64,
    /// Of these, how many ended in an error.
    pub failed: AtomicU64,
    /// What waits for this actor now. If it only ever rises, the actor behind the edge is too slow or stuck.
    pub queue_depth: AtomicI64,
    last_error: Mutex<Option<LastError>>,
    detail: Mutex<Map<String, Value>>,
}

#[derive(Clone, Debug, Serialize)]
struct LastError {
    at: String,
    message: String,
}

impl ActorStats {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            state: AtomicU8::new(ActorState::Running as u8),
            restarts: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            queue_depth: AtomicI64::new(0),
            last_error: Mutex::default(),
            detail: Mutex::default(),
        }
    }

    pub(crate) fn set_state(&self, state: ActorState) {
        self.state.store(state as u8, Relaxed);
    }

    /// Where the actor stands.
    pub fn state(&self) -> ActorState {
        ActorState::from_u8(self.state.load(Relaxed))
    }

    /// How often it was restarted.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// The actor's type.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Counts `n` things done.
    pub fn add_handled(&self, n: u64) {
        self.handled.fetch_add(n, Relaxed);
    }

    /// Counts a failure and keeps its message, with the time, for `/stats`.
    pub fn record_error(&self, message: &str) {
        self.failed.fetch_add(1, Relaxed);
        self.set_last_error(message);
    }

    /// Shows a fact about the actor's present state under `key` in `/stats`.
    pub fn show(&self, key: &str, value: impl Into<Value>) {
        self.detail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.to_owned(), value.into());
    }

    pub(crate) fn record_restart(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    pub(crate) fn record_exit(&self, exit: &str) {
        self.record_restart();
        self.queue_depth.store(0, Relaxed);
        self.set_last_error(exit);
    }

    fn set_last_error(&self, message: &str) {
        let at = rfc3339(Utc::now());
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(LastError {
            at,
            message: message.to_owned(),
        });
    }

    fn to_json(&self) -> Map<String, Value> {
        let mut node = Map::new();
        node.insert("kind".into(), self.kind.into());
        node.insert("state".into(), serde_json::json!(self.state()));
        node.insert("restarts".into(), self.restarts().into());
        node.insert("handled".into(), self.handled.load(Relaxed).into());
        node.insert("failed".into(), self.failed.load(Relaxed).into());
        node.insert("queue_depth".into(), self.queue_depth.load(Relaxed).into());
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        node.insert("last_error".into(), serde_json::json!(last));
        let detail = self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone();
        node.extend(detail);
        node
    }
}

/// All actors of the process, by their path in the supervision tree.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<RwLock<BTreeMap<String, Arc<ActorStats>>>>);

impl Registry {
    /// The counters at `path`, made on first use, kept over restarts.
    pub fn node(&self, path: &str, kind: &'static str) -> Arc<ActorStats> {
        if let Some(node) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(path) {
            return node.clone();
        }
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        nodes
            .entry(path.to_owned())
            .or_insert_with(|| Arc::new(ActorStats::new(kind)))
            .clone()
    }

    /// Forgets who stands below `path` and is no `child` of it any more, and all below them.
    pub(crate) fn keep_children(&self, path: &str, is_child: impl Fn(&str) -> bool) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|node, _| {
            let below = node.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
            below.is_none_or(|below| is_child(below.split('/').next().unwrap_or_default()))
        });
    }

    pub(crate) fn remove(&self, path: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// Every actor with its path, in the order of the paths.
    pub fn all(&self) -> Vec<(String, Arc<ActorStats>)> {
        let nodes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        nodes
            .iter()
            .map(|(path, stats)| (path.clone(), stats.clone()))
            .collect()
    }

    /// The tree as JSON: a node has its counters, and its children under `children`.
    pub fn tree(&self) -> Value {
        let mut root = Map::new();
        for (path, stats) in self.all() {
            let mut level = &mut root;
            let mut parts = path.split('/').peekable();
            while let Some(part) = parts.next() {
                let node = level.entry(part).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(node) = node else { break };
                if parts.peek().is_none() {
                    node.extend(stats.to_json());
                    break;
                }
                let children = node.entry("children").or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(children) = children else { break };
                level = children;
            }
        }
        Value::Object(root)
    }
}

/// A time as RFC 3339 text in UTC with milliseconds.
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_children_that_are_there_are_kept() {
        let registry = Registry::default();
        for path in ["a", "a/b", "a/b/c", "a/d", "a/d/e", "ab/d", "f/d"] {
            registry.node(path, "Actor");
        }
        registry.keep_children("a", |name| name == "b");
        let left: Vec<_> = registry.all().into_iter().map(|(path, _)| path).collect();
        assert_eq!(left, ["a", "a/b", "a/b/c", "ab/d", "f/d"]);
    }

    #[test]
    fn the_tree_nests_by_path_and_keeps_counters_over_restarts() {
        let registry = Registry::default();
        registry.node("root", "Supervisor");
        registry.node("root/writers", "Supervisor");
        let writer = registry.node("root/writers/shard_writer.0.0", "ShardWriter");
        writer.add_handled(7);
        writer.record_exit("panicked: boom");
        let again = registry.node("root/writers/shard_writer.0.0", "ShardWriter");
        assert_eq!(again.restarts(), 1);
        let tree = registry.tree();
        let node = &tree["root"]["children"]["writers"]["children"]["shard_writer.0.0"];
        assert_eq!(node["handled"], 7);
        assert_eq!(node["last_error"]["message"], "panicked: boom");
    }
}
