//! A stack of Llama layers: grouped-query attention with rotary positions, and a gated feed-forward part, each on a
//! normalised input and added to what came in (Touvron et al., 2023; Ainslie et al., 2023; Shazeer, 2020).

use candle_core::{D, DType, Device, Result, Tensor};

use super::rope::Rope;
use super::{KvCache, Linear, LoraSet, RopeConfig, Wanted, Weights, WeightsError};

/// The shape of a stack.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LlamaConfig {
    /// Numbers in a step.
    pub hidden: usize,
    /// Numbers within the feed-forward part.
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    /// Heads of keys and values; each serves `heads / kv_heads` of the others.
    pub kv_heads: usize,
    /// Numbers in a head.
    pub head: usize,
    pub norm_eps: f64,
    /// Most steps in a context.
    pub positions: usize,
    pub rope: RopeConfig,
}

impl LlamaConfig {
    /// Says what is wrong with it, if anything.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let sizes = [
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head),
            ("max_position_embeddings", self.positions),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("{name} is 0"));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "{} heads cannot share {} heads of keys and values",
                self.heads, self.kv_heads
            ));
        }
        if !self.head.is_multiple_of(2) {
            return Err(format!("head_dim is {}, an odd number", self.head));
        }
        Ok(())
    }

    /// A cache for `capacity` steps.
    pub(crate) fn cache(&self, capacity: usize, dtype: DType, device: &Device) -> Result<KvCache> {
        KvCache::new(
            self.layers,
            self.kv_heads,
            self.head,
            capacity,
            dtype,
            device,
        )
    }
}

/// The stack.
pub(crate) struct Llama {
    config: LlamaConfig,
    layers: Vec<Layer>,
    norm: Tensor,
    rope: Rope,
}

struct Layer {
    before_attention: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    before_mlp: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Llama {
    /// Names and shapes of all that [`Llama::load`] reads.
    pub(crate) fn wanted(prefix: &str, config: &LlamaConfig) -> Vec<Wanted> {
        let (hidden, inner) = (config.hidden, config.intermediate);
        let (queries, keys) = (config.heads * config.head, config.kv_heads * config.head);
        let mut all = vec![(format!("{prefix}.norm.weight"), vec![hidden])];
        for layer in 0..config.layers {
            let mut add = |name: &str, shape: &[usize]| {
                all.push((
                    format!("{prefix}.layers.{layer}.{name}.weight"),
                    shape.to_vec(),
                ));
            };
            add("input_layernorm", &[hidden]);
            add("self_attn.q_proj", &[queries, hidden]);
            add("self_attn.k_proj", &[keys, hidden]);
            add("self_attn.v_proj", &[keys, hidden]);
            add("self_attn.o_proj", &[hidden, queries]);
            add("post_attention_layernorm", &[hidden]);
            add("mlp.gate_proj", &[inner, hidden]);
            add("mlp.up_proj", &[inner, hidden]);
            add("mlp.down_proj", &[hidden, inner]);
        }
        all
    }

    pub(crate) fn load(
        prefix: &str,
        config: &LlamaConfig,
        weights: &Weights,
    ) -> std::result::Result<Self, WeightsError> {
        let (hidden, inner) = (config.hidden, config.intermediate);
        let (queries, keys) = (config.heads * config.head, config.kv_heads * config.head);
        let layer = |n: usize| {
            let name = |part: &str| format!("{prefix}.layers.{n}.{part}");
            let norm = |part: &str| weights.get(&name(part), &[hidden]);
            let linear =
                |part: &str, outputs, inputs| Linear::load(weights, &name(part), outputs, inputs);
            Ok(Layer {
                before_attention: norm("input_layernorm.weight")?,
                query: linear("self_attn.q_proj", queries, hidden)?,
                key: linear("self_attn.k_proj", keys, hidden)?,
                value: linear("self_attn.v_proj", keys, hidden)?,
                output: linear("self_attn.o_proj", hidden, queries)?,
                before_mlp: norm("post_attention_layernorm.weight")?,
                gate: linear("mlp.gate_proj", inner, hidden)?,
                up: linear("mlp.up_proj", inner, hidden)?,
                down: linear("mlp.down_proj", hidden, inner)?,
            })
        };
        Ok(Llama {
            layers: (0..config.layers)
                .map(layer)
                .collect::<std::result::Result<_, WeightsError>>()?,
            norm: weights.get(&format!("{prefix}.norm.weight"), &[hidden])?,
            rope: Rope::new(
                &config.rope,
                config.head,
                config.positions,
                weights.dtype(),
                weights.device(),
            )?,
            config: config.clone(),
        })
    }

    /// Memory that the weights take, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let linears = self.layers.iter().flat_map(|l| {
            [
                &l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down,
            ]
        });
        linears.map(Linear::bytes).sum()
    }

    /// Takes `[steps, hidden]` behind what the cache remembers, and gives the same shape, normalised.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        cache: &mut KvCache,
        lora: Option<&LoraSet>,
    ) -> Result<Tensor> {
        self.forward_watched(x, cache, lora, |_, _| {})
    }

    /// As [`Llama::forward`]; `watch` is shown what each layer gives.
    pub(crate) fn forward_watched(
        &self,
        x: &Tensor,
        cache: &mut KvCache,
        lora: Option<&LoraSet>,
        mut watch: impl FnMut(usize, &Tensor),
    ) -> Result<Tensor> {
        let steps = x.dim(0)?;
        let hidden = self.hidden_steps(steps, cache.steps(), x.dtype(), x.device())?;
        let mut x = x.clone();
        for (n, layer) in self.layers.iter().enumerate() {
            let normal = self.normalise(&x, &layer.before_attention)?;
            x = (x + self.attend(n, layer, &normal, cache, hidden.as_ref(), lora)?)?;
            let normal = self.normalise(&x, &layer.before_mlp)?;
            let gate = candle_nn::ops::silu(&layer.gate.forward(&normal, lora)?)?;
            let inner = (gate * layer.up.forward(&normal, lora)?)?;
            x = (x + layer.down.forward(&inner, lora)?)?;
            watch(n, &x);
        }
        cache.advance(steps);
        self.normalise(&x, &self.norm)
    }

    fn normalise(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, weight, self.config.norm_eps as f32)
    }

    fn attend(
        &self,
        n: usize,
        layer: &Layer,
        x: &Tensor,
        cache: &mut KvCache,
        hidden: Option<&Tensor>,
        lora: Option<&LoraSet>,
    ) -> Result<Tensor> {
        let LlamaConfig {
            heads,
            kv_heads,
            head,
            ..
        } = self.config;
        let steps = x.dim(0)?;
        let by_head =
            |all: Tensor, heads: usize| all.reshape((1, steps, heads, head))?.transpose(1, 2);
        let at = cache.steps();
        let queries = self
            .rope
            .apply(&by_head(layer.query.forward(x, lora)?, heads)?, at)?;
        let keys = self
            .rope
            .apply(&by_head(layer.key.forward(x, lora)?, kv_heads)?, at)?;
        let values = by_head(layer.value.forward(x, lora)?, kv_heads)?;
        let (keys, values) = cache.append(n, &keys, &values)?;
        let all = keys.dim(2)?;
        // Heads that share keys lie beside each other, so they are as more steps to their keys: nothing is repeated.
        let sharing = heads / kv_heads;
        let queries = queries.reshape((1, kv_heads, sharing * steps, head))?;
        let scale = 1.0 / (head as f64).sqrt();
        let scores = (queries.matmul(&keys.t()?)? * scale)?;
        let scores = match hidden {
            None => scores,
            Some(hidden) => scores
                .reshape((1, kv_heads, sharing, steps, all))?
                .broadcast_add(hidden)?
                .reshape((1, kv_heads, sharing * steps, all))?,
        };
        let shares = candle_nn::ops::softmax_last_dim(&scores.to_dtype(DType::F32)?)?;
        let attended = shares
            .to_dtype(values.dtype())?
            .matmul(&values)?
            .reshape((heads, steps, head))?
            .transpose(0, 1)?
            .reshape((steps, heads * head))?;
        layer.output.forward(&attended, lora)
    }

    /// What keeps a step from seeing those after it: `[steps, all]`, added to the scores. A single step has none
    /// after it.
    fn hidden_steps(
        &self,
        steps: usize,
        before: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Option<Tensor>> {
        if steps == 1 {
            return Ok(None);
        }
        let all = before + steps;
        let values: Vec<f32> = (0..steps)
            .flat_map(|step| {
                (0..all).map(move |seen| {
                    if seen > before + step {
                        f32::NEG_INFINITY
                    } else {
                        0.0
                    }
                })
            })
            .collect();
        let hidden = Tensor::from_vec(values, (steps, all), device)?;
        Ok(Some(hidden.to_dtype(dtype)?))
    }
}

/// The last step of `[steps, numbers]`, as `[1, numbers]`.
pub(crate) fn last_step(x: &Tensor) -> Result<Tensor> {
    x.narrow(D::Minus2, x.dim(D::Minus2)? - 1, 1)
}
