//! What neural voices share, on candle: each part in a file of its own, none of it knowing which model uses it.
//!
//! Two rules hold everywhere. Weights never change once they are loaded and are shared by all who speak; whatever
//! changes while something is said (a [`KvCache`], a sampler's draws, a codec's history) belongs to the one who
//! says it. And nothing here waits for the device: a value comes to the host only where the caller asks for it.

mod adapters;
pub(crate) mod device;
mod kv_cache;
mod linear;
pub(crate) mod llama;
pub(crate) mod lora;
pub(crate) mod rope;
pub(crate) mod sampler;
mod stretch;
mod weights;

pub(crate) use adapters::Adapters;
pub(crate) use kv_cache::KvCache;
pub(crate) use linear::Linear;
pub(crate) use llama::{Llama, LlamaConfig, Part};
pub(crate) use lora::LoraSet;
pub(crate) use rope::RopeConfig;
pub(crate) use sampler::Sampling;
pub(crate) use stretch::Stretcher;
pub(crate) use weights::{Arrangement, Wanted, Weights, WeightsError};
