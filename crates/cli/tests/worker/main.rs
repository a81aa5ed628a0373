//! `duologue worker` as a process of its own, through its gRPC interface, signals and other commands.
#![allow(clippy::unwrap_used)]

mod devices;
mod drain;
mod health;
mod hosts;
mod models;
#[path = "../../../registry/tests/support/mod.rs"]
mod redis;
mod registry;
mod support;
mod tls;
