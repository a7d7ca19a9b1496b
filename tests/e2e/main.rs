//! The scenarios that show the promises, on real Kafka and real Postgres. One binary, as each links the product's world.

mod clocks;
mod coverage;
mod endpoint;
mod exactly_once;
mod first;
mod guarded;
mod halted;
mod harness;
mod hostile;
mod libraries;
mod membership;
mod outages;
mod parked;
mod poison;
mod refusals;
mod scaling;
mod shutdown;
mod sources;
mod supervision;
mod wires;
