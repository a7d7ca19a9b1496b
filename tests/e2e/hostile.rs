//! Clients that mean harm: what they send is refused, what they draw out ends, and honest clients hardly notice.

mod crowd;
mod drawn_out;
mod smuggling;
mod under_attack;
