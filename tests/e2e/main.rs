//! The scenarios that show the promises, on real Kafka and real Postgres. One binary, as each links the product's world.

mod first;
mod harness;
mod sources;
