//! Networks that are not perfect: they lose, delay, reorder and double datagrams, the same way for the same seed.
//!
//! What `tc netem` does in a kernel, without one that has it and without being root. [`Link`] decides what becomes
//! of each datagram and knows no clock; [`Relay`] carries UDP datagrams between two sides as a link says.

mod link;
mod relay;

pub use link::{Arrivals, Dice, Link, Weather};
pub use relay::Relay;
