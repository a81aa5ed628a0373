//! `config.json` of a CSM checkpoint: as transformers writes it, or as the original release does.

use candle_transformers::models::mimi;
use serde::Deserialize;

use crate::neural::rope::Llama3Scaling;
use crate::neural::{LlamaConfig, RopeConfig};

/// The shape of a model.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Tokens of text.
    pub text_vocabulary: usize,
    /// Tokens of one codebook, those without a sound included.
    pub vocabulary: usize,
    /// Codes a frame.
    pub codebooks: usize,
    /// The code that, in all codebooks of a frame, ends a turn.
    pub end_code: u32,
    pub backbone: LlamaConfig,
    pub depth: LlamaConfig,
    pub codec: CodecConfig,
}

/// The shape of the codec, Mimi.
#[derive(Clone, Debug)]
pub(crate) struct CodecConfig {
    pub mimi: mimi::Config,
    /// Samples of a frame.
    pub frame: usize,
    /// Codes of a codebook that have a sound.
    pub codes: usize,
    /// Samples a second.
    pub rate: u32,
}

#[derive(Deserialize)]
struct File {
    /// Only in the original release's file.
    backbone_flavor: Option<String>,
    decoder_flavor: Option<String>,
    #[serde(default = "published::text_vocabulary")]
    text_vocab_size: usize,
    #[serde(default = "published::vocabulary", alias = "audio_vocab_size")]
    vocab_size: usize,
    #[serde(default = "published::codebooks", alias = "audio_num_codebooks")]
    num_codebooks: usize,
    #[serde(default)]
    codebook_eos_token_id: u32,
    #[serde(flatten)]
    stack: Stack,
    #[serde(default)]
    depth_decoder_config: Stack,
    #[serde(default)]
    codec_config: Codec,
}

/// A stack of layers; what is not written is as in the published model.
#[derive(Default, Deserialize)]
struct Stack {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    rope_theta: Option<f64>,
    /// The older name.
    rope_scaling: Option<RopeFile>,
    rope_parameters: Option<RopeFile>,
}

#[derive(Clone, Default, Deserialize)]
struct RopeFile {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Codec {
    sampling_rate: u32,
    audio_channels: usize,
    hidden_size: usize,
    num_filters: usize,
    num_residual_layers: usize,
    upsampling_ratios: Vec<usize>,
    kernel_size: usize,
    last_kernel_size: usize,
    residual_kernel_size: usize,
    dilation_growth_rate: usize,
    compress: usize,
    codebook_size: usize,
    codebook_dim: usize,
    num_quantizers: usize,
    use_conv_shortcut: bool,
    vector_quantization_hidden_dimension: usize,
    num_semantic_quantizers: usize,
    num_hidden_layers: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    sliding_window: usize,
    rope_theta: f64,
    pad_mode: String,
    use_causal_conv: bool,
}

impl Default for Codec {
    /// Mimi as it was published.
    fn default() -> Self {
        Codec {
            sampling_rate: 24_000,
            audio_channels: 1,
            hidden_size: 512,
            num_filters: 64,
            num_residual_layers: 1,
            upsampling_ratios: vec![8, 6, 5, 4],
            kernel_size: 7,
            last_kernel_size: 3,
            residual_kernel_size: 3,
            dilation_growth_rate: 2,
            compress: 2,
            codebook_size: 2_048,
            codebook_dim: 256,
            num_quantizers: 32,
            use_conv_shortcut: false,
            vector_quantization_hidden_dimension: 256,
            num_semantic_quantizers: 1,
            num_hidden_layers: 8,
            intermediate_size: 2_048,
            num_attention_heads: 8,
            num_key_value_heads: 8,
            sliding_window: 250,
            rope_theta: 10_000.0,
            pad_mode: "constant".to_owned(),
            use_causal_conv: true,
        }
    }
}

/// CSM-1B as it was published.
mod published {
    use super::{Llama3Scaling, LlamaConfig, RopeConfig};

    pub(super) fn text_vocabulary() -> usize {
        128_256
    }

    pub(super) fn vocabulary() -> usize {
        2_051
    }

    pub(super) fn codebooks() -> usize {
        32
    }

    /// Llama 3.2's stretching.
    fn rope() -> RopeConfig {
        RopeConfig {
            theta: 500_000.0,
            scaling: Some(Llama3Scaling {
                factor: 32.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original: 8_192.0,
            }),
        }
    }

    pub(super) fn backbone() -> LlamaConfig {
        LlamaConfig {
            hidden: 2_048,
            intermediate: 8_192,
            layers: 16,
            heads: 32,
            kv_heads: 8,
            head: 64,
            norm_eps: 1e-5,
            positions: 2_048,
            rope: rope(),
        }
    }

    pub(super) fn depth() -> LlamaConfig {
        LlamaConfig {
            hidden: 1_024,
            layers: 4,
            heads: 8,
            kv_heads: 2,
            head: 128,
            positions: 33,
            ..backbone()
        }
    }
}

impl Config {
    /// CSM-1B as it was published.
    pub(crate) fn published() -> Self {
        // Nothing in an empty file can be wrong.
        Self::parse("{}").unwrap_or_else(|why| unreachable!("the published shape is sound: {why}"))
    }

    /// A model of the published form, so small that a CPU speaks with it in no time. For tests and benches.
    pub(crate) fn tiny() -> Self {
        Self::parse(include_str!("tiny.json"))
            .unwrap_or_else(|why| unreachable!("the tiny shape is sound: {why}"))
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let flavors = [
            (&file.backbone_flavor, "llama-1B"),
            (&file.decoder_flavor, "llama-100M"),
        ];
        for (given, known) in flavors {
            if given.as_ref().is_some_and(|given| given != known) {
                return Err(format!(
                    "a stack of the flavor {given:?} is not known, only {known}"
                ));
            }
        }
        let backbone = file.stack.resolve(published::backbone(), "the backbone")?;
        let mut depth = file
            .depth_decoder_config
            .resolve(published::depth(), "the depth decoder")?;
        depth.positions = depth.positions.max(file.num_codebooks + 1);
        let config = Config {
            text_vocabulary: file.text_vocab_size,
            vocabulary: file.vocab_size,
            codebooks: file.num_codebooks,
            end_code: file.codebook_eos_token_id,
            backbone,
            depth,
            codec: file.codec_config.resolve()?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.codebooks < 2 {
            return Err(format!("num_codebooks is {}: 2 at least", self.codebooks));
        }
        if self.codec.mimi.quantizer_n_q != self.codebooks {
            return Err(format!(
                "the codec has {} codebooks and the model {}",
                self.codec.mimi.quantizer_n_q, self.codebooks
            ));
        }
        if self.codec.codes > self.vocabulary {
            return Err(format!(
                "the codec has {} codes in a codebook and the model {}",
                self.codec.codes, self.vocabulary
            ));
        }
        if self.text_vocabulary == 0 {
            return Err("text_vocab_size is 0".to_owned());
        }
        Ok(())
    }
}

impl Stack {
    fn resolve(self, published: LlamaConfig, what: &str) -> Result<LlamaConfig, String> {
        let unsupported = [
            ("attention_bias", self.attention_bias == Some(true)),
            ("mlp_bias", self.mlp_bias == Some(true)),
            (
                "hidden_act",
                self.hidden_act.as_ref().is_some_and(|act| act != "silu"),
            ),
        ];
        if let Some((setting, _)) = unsupported.iter().find(|(_, set)| *set) {
            return Err(format!("{setting} of {what} is not supported"));
        }
        let heads = self.num_attention_heads.unwrap_or(published.heads);
        let hidden = self.hidden_size.unwrap_or(published.hidden);
        let derived = if self.hidden_size.is_some() || self.num_attention_heads.is_some() {
            hidden / heads.max(1)
        } else {
            published.head
        };
        let rope = match self.rope_parameters.or(self.rope_scaling) {
            None => RopeConfig {
                theta: self.rope_theta.unwrap_or(published.rope.theta),
                ..published.rope
            },
            Some(file) => file.resolve(self.rope_theta.unwrap_or(published.rope.theta), what)?,
        };
        let config = LlamaConfig {
            hidden,
            intermediate: self.intermediate_size.unwrap_or(published.intermediate),
            layers: self.num_hidden_layers.unwrap_or(published.layers),
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(published.kv_heads),
            head: self.head_dim.unwrap_or(derived),
            norm_eps: self.rms_norm_eps.unwrap_or(published.norm_eps),
            positions: self.max_position_embeddings.unwrap_or(published.positions),
            rope,
        };
        config.check().map_err(|why| format!("{what}: {why}"))?;
        Ok(config)
    }
}

impl RopeFile {
    fn resolve(self, theta: f64, what: &str) -> Result<RopeConfig, String> {
        let theta = self.rope_theta.unwrap_or(theta);
        let scaling = match self.rope_type.as_deref() {
            None | Some("default") => None,
            Some("llama3") => {
                let need = |value: Option<f64>, name: &str| {
                    value.ok_or_else(|| format!("the rotary embedding of {what} has no {name}"))
                };
                Some(Llama3Scaling {
                    factor: need(self.factor, "factor")?,
                    low_freq_factor: need(self.low_freq_factor, "low_freq_factor")?,
                    high_freq_factor: need(self.high_freq_factor, "high_freq_factor")?,
                    original: need(
                        self.original_max_position_embeddings,
                        "original_max_position_embeddings",
                    )?,
                })
            }
            Some(other) => {
                return Err(format!(
                    "the rotary embedding of {what} is of the type {other:?}; default and llama3 are supported"
                ));
            }
        };
        Ok(RopeConfig { theta, scaling })
    }
}

impl Codec {
    fn resolve(self) -> Result<CodecConfig, String> {
        let wrong = |why: &str| Err(format!("the codec: {why}"));
        if !self.use_causal_conv || self.pad_mode != "constant" {
            return wrong("only causal convolutions with constant padding can be streamed");
        }
        if self.num_semantic_quantizers != 1 || self.num_quantizers < 2 {
            return wrong("it has to have one semantic codebook, and others");
        }
        if self.num_key_value_heads != self.num_attention_heads {
            return wrong("heads that share keys are not supported");
        }
        if self.codebook_dim != self.vector_quantization_hidden_dimension {
            return wrong("codebook_dim and vector_quantization_hidden_dimension differ");
        }
        if self.sliding_window < 2 {
            return wrong("sliding_window is below 2");
        }
        let frame = 2 * self.upsampling_ratios.iter().product::<usize>();
        if frame == 0 || self.sampling_rate == 0 {
            return wrong("a frame without samples");
        }
        let mut mimi = mimi::Config::v0_1(Some(self.num_quantizers));
        mimi.channels = self.audio_channels;
        mimi.sample_rate = f64::from(self.sampling_rate);
        mimi.frame_rate = f64::from(self.sampling_rate) / frame as f64;
        mimi.quantizer_bins = self.codebook_size;
        mimi.quantizer_dim = self.codebook_dim;
        let net = &mut mimi.seanet;
        net.dimension = self.hidden_size;
        net.channels = self.audio_channels;
        net.n_filters = self.num_filters;
        net.n_residual_layers = self.num_residual_layers;
        net.ratios = self.upsampling_ratios;
        net.kernel_size = self.kernel_size;
        net.last_kernel_size = self.last_kernel_size;
        net.residual_kernel_size = self.residual_kernel_size;
        net.dilation_base = self.dilation_growth_rate;
        net.compress = self.compress;
        net.true_skip = !self.use_conv_shortcut;
        let transformer = &mut mimi.transformer;
        transformer.d_model = self.hidden_size;
        transformer.num_heads = self.num_attention_heads;
        transformer.num_layers = self.num_hidden_layers;
        transformer.dim_feedforward = self.intermediate_size;
        transformer.context = self.sliding_window;
        transformer.max_period = self.rope_theta as usize;
        Ok(CodecConfig {
            mimi,
            frame,
            codes: self.codebook_size,
            rate: self.sampling_rate,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What sesame/csm-1b says of itself, less what is not read.
    const PUBLISHED: &str = r#"{"model_type": "csm", "hidden_size": 2048, "num_attention_heads": 32,
        "num_key_value_heads": 8, "num_hidden_layers": 16, "intermediate_size": 8192, "head_dim": 64, "vocab_size": 2051,
        "text_vocab_size": 128256, "num_codebooks": 32, "max_position_embeddings": 2048, "rope_theta": 500000,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 0.5, "low_freq_factor": 0.125,
            "original_max_position_embeddings": 1024, "rope_type": "llama3"},
        "depth_decoder_config": {"hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 2,
            "num_hidden_layers": 4, "intermediate_size": 8192, "head_dim": 128, "max_position_embeddings": 33,
            "rope_theta": 500000, "rope_scaling": {"factor": 32.0, "high_freq_factor": 0.0078125,
            "low_freq_factor": 0.001953125, "original_max_position_embeddings": 16, "rope_type": "llama3"}},
        "codec_config": {"model_type": "mimi", "num_quantizers": 32}}"#;

    #[test]
    fn the_two_releases_describe_the_same_model() {
        let original = r#"{"backbone_flavor": "llama-1B", "decoder_flavor": "llama-100M", "text_vocab_size": 128256,
            "audio_vocab_size": 2051, "audio_num_codebooks": 32}"#;
        let (one, other) = (
            Config::parse(PUBLISHED).unwrap(),
            Config::parse(original).unwrap(),
        );
        assert_eq!(other.codebooks, 32);
        for (a, b) in [(&one.backbone, &other.backbone), (&one.depth, &other.depth)] {
            let plain = |c: &LlamaConfig| LlamaConfig {
                rope: a.rope,
                ..c.clone()
            };
            assert_eq!(plain(a), plain(b));
            let turns = a
                .rope
                .frequencies(a.head)
                .into_iter()
                .zip(b.rope.frequencies(b.head));
            assert!(
                turns
                    .into_iter()
                    .all(|(x, y)| (x - y).abs() <= 1e-12 * x.abs())
            );
        }
        assert_eq!((one.codec.frame, one.codec.rate), (1_920, 24_000));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_name() {
        for (from, to, told) in [
            ("\"llama3\"", "\"yarn\"", "yarn"),
            (
                "\"num_quantizers\": 32",
                "\"num_quantizers\": 16",
                "codebooks",
            ),
            (
                "\"num_attention_heads\": 8",
                "\"num_attention_heads\": 7",
                "the depth decoder",
            ),
            ("\"vocab_size\": 2051", "\"vocab_size\": 100", "codes"),
            (
                "\"hidden_size\": 2048,",
                "\"hidden_size\": 2048, \"mlp_bias\": true,",
                "mlp_bias",
            ),
        ] {
            let refused = Config::parse(&PUBLISHED.replace(from, to)).unwrap_err();
            assert!(refused.contains(told), "{to}: {refused}");
        }
    }
}
