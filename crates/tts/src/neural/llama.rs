//! A stack of Llama layers: grouped-query attention with rotary positions, and a gated feed-forward part, each on a
//! normalised input and added to what came in (Touvron et al., 2023; Ainslie et al., 2023; Shazeer, 2020).
//!
//! A pass is over the rows of a batch: steps of one session or of several, each at its own place in its own context.
//! All that is done to a row by itself (projections, feed-forward part, norms) is done to all rows at once, so weights
//! are read once a pass, whoever is in it. Only attention, which looks at a session's own cache, goes part by part.

use candle_core::{DType, Device, Result, Tensor};

use super::rope::{Rope, Turning};
use super::{Adapters, KvCache, Linear, RopeConfig, Wanted, Weights, WeightsError};

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

    /// A cache for `capacity` steps of each of `sessions`.
    pub(crate) fn cache(
        &self,
        sessions: usize,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<KvCache> {
        KvCache::new(
            sessions,
            self.layers,
            self.kv_heads,
            self.head,
            capacity,
            dtype,
            device,
        )
    }
}

/// A part of a batch: the rows that one cache is of, session by session and step by step.
pub(crate) struct Part<'a> {
    pub cache: &'a mut KvCache,
    /// Steps of each session.
    pub steps: usize,
}

impl Part<'_> {
    fn rows(&self) -> usize {
        self.cache.sessions() * self.steps
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

    /// Takes `[rows, hidden]`, the rows of all parts, each behind what its cache remembers, and gives the same shape,
    /// normalised.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        parts: &mut [Part<'_>],
        adapters: &Adapters<'_>,
    ) -> Result<Tensor> {
        self.forward_watched(x, parts, adapters, |_, _| {})
    }

    /// As [`Llama::forward`]; `watch` is shown what each layer gives.
    pub(crate) fn forward_watched(
        &self,
        x: &Tensor,
        parts: &mut [Part<'_>],
        adapters: &Adapters<'_>,
        mut watch: impl FnMut(usize, &Tensor),
    ) -> Result<Tensor> {
        let positions: Vec<u32> = parts.iter().flat_map(positions).collect();
        let turning = self.rope.at(&positions)?;
        let hidden = parts
            .iter()
            .map(|part| self.hidden_steps(part.steps, part.cache.steps(), x.dtype(), x.device()))
            .collect::<Result<Vec<_>>>()?;
        let mut x = x.clone();
        for (n, layer) in self.layers.iter().enumerate() {
            let normal = self.normalise(&x, &layer.before_attention)?;
            let attended = self.attend(n, layer, &normal, parts, &hidden, &turning, adapters)?;
            x = (x + layer.output.forward(&attended, adapters)?)?;
            let normal = self.normalise(&x, &layer.before_mlp)?;
            let gate = candle_nn::ops::silu(&layer.gate.forward(&normal, adapters)?)?;
            let inner = (gate * layer.up.forward(&normal, adapters)?)?;
            x = (x + layer.down.forward(&inner, adapters)?)?;
            watch(n, &x);
        }
        for part in parts {
            part.cache.advance(part.steps);
        }
        self.normalise(&x, &self.norm)
    }

    fn normalise(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, weight, self.config.norm_eps as f32)
    }

    /// What the rows see of their sessions' contexts, `[rows, heads * head]`.
    #[expect(clippy::too_many_arguments, reason = "what a pass is made of")]
    fn attend(
        &self,
        n: usize,
        layer: &Layer,
        x: &Tensor,
        parts: &mut [Part<'_>],
        hidden: &[Option<Tensor>],
        turning: &Turning,
        adapters: &Adapters<'_>,
    ) -> Result<Tensor> {
        let LlamaConfig {
            heads,
            kv_heads,
            head,
            ..
        } = self.config;
        let rows = x.dim(0)?;
        let by_head = |all: Tensor, heads: usize| all.reshape((rows, heads, 1, head));
        let queries = turning.apply(&by_head(layer.query.forward(x, adapters)?, heads)?)?;
        let keys = turning.apply(&by_head(layer.key.forward(x, adapters)?, kv_heads)?)?;
        let values = by_head(layer.value.forward(x, adapters)?, kv_heads)?;
        let mut from = 0;
        let mut attended = Vec::with_capacity(parts.len());
        for (part, hidden) in parts.iter_mut().zip(hidden) {
            let rows = part.rows();
            let own = |all: &Tensor| all.narrow(0, from, rows);
            let (queries, keys, values) = (own(&queries)?, own(&keys)?, own(&values)?);
            attended.push(self.attend_part(n, &queries, &keys, &values, part, hidden.as_ref())?);
            from += rows;
        }
        match &attended[..] {
            [only] => Ok(only.clone()),
            all => Tensor::cat(all, 0),
        }
    }

    /// Of one part's rows, each `[rows, heads, 1, head]`.
    fn attend_part(
        &self,
        n: usize,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        part: &mut Part<'_>,
        hidden: Option<&Tensor>,
    ) -> Result<Tensor> {
        let LlamaConfig {
            heads,
            kv_heads,
            head,
            ..
        } = self.config;
        let (sessions, steps) = (part.cache.sessions(), part.steps);
        let by_step = |rows: &Tensor, heads: usize| {
            rows.reshape((sessions, steps, heads, head))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (keys, values) =
            part.cache
                .append(n, &by_step(keys, kv_heads)?, &by_step(values, kv_heads)?)?;
        let all = keys.dim(2)?;
        // Heads that share keys lie beside each other, so they are as more steps to their keys: nothing is repeated.
        let sharing = heads / kv_heads;
        let queries =
            by_step(queries, heads)?.reshape((sessions, kv_heads, sharing * steps, head))?;
        let scale = 1.0 / (head as f64).sqrt();
        let scores = (queries.matmul(&keys.t()?)? * scale)?;
        let scores = match hidden {
            None => scores,
            Some(hidden) => scores
                .reshape((sessions, kv_heads, sharing, steps, all))?
                .broadcast_add(hidden)?
                .reshape((sessions, kv_heads, sharing * steps, all))?,
        };
        let shares = candle_nn::ops::softmax_last_dim(&scores.to_dtype(DType::F32)?)?;
        shares
            .to_dtype(values.dtype())?
            .matmul(&values)?
            .reshape((sessions, heads, steps, head))?
            .transpose(1, 2)?
            .reshape((sessions * steps, heads * head))
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

/// Where the rows of a part are in their contexts.
fn positions(part: &Part<'_>) -> Vec<u32> {
    let first = part.cache.steps() as u32;
    let of_session = first..first + part.steps as u32;
    vec![of_session; part.cache.sessions()]
        .into_iter()
        .flatten()
        .collect()
}
