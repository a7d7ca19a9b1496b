//! The supervisor: an actor whose only work is the life of other actors.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use actix::prelude::*;
use fail::fail_point;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::child::ChildSpec;
use super::life::{Exit, Life};
use super::policy::{Backoff, Decision, History, Intensity, Restart, Strategy};
use crate::stats::{ActorState, Registry};

/// Starts one more child, after those that are there. Answered once it has been started; a child of the same name that
/// is still stopping is waited for first, so two of one name never live at once.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StartChild(pub ChildSpec);

/// Stops the named child for good.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopChild(pub String);

/// Stops all children for good; `done` is told once none is left.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopChildren {
    /// Completed when the last child has ended.
    pub done: oneshot::Sender<()>,
}

enum Command {
    Start(ChildSpec),
    Stop(String),
    StopAll(oneshot::Sender<()>),
}

/// One supervisor of the tree.
pub struct Supervisor {
    life: Life,
    commands: mpsc::UnboundedSender<Command>,
    run: Option<Run>,
}

impl Supervisor {
    /// A supervisor named `path` (its place in the tree, as in `/stats`) over `children`, started in this order and
    /// stopped in reverse.
    pub fn new(
        life: Life,
        path: &str,
        registry: Registry,
        strategy: Strategy,
        intensity: Intensity,
        backoff: Backoff,
        children: Vec<ChildSpec>,
    ) -> Self {
        // Bounded by its senders: one command for each partition that comes or goes.
        let (commands, inbox) = mpsc::unbounded_channel();
        let run = Run {
            path: path.to_owned(),
            stop: life.token().clone(),
            registry,
            strategy,
            intensity,
            backoff,
            children: children.into_iter().map(Child::new).collect(),
            exits: FuturesUnordered::new(),
            unhandled: VecDeque::new(),
            inbox,
            queued: VecDeque::new(),
            draining: Vec::new(),
            next_incarnation: 0,
        };
        Self {
            life,
            commands,
            run: Some(run),
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(run) = self.run.take() else { return ctx.stop() };
        ctx.spawn(run.run().into_actor(self).map(|exit, act, ctx| {
            if let Exit::Failed(why) = exit {
                act.life.fail(why);
            }
            ctx.stop();
        }));
    }
}

impl Handler<StartChild> for Supervisor {
    type Result = ();
    fn handle(&mut self, StartChild(spec): StartChild, _: &mut Self::Context) {
        // The loop ends only with the actor.
        let _ = self.commands.send(Command::Start(spec));
    }
}

impl Handler<StopChild> for Supervisor {
    type Result = ();
    fn handle(&mut self, StopChild(name): StopChild, _: &mut Self::Context) {
        let _ = self.commands.send(Command::Stop(name));
    }
}

impl Handler<StopChildren> for Supervisor {
    type Result = ();
    fn handle(&mut self, StopChildren { done }: StopChildren, _: &mut Self::Context) {
        let _ = self.commands.send(Command::StopAll(done));
    }
}

struct Child {
    spec: ChildSpec,
    history: History,
    state: State,
}

enum State {
    /// Not started yet, or waiting for its turn in a restart.
    Down,
    Running {
        incarnation: u64,
        stop: CancellationToken,
    },
    /// Will be started at this time.
    Waiting {
        until: Instant,
    },
    /// Told to stop, and to be forgotten when it has.
    Leaving {
        incarnation: u64,
    },
}

impl Child {
    fn new(spec: ChildSpec) -> Self {
        Self {
            spec,
            history: History::default(),
            state: State::Down,
        }
    }

    fn incarnation(&self) -> Option<u64> {
        match self.state {
            State::Running { incarnation, .. } | State::Leaving { incarnation } => Some(incarnation),
            State::Down | State::Waiting { .. } => None,
        }
    }
}

type ExitFuture = futures_util::future::BoxFuture<'static, (u64, Exit)>;

struct Run {
    path: String,
    stop: CancellationToken,
    registry: Registry,
    strategy: Strategy,
    intensity: Intensity,
    backoff: Backoff,
    children: Vec<Child>,
    exits: FuturesUnordered<ExitFuture>,
    /// Ends that came while another child's was awaited.
    unhandled: VecDeque<(u64, Exit)>,
    inbox: mpsc::UnboundedReceiver<Command>,
    /// Starts that wait for a namesake to end.
    queued: VecDeque<ChildSpec>,
    draining: Vec<oneshot::Sender<()>>,
    next_incarnation: u64,
}

impl Run {
    async fn run(mut self) -> Exit {
        // Whom an instance before this one was told to start are gone with it.
        let is_child = |name: &str| self.children.iter().any(|child| child.spec.name == name);
        self.registry.keep_children(&self.path, is_child);
        for i in 0..self.children.len() {
            self.start(i);
        }
        let stop = self.stop.clone();
        loop {
            while let Some((incarnation, exit)) = self.unhandled.pop_front() {
                if let Err(why) = self.ended(incarnation, exit).await {
                    self.stop_all().await;
                    return Exit::Failed(why);
                }
                self.after_each_step();
            }
            let wake = self.next_start();
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.stop_all().await;
                    return Exit::Stopped;
                }
                Some(end) = self.exits.next(), if !self.exits.is_empty() => self.unhandled.push_back(end),
                Some(command) = self.inbox.recv() => self.obey(command),
                () = sleep_until(wake), if wake.is_some() => self.start_due(),
            }
            self.after_each_step();
        }
    }

    fn obey(&mut self, command: Command) {
        fail_point!(&format!("supervisor::{}", self.path));
        match command {
            Command::Start(spec) => self.queued.push_back(spec),
            Command::Stop(name) => {
                self.queued.retain(|spec| spec.name != name);
                if let Some(i) = self.children.iter().position(|c| c.spec.name == name) {
                    self.leave(i);
                }
            }
            Command::StopAll(done) => {
                self.queued.clear();
                for i in (0..self.children.len()).rev() {
                    self.leave(i);
                }
                self.draining.push(done);
            }
        }
    }

    fn after_each_step(&mut self) {
        self.children.retain(|c| {
            let gone = matches!(c.state, State::Down);
            if gone {
                self.registry.remove(&format!("{}/{}", self.path, c.spec.name));
            }
            !gone
        });
        for _ in 0..self.queued.len() {
            let Some(spec) = self.queued.pop_front() else { break };
            if self.children.iter().any(|c| c.spec.name == spec.name) {
                self.queued.push_back(spec);
            } else {
                self.children.push(Child::new(spec));
                self.start(self.children.len() - 1);
            }
        }
        if self.children.is_empty() {
            for done in self.draining.drain(..) {
                let _ = done.send(());
            }
        }
    }

    /// Tells a child to stop and forgets it when it has.
    fn leave(&mut self, i: usize) {
        let child = &mut self.children[i];
        child.state = match std::mem::replace(&mut child.state, State::Down) {
            State::Running { incarnation, stop } => {
                stop.cancel();
                State::Leaving { incarnation }
            }
            State::Leaving { incarnation } => State::Leaving { incarnation },
            State::Waiting { .. } | State::Down => State::Down,
        };
    }

    fn start(&mut self, i: usize) {
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        let child = &mut self.children[i];
        let stats = self
            .registry
            .node(&format!("{}/{}", self.path, child.spec.name), child.spec.kind);
        stats.set_state(ActorState::Running);
        // No child of our own token: a stopping supervisor stops its children in their order, not all at once.
        let stop = CancellationToken::new();
        let ended = (child.spec.start)(Life::new(stop.clone(), stats));
        let without_thread = match child.spec.ends_with_its_thread {
            true => Exit::Stopped,
            false => Exit::Failed("its thread has ended".to_owned()),
        };
        child.state = State::Running { incarnation, stop };
        self.exits.push(Box::pin(async move {
            let exit = ended.await.unwrap_or(without_thread);
            (incarnation, exit)
        }));
    }

    fn next_start(&self) -> Option<Instant> {
        self.children
            .iter()
            .filter_map(|c| match c.state {
                State::Waiting { until } => Some(until),
                State::Down | State::Running { .. } | State::Leaving { .. } => None,
            })
            .min()
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for i in 0..self.children.len() {
            if matches!(self.children[i].state, State::Waiting { until } if until <= now) {
                self.start(i);
            }
        }
    }

    /// Handles a child's end; an error means that this supervisor gives up.
    async fn ended(&mut self, incarnation: u64, exit: Exit) -> Result<(), String> {
        let Some(i) = self.children.iter().position(|c| c.incarnation() == Some(incarnation)) else {
            return Ok(());
        };
        let child = &mut self.children[i];
        let path = format!("{}/{}", self.path, child.spec.name);
        let stats = self.registry.node(&path, child.spec.kind);
        if matches!(child.state, State::Leaving { .. }) {
            if exit != Exit::Stopped {
                warn!(actor = %path, %exit, "ended while stopping");
            }
            child.state = State::Down;
            return Ok(());
        }
        if exit == Exit::Stopped && child.spec.restart == Restart::Transient {
            stats.set_state(ActorState::Stopped);
            child.state = State::Down;
            return Ok(());
        }
        stats.record_exit(&exit.to_string());
        if let Exit::Failed(why) = &exit
            && child.spec.restart == Restart::AfterPanic
        {
            stats.set_state(ActorState::Failed);
            child.state = State::Down;
            return Err(why.clone());
        }
        let intensity = child.spec.intensity.unwrap_or(self.intensity);
        match child
            .history
            .decide(Instant::now(), intensity, self.backoff, rand::random())
        {
            Decision::Escalate => {
                stats.set_state(ActorState::Failed);
                // It has ended: nobody shall wait for it to stop.
                child.state = State::Down;
                let (restarts, within) = (child.history.recent(), intensity.within.as_secs());
                let why = format!("{path} {exit}, after {restarts} restarts within {within} s");
                error!(supervisor = %self.path, reason = %why, "giving up: a child keeps failing");
                Err(why)
            }
            Decision::RestartAfter(delay) => {
                warn!(actor = %path, %exit, restart = child.history.recent(), delay_ms = delay.as_millis(), "an actor ended and will be restarted");
                child.state = State::Waiting {
                    until: Instant::now() + delay,
                };
                stats.set_state(ActorState::Restarting);
                let rest = self.strategy.affected(i, self.children.len());
                for j in rest.skip(1) {
                    self.restart_dependent(j, delay).await;
                }
                Ok(())
            }
        }
    }

    /// Stops a child that depends on one that ended, and plans its start right after that one's.
    async fn restart_dependent(&mut self, i: usize, delay: Duration) {
        if let State::Running { .. } = self.children[i].state {
            self.stop_one(i).await;
            let child = &mut self.children[i];
            child.state = State::Waiting {
                until: Instant::now() + delay,
            };
            let stats = self
                .registry
                .node(&format!("{}/{}", self.path, child.spec.name), child.spec.kind);
            stats.record_restart();
            stats.set_state(ActorState::Restarting);
        }
    }

    async fn stop_all(&mut self) {
        if self.strategy == Strategy::Independent {
            for child in &self.children {
                if let State::Running { stop, .. } = &child.state {
                    stop.cancel();
                }
            }
        }
        for i in (0..self.children.len()).rev() {
            self.stop_one(i).await;
        }
    }

    async fn stop_one(&mut self, i: usize) {
        let child = &mut self.children[i];
        let path = format!("{}/{}", self.path, child.spec.name);
        let incarnation = match &child.state {
            State::Running { incarnation, stop } => {
                stop.cancel();
                *incarnation
            }
            State::Leaving { incarnation } => *incarnation,
            State::Down | State::Waiting { .. } => {
                child.state = State::Down;
                return;
            }
        };
        self.registry
            .node(&path, child.spec.kind)
            .set_state(ActorState::Stopping);
        let patience = child.spec.shutdown;
        let ended = async {
            if let Some(at) = self.unhandled.iter().position(|(which, _)| *which == incarnation) {
                return self.unhandled.remove(at).map_or(Exit::Stopped, |(_, exit)| exit);
            }
            while let Some((which, exit)) = self.exits.next().await {
                if which == incarnation {
                    return exit;
                }
                self.unhandled.push_back((which, exit));
            }
            Exit::Stopped
        };
        match tokio::time::timeout(patience, ended).await {
            Ok(Exit::Stopped) => {}
            Ok(exit) => warn!(actor = %path, %exit, "ended while stopping"),
            Err(_) => error!(actor = %path, waited_s = patience.as_secs(), "did not stop in time; going on without it"),
        }
        self.children[i].state = State::Down;
        self.registry
            .node(&path, self.children[i].spec.kind)
            .set_state(ActorState::Stopped);
    }
}

impl Drop for Run {
    /// A supervisor that panicked leaves nobody behind.
    fn drop(&mut self) {
        for child in &self.children {
            if let State::Running { stop, .. } = &child.state {
                stop.cancel();
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
