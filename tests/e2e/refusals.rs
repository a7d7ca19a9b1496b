//! What bad input gets: every refusal on the wire, every start that must not happen, and the commands that tell beforehand.

mod commands;
mod contents;
mod http;
mod outage;
mod starts;
pub mod wire;
