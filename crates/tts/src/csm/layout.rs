//! The two layouts that CSM is published in.
//!
//! The names that transformers gives its tensors are the canonical ones. The original release has others, and its
//! query and key rows are for a rotary embedding that turns neighbours.

use super::config::Config;
use crate::neural::Arrangement;

/// Part of every checkpoint in the original layout, and of none in the other.
pub(super) const MARK_OF_ORIGINAL: &str = "backbone.layers.0.attn.q_proj.weight";

/// How the names of Mimi's own release in transformers' layout begin, which stand in a file of their own.
const CODEC_PARTS: [&str; 7] = [
    "encoder.layers.",
    "decoder.layers.",
    "encoder_transformer.",
    "decoder_transformer.",
    "quantizer.",
    "downsample.",
    "upsample.",
];

/// The canonical name of a tensor in the original layout, and how its rows lie; `None` for one that is not renamed.
pub(super) fn from_original(name: &str, config: &Config) -> Option<(String, Arrangement)> {
    let as_is = |name: &str| Some((name.to_owned(), Arrangement::AsIs));
    match name {
        "text_embeddings.weight" => return as_is("embed_text_tokens.weight"),
        "audio_embeddings.weight" => return as_is(super::model::AUDIO_EMBEDDINGS[0]),
        "projection.weight" => return as_is("depth_decoder.model.inputs_embeds_projector.weight"),
        "codebook0_head.weight" => return as_is("lm_head.weight"),
        "audio_head" => return as_is("depth_decoder.codebooks_head.weight"),
        "backbone.norm.scale" => return as_is("backbone_model.norm.weight"),
        "decoder.norm.scale" => return as_is("depth_decoder.model.norm.weight"),
        _ => {}
    }
    let (stack, rest, shape) = match name.split_once(".layers.").unwrap_or_default() {
        ("backbone", rest) => ("backbone_model", rest, &config.backbone),
        ("decoder", rest) => ("depth_decoder.model", rest, &config.depth),
        _ => return codec(name),
    };
    let (layer, part) = rest.split_once('.')?;
    let neighbours = |heads| Arrangement::Neighbours { heads };
    let (part, arrangement) = match part {
        "attn.q_proj.weight" => ("self_attn.q_proj.weight", neighbours(shape.heads)),
        "attn.k_proj.weight" => ("self_attn.k_proj.weight", neighbours(shape.kv_heads)),
        "attn.v_proj.weight" => ("self_attn.v_proj.weight", Arrangement::AsIs),
        "attn.output_proj.weight" => ("self_attn.o_proj.weight", Arrangement::AsIs),
        "sa_norm.scale" => ("input_layernorm.weight", Arrangement::AsIs),
        "mlp_norm.scale" => ("post_attention_layernorm.weight", Arrangement::AsIs),
        "mlp.w1.weight" => ("mlp.gate_proj.weight", Arrangement::AsIs),
        "mlp.w2.weight" => ("mlp.down_proj.weight", Arrangement::AsIs),
        "mlp.w3.weight" => ("mlp.up_proj.weight", Arrangement::AsIs),
        _ => return codec(name),
    };
    Some((format!("{stack}.layers.{layer}.{part}"), arrangement))
}

fn codec(name: &str) -> Option<(String, Arrangement)> {
    let of_codec = CODEC_PARTS.iter().any(|part| name.starts_with(part));
    of_codec.then(|| (format!("{}{name}", super::model::CODEC), Arrangement::AsIs))
}
