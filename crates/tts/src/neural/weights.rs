//! Where a model's weights come from: a checkpoint's files, or chance where a caller asks for it by name.
//!
//! A checkpoint is looked over before anything is read of it: what the model needs is a list of names and shapes,
//! and a checkpoint that lacks one is refused with all that it lacks. So a file that is cut short, or that is
//! another model's, is told from the first bad tensor to the last and not when half of it is in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::device;

/// A tensor that a model needs: its name and shape.
pub(crate) type Wanted = (String, Vec<usize>);

/// How many of a checkpoint's faults are named.
const NAMED: usize = 6;

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WeightsError {
    /// A file is not there, is cut short, or is of another kind.
    #[error("{}: {why}", file.display())]
    Unreadable { file: PathBuf, why: String },
    /// Tensors are missing, or are of another shape.
    #[error("the checkpoint does not fit its configuration: {0}")]
    Misfit(String),
    /// The library failed.
    #[error("{0}")]
    Engine(#[from] candle_core::Error),
}

/// How a tensor's rows lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// As they are used.
    AsIs,
    /// The rows of a query or key projection, for a rotary embedding that turns neighbours (0 with 1, 2 with 3);
    /// here halves are turned (0 with n/2). `heads` is the number of heads that the rows are of.
    Neighbours { heads: usize },
}

struct Stored {
    name: String,
    arrangement: Arrangement,
}

enum Source {
    Files {
        tensors: MmapedSafetensors,
        /// By the name that the model uses.
        names: BTreeMap<String, Stored>,
    },
    Random {
        seed: u64,
    },
}

/// The weights of one model on one device.
pub(crate) struct Weights {
    source: Source,
    device: Device,
    dtype: DType,
}

impl Weights {
    /// Opens a checkpoint in safetensors files, of which each tensor stands in one.
    ///
    /// # Errors
    /// [`WeightsError::Unreadable`] with the file and what is wrong with it.
    pub(crate) fn open(files: &[PathBuf], device: &Device) -> Result<Self, WeightsError> {
        for file in files {
            check_file(file)?;
        }
        // SAFETY: the files are mapped for as long as the weights are read, and a file that another process changes
        // meanwhile would change under us. Voicepacks are replaced as whole folders, never written in place, so that
        // a mapping keeps the old files; `check_file` has seen that all that the headers promise is there.
        let tensors = unsafe { MmapedSafetensors::multi(files)? };
        let names = tensors.tensors().into_iter().map(|(name, _)| {
            let stored = Stored {
                name: name.clone(),
                arrangement: Arrangement::AsIs,
            };
            (name, stored)
        });
        Ok(Weights {
            source: Source::Files {
                names: names.collect(),
                tensors,
            },
            dtype: device::dtype(device),
            device: device.clone(),
        })
    }

    /// Weights of no meaning in any shape, to time a model whose checkpoint is not at hand. Whoever calls this has
    /// been asked for it: nothing falls back on it.
    pub(crate) fn random(seed: u64, device: &Device) -> Self {
        Weights {
            source: Source::Random { seed },
            dtype: device::dtype(device),
            device: device.clone(),
        }
    }

    /// Renames what is stored: `rule` gives the model's name for a stored one and how it is arranged, or `None` to
    /// leave it as it is.
    pub(crate) fn rename(mut self, rule: impl Fn(&str) -> Option<(String, Arrangement)>) -> Self {
        if let Source::Files { names, .. } = &mut self.source {
            let old = std::mem::take(names);
            names.extend(old.into_iter().map(|(name, stored)| match rule(&name) {
                Some((renamed, arrangement)) => (
                    renamed,
                    Stored {
                        arrangement,
                        ..stored
                    },
                ),
                None => (name, stored),
            }));
        }
        self
    }

    /// Whether there is a tensor of that name. Chance has every one.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.source {
            Source::Files { names, .. } => names.contains_key(name),
            Source::Random { .. } => true,
        }
    }

    /// The names there are; none where chance makes them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let names = match &self.source {
            Source::Files { names, .. } => Some(names.keys().map(String::as_str)),
            Source::Random { .. } => None,
        };
        names.into_iter().flatten()
    }

    /// The shape of a tensor as it is stored.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.source {
            Source::Files { tensors, names } => {
                let view = tensors.get(&names.get(name)?.name).ok()?;
                Some(view.shape().to_vec())
            }
            Source::Random { .. } => None,
        }
    }

    /// The device that tensors are put on.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The type that tensors are converted to.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sees whether all that is wanted is there and has its shape.
    ///
    /// # Errors
    /// [`WeightsError::Misfit`], naming what is missing and what has another shape.
    pub(crate) fn check(&self, wanted: &[Wanted]) -> Result<(), WeightsError> {
        if matches!(self.source, Source::Random { .. }) {
            return Ok(());
        }
        let (mut missing, mut shapes) = (Vec::new(), Vec::new());
        for (name, shape) in wanted {
            match self.shape(name) {
                None => missing.push(name.clone()),
                Some(found) if found != *shape => {
                    shapes.push(format!("{name} is {found:?} and should be {shape:?}"));
                }
                Some(_) => {}
            }
        }
        let mut told = Vec::new();
        if !missing.is_empty() {
            told.push(format!(
                "{} of {} tensors are missing: {}",
                missing.len(),
                wanted.len(),
                some_of(&missing)
            ));
        }
        if !shapes.is_empty() {
            told.push(format!(
                "{} tensors have another shape: {}",
                shapes.len(),
                some_of(&shapes)
            ));
        }
        if told.is_empty() {
            Ok(())
        } else {
            Err(WeightsError::Misfit(told.join("; ")))
        }
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// [`WeightsError::Misfit`] when it is not there or has another shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, WeightsError> {
        self.get_as(name, shape, self.dtype, &self.device)
    }

    /// As [`Weights::get`], in another type or on another device than the rest.
    pub(crate) fn get_as(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, WeightsError> {
        let (tensors, stored) = match &self.source {
            Source::Random { seed } => {
                let values = random(*seed, name, shape);
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
                return Ok(tensor.to_dtype(dtype)?.to_device(device)?);
            }
            Source::Files { tensors, names } => {
                self.check(&[(name.to_owned(), shape.to_vec())])?;
                (tensors, &names[name])
            }
        };
        let mut tensor = tensors.load(&stored.name, &Device::Cpu)?;
        if let Arrangement::Neighbours { heads } = stored.arrangement {
            tensor = halves(&tensor, heads)?;
        }
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }
}

/// Brings rows for a rotary embedding of neighbours into the order for one of halves: within a head, all even rows
/// and then all odd ones.
fn halves(rows: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let (all, columns) = rows.dims2()?;
    rows.reshape((heads, all / heads / 2, 2, columns))?
        .transpose(1, 2)?
        .reshape((all, columns))
}

/// Sees whether a file is whole: its header is one, and the file is as long as that says.
fn check_file(file: &Path) -> Result<(), WeightsError> {
    use std::io::Read;
    let wrong = |why: String| WeightsError::Unreadable {
        file: file.to_owned(),
        why,
    };
    let read = |e: std::io::Error| wrong(format!("cannot be read: {e}"));
    let mut opened = std::fs::File::open(file).map_err(read)?;
    let length = opened.metadata().map_err(read)?.len();
    let mut head = [0; 8];
    let foreign = || wrong("is not in the safetensors format".to_owned());
    opened.read_exact(&mut head).map_err(|_| foreign())?;
    let header = u64::from_le_bytes(head);
    // A header of a hundred megabytes is none.
    if header > 100_000_000 {
        return Err(foreign());
    }
    let mut json = vec![0; header as usize];
    if opened.read_exact(&mut json).is_err() {
        return Err(wrong("is cut short within its header".to_owned()));
    }
    let json: serde_json::Value = serde_json::from_slice(&json).map_err(|_| foreign())?;
    let tensors = json.as_object().ok_or_else(foreign)?;
    let end = tensors
        .values()
        .filter_map(|tensor| tensor["data_offsets"][1].as_u64())
        .max()
        .unwrap_or(0);
    let promised = 8 + header + end;
    if length < promised {
        return Err(wrong(format!(
            "is cut short: it has {length} of {promised} bytes; fetch it again"
        )));
    }
    Ok(())
}

fn some_of(items: &[String]) -> String {
    let mut told = items[..items.len().min(NAMED)].join(", ");
    if items.len() > NAMED {
        told.push_str(&format!(" and {} more", items.len() - NAMED));
    }
    told
}

/// Values of a size with which a signal neither dies nor explodes on its way through the layers; the same for a
/// seed and a name.
fn random(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let last = name.rsplit('.').next().unwrap_or(name);
    let norm = name.contains("norm");
    match last {
        "cluster_usage" | "initialized" => return vec![1.0; count],
        "scale" => return vec![0.1; count],
        "bias" => return vec![0.0; count],
        "weight" if norm => return vec![1.0; count],
        _ => {}
    }
    let inputs: usize = match shape {
        [] | [_] => 1,
        // An embedding's row is as large as a layer's output; a projection sums over all its inputs.
        [_, _] if name.contains("embed") => 1,
        [_, inputs] => *inputs,
        // A stack of projections, each from its rows to its columns.
        [_, inputs, _] if name.contains("head") => *inputs,
        [_, inner @ ..] => inner.iter().product(),
    };
    let spread = (3.0 / inputs.max(1) as f32).sqrt();
    let mut random = StdRng::seed_from_u64(name.bytes().fold(seed, |mix, byte| {
        (mix ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }));
    (0..count)
        .map(|_| (random.random::<f32>() * 2.0 - 1.0) * spread)
        .collect()
}
