//! Models on disk and how they get there.
//!
//! A voicepack is a folder: model files, the model's own `config.json` where it has one,
//! `metadata.yaml`, and optionally `ref/` with reference audio. [`VoicepackStore`] finds, lists,
//! checks and removes them. A [`Catalogue`] says where models can be had, each file from several
//! sources that are tried in order; a [`Puller`] fetches them so that a model is either there,
//! whole and checked, or not there at all.
//!
//! ```no_run
//! use std::sync::Arc;
//! use duologue_voicepack::{Catalogue, Network, Puller, VoicepackError, VoicepackStore, data_dir};
//!
//! # async fn example() -> Result<(), VoicepackError> {
//! let store = VoicepackStore::open_default()?;
//! let catalogue = Catalogue::load(None)?;
//! let puller = Puller::new(store.clone(), Network::from_machine()?, Arc::new(()))?;
//! puller.pull(catalogue.get("silero-vad")?).await?;
//! let model = store.find("silero-vad")?.file("silero_vad.onnx");
//! # Ok(()) }
//! ```

mod catalogue;
mod disk;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod metadata;
mod net;
mod progress;
mod pull;
mod store;
mod wheel;
mod yaml;

pub use catalogue::{Catalogue, CatalogueFile, Entry, HubFile, Source, WheelMember};
pub use error::{Bytes, DeadSources, ParseError, VoicepackError};
pub use metadata::{FileRecord, Kind, METADATA_FILE, Metadata};
pub use net::{IndexSettings, Network};
pub use progress::{Event, Progress, Step};
pub use pull::{Pulled, Puller};
pub use store::{CheckedFile, FileState, Listed, Voicepack, VoicepackStore, data_dir};
