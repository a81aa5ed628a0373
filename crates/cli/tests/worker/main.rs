//! `duologue worker` as a process of its own, through its gRPC interface, signals and other commands.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "csm")]
mod csm;
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

#[cfg(not(feature = "csm"))]
#[test]
#[ignore = "a build without the feature csm has no CSM: cargo test --release -p duologue --features csm"]
fn adapters_come_change_and_go_in_a_running_worker() {}
