use std::path::{Path, PathBuf};

/// What kept a model from listening.
#[derive(Debug, thiserror::Error)]
pub enum VadError {
    /// The model file cannot be loaded.
    #[error(
        "cannot load the model {path}: {reason}. `duologue models verify` tells if it is damaged"
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The file is an ONNX model, but not the one that is expected.
    #[error("{path} is not a {expected} model: {reason}")]
    WrongModel {
        /// The file.
        path: PathBuf,
        /// The model that is expected.
        expected: &'static str,
        /// How it differs.
        reason: String,
    },
    /// The model failed on this sound.
    #[error("the {model} model failed: {reason}")]
    Run {
        /// The model.
        model: &'static str,
        /// What it said.
        reason: String,
    },
}

impl VadError {
    pub(crate) fn load(path: &Path, error: impl ToString) -> VadError {
        VadError::Load {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn wrong(path: &Path, expected: &'static str, error: impl ToString) -> VadError {
        VadError::WrongModel {
            path: path.to_owned(),
            expected,
            reason: error.to_string(),
        }
    }

    pub(crate) fn run(model: &'static str, error: impl ToString) -> VadError {
        VadError::Run {
            model,
            reason: error.to_string(),
        }
    }
}
