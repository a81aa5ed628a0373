//! A worker seen through a real gRPC client: one file per theme, one binary for all.
#![allow(clippy::unwrap_used)]

mod control;
mod lifecycle;
mod models;
mod pacing;
mod piper;
mod refusals;
mod support;
mod synthesis;
