//! Low-rank adapters (Hu et al., 2021) as PEFT writes them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter is loaded whole or refused: what it asks for and this does not do is named, for an adapter that is
//! half applied speaks, only wrongly.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use serde::Deserialize;
use serde_json::Value;

use super::{Weights, WeightsError};

/// Files of an adapter.
pub(crate) const CONFIG_FILE: &str = "adapter_config.json";
pub(crate) const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before the names of a wrapped model's modules.
const WRAPPED: &str = "base_model.model.";

/// An adapter, ready for use. Immutable; shared by all who speak with it.
pub(crate) struct LoraSet {
    pairs: HashMap<String, Pair>,
    bytes: usize,
}

/// The change to one matrix.
pub(super) struct Pair {
    /// `[inputs, rank]`
    down: Tensor,
    /// `[rank, outputs]`, the scale within it.
    up: Tensor,
}

impl Pair {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.down)?.matmul(&self.up)
    }
}

/// Where an adapter's matrices are put: beside the base's.
pub(crate) struct Placement {
    pub dtype: DType,
    pub device: Device,
}

/// A matrix of the base that adapters may change.
pub(crate) struct Target {
    pub outputs: usize,
    pub inputs: usize,
}

#[derive(Deserialize)]
struct Config {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
    /// All else, some of which is refused.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// Settings under which an adapter is more than two matrices beside a third, and what each means when it is set.
const REFUSED: [(&str, &str); 14] = [
    ("use_dora", "weight-decomposed adapters (DoRA)"),
    ("modules_to_save", "modules that were trained as a whole"),
    ("lora_bias", "a bias in the adapter's matrices"),
    ("fan_in_fan_out", "weights stored the other way round"),
    ("layer_replication", "layers used several times"),
    ("trainable_token_indices", "changed embeddings of tokens"),
    (
        "target_parameters",
        "adapters on parameters that are no modules",
    ),
    ("use_qalora", "quantisation-aware adapters (QA-LoRA)"),
    (
        "alora_invocation_tokens",
        "adapters that tokens switch on (aLoRA)",
    ),
    ("use_bdlora", "block-diagonal adapters"),
    ("arrow_config", "adapters that route to others (Arrow)"),
    ("kasa_config", "adapters with singular values (KaSA)"),
    (
        "monteclora_config",
        "adapters with chance in them (MonteCLoRA)",
    ),
    ("velora_config", "compressed adapters (VeLoRA)"),
];
/// Ways to begin a training that change the base itself, so that the adapter is for a base that nobody has. PEFT can
/// convert such an adapter when it saves it, and then says so.
const CHANGED_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl Config {
    fn parse(json: &str) -> std::result::Result<Self, String> {
        let config: Config = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if config.peft_type != "LORA" {
            return Err(format!(
                "peft_type is {:?}; only \"LORA\" is supported",
                config.peft_type
            ));
        }
        if config.r == 0 {
            return Err("r is 0".to_owned());
        }
        for (setting, meaning) in REFUSED {
            if config.other.get(setting).is_some_and(is_set) {
                return Err(format!("{setting} is set, and {meaning} are not supported"));
            }
        }
        if let Some(Value::String(way)) = config.other.get("init_lora_weights")
            && CHANGED_BASE.iter().any(|name| way.starts_with(name))
        {
            return Err(format!(
                "init_lora_weights is {way:?}, which changes the base; save the adapter again, converted to a plain one"
            ));
        }
        match config.other.get("bias") {
            None => {}
            Some(Value::String(none)) if none == "none" => {}
            Some(other) => {
                return Err(format!("bias is {other}; only \"none\" is supported"));
            }
        }
        let patterns = config
            .rank_pattern
            .keys()
            .chain(config.alpha_pattern.keys());
        for pattern in patterns {
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
            if !pattern.chars().all(plain) {
                return Err(format!(
                    "the pattern {pattern:?} is a regular expression; only names of modules are supported"
                ));
            }
        }
        Ok(config)
    }

    /// The factor for a module whose matrices have `rank`.
    fn scale(&self, module: &str, rank: usize) -> f64 {
        let alpha = *by_suffix(&self.alpha_pattern, module).unwrap_or(&self.lora_alpha);
        if self.use_rslora {
            alpha / (rank as f64).sqrt()
        } else {
            alpha / rank as f64
        }
    }

    fn rank(&self, module: &str) -> usize {
        *by_suffix(&self.rank_pattern, module).unwrap_or(&self.r)
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        _ => true,
    }
}

/// What is given for a module, by its whole name or by the end of it.
fn by_suffix<'a, T>(patterns: &'a BTreeMap<String, T>, module: &str) -> Option<&'a T> {
    patterns.iter().find_map(|(pattern, value)| {
        let rest = module.strip_suffix(pattern.as_str())?;
        (rest.is_empty() || rest.ends_with('.')).then_some(value)
    })
}

impl LoraSet {
    /// Reads an adapter from its folder, for a base that has `targets`. A change to any other matrix is refused,
    /// unless it changes nothing: with the default list of modules PEFT adds one to every attention layer there is,
    /// also where training never reaches it.
    ///
    /// # Errors
    /// What is missing, wrong or not supported, with the file's name.
    pub(crate) fn load(
        folder: &Path,
        targets: &HashMap<String, Target>,
        placed: &Placement,
    ) -> std::result::Result<Self, String> {
        let file = folder.join(CONFIG_FILE);
        let json =
            std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let config = Config::parse(&json).map_err(|why| format!("{}: {why}", file.display()))?;
        let file = folder.join(WEIGHTS_FILE);
        let weights =
            Weights::open(std::slice::from_ref(&file), &Device::Cpu).map_err(|e| e.to_string())?;
        Self::assemble(&config, &weights, targets, placed)
            .map_err(|why| format!("{}: {why}", file.display()))
    }

    fn assemble(
        config: &Config,
        weights: &Weights,
        targets: &HashMap<String, Target>,
        placed: &Placement,
    ) -> std::result::Result<Self, String> {
        let mut halves: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
        for name in weights.names() {
            let (module, half) = part_of(name)
                .ok_or_else(|| format!("{name} is no part of a LoRA adapter that is supported"))?;
            halves.entry(module.to_owned()).or_default()[half] = Some(name.to_owned());
        }
        if halves.is_empty() {
            return Err("there is no adapter in it".to_owned());
        }
        let mut pairs = HashMap::new();
        let mut bytes = 0;
        for (module, names) in halves {
            let [Some(a), Some(b)] = names else {
                return Err(format!("{module} has only one of lora_A and lora_B"));
            };
            let matrix = |name: &str| -> std::result::Result<Tensor, String> {
                let shape = weights.shape(name).unwrap_or_default();
                weights.get(name, &shape).map_err(|e| e.to_string())
            };
            let (a, b) = (matrix(&a)?, matrix(&b)?);
            let engine = |e: candle_core::Error| WeightsError::from(e).to_string();
            let Some(target) = targets.get(&module) else {
                let most = b.abs().and_then(|b| b.max_all()?.to_scalar::<f32>());
                if most.map_err(engine)? == 0.0 {
                    continue;
                }
                return Err(format!(
                    "it changes {module}, which an adapter cannot change here"
                ));
            };
            let rank = config.rank(&module);
            let expected = (vec![rank, target.inputs], vec![target.outputs, rank]);
            let found = (a.dims().to_vec(), b.dims().to_vec());
            if found != expected {
                return Err(format!(
                    "the matrices of {module} are {found:?} and should be {expected:?}: it is of another base, or of \
                     another rank than its configuration says"
                ));
            }
            let scale = config.scale(&module, rank);
            let place = |t: Tensor| {
                t.t()?
                    .contiguous()?
                    .to_dtype(placed.dtype)?
                    .to_device(&placed.device)
            };
            let pair = Pair {
                down: place(a).map_err(engine)?,
                up: (b * scale).and_then(place).map_err(engine)?,
            };
            bytes += [&pair.down, &pair.up]
                .map(|t| t.elem_count() * t.dtype().size_in_bytes())
                .iter()
                .sum::<usize>();
            pairs.insert(module, pair);
        }
        Ok(LoraSet { pairs, bytes })
    }

    pub(super) fn find(&self, module: &str) -> Option<&Pair> {
        self.pairs.get(module)
    }

    /// Memory taken, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Writes an adapter of no meaning for all `targets`, as PEFT writes one, to time how it is read and used.
pub(crate) fn write_random(
    folder: &Path,
    targets: &HashMap<String, Target>,
    rank: usize,
    seed: u64,
) -> std::result::Result<(), String> {
    let config = serde_json::json!({
        "peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none", "base_model_name_or_path": "random",
    });
    let file = folder.join(CONFIG_FILE);
    std::fs::write(&file, config.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
    let random = Weights::random(seed, &Device::Cpu);
    let mut tensors = HashMap::new();
    for (module, target) in targets {
        for (half, shape) in [
            ("lora_A", [rank, target.inputs]),
            ("lora_B", [target.outputs, rank]),
        ] {
            let name = format!("{WRAPPED}{module}.{half}.weight");
            let tensor = random.get(&name, &shape).and_then(|t| Ok((t * 0.1)?));
            tensors.insert(name, tensor.map_err(|e| e.to_string())?);
        }
    }
    candle_core::safetensors::save(&tensors, folder.join(WEIGHTS_FILE)).map_err(|e| e.to_string())
}

/// The module that a tensor belongs to, and which of its two matrices it is.
fn part_of(name: &str) -> Option<(&str, usize)> {
    let name = name.strip_prefix(WRAPPED).unwrap_or(name);
    let name = name.strip_suffix(".weight")?;
    // With or without the adapter's name, which PEFT leaves out when it saves.
    let name = name.strip_suffix(".default").unwrap_or(name);
    [".lora_A", ".lora_B"]
        .iter()
        .enumerate()
        .find_map(|(half, end)| Some((name.strip_suffix(end)?, half)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(more: &str) -> std::result::Result<Config, String> {
        Config::parse(&format!(
            r#"{{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "modules_to_save": null{more}}}"#
        ))
    }

    fn refusal(more: &str) -> String {
        match parse(more) {
            Err(why) => why,
            Ok(_) => panic!("{more} was taken"),
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_its_name() {
        assert!(parse("").is_ok() && parse(r#", "init_lora_weights": "gaussian""#).is_ok());
        for (setting, value) in [
            ("use_dora", "true"),
            ("fan_in_fan_out", "true"),
            ("lora_bias", "true"),
            ("layer_replication", "[[0, 2]]"),
            ("trainable_token_indices", "[1]"),
            ("init_lora_weights", "\"pissa_niter_4\""),
        ] {
            let told = refusal(&format!(r#", "{setting}": {value}"#));
            assert!(told.contains(setting), "{told}");
        }
        let json = |from: &str, to: &str| {
            let good = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "modules_to_save": null}"#;
            Config::parse(&good.replace(from, to))
                .map(|_| ())
                .unwrap_err()
        };
        assert!(json("null", r#"["lm_head"]"#).contains("modules_to_save"));
        assert!(json(r#""none""#, r#""lora_only""#).contains("bias"));
        assert!(json("LORA", "IA3").contains("IA3"));
        assert!(
            refusal(r#", "rank_pattern": {"layers\\.[0-3].*": 2}"#).contains("regular expression")
        );
    }

    #[test]
    fn the_scale_follows_the_patterns_and_the_rank() {
        let config = parse(
            r#", "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 32}"#,
        )
        .unwrap();
        assert_eq!(config.rank("a.layers.0.q_proj"), 2);
        assert_eq!(
            config.rank("a.layers.0.eq_proj"),
            4,
            "a part of a name is another name"
        );
        assert_eq!(config.scale("a.q_proj", 2), 4.0);
        assert_eq!(config.scale("a.layers.1.mlp.up_proj", 4), 8.0);
        assert_eq!(config.scale("a.layers.11.mlp.up_proj", 4), 2.0);
        let root = parse(r#", "use_rslora": true"#).unwrap();
        assert_eq!(root.scale("k_proj", 4), 4.0);
    }

    #[test]
    fn names_are_read_with_and_without_the_wrapping() {
        assert_eq!(
            part_of("base_model.model.a.b.lora_A.weight"),
            Some(("a.b", 0))
        );
        assert_eq!(
            part_of("base_model.model.a.b.lora_B.default.weight"),
            Some(("a.b", 1))
        );
        assert_eq!(
            part_of("base_model.model.a.b.lora_magnitude_vector.weight"),
            None
        );
        assert_eq!(part_of("a.b.base_layer.weight"), None);
    }
}
