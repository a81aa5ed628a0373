//! Cuts a Piper voice into models that can be run piece by piece.
//!
//! Piper's graph (VITS: Kim et al., *Conditional Variational Autoencoder with Adversarial Learning for
//! End-to-End Text-to-Speech*, 2021) speaks a sentence in one go. But only its text encoder looks at the whole
//! sentence. What follows, a normalizing flow and a HiFi-GAN vocoder, is convolutions: each output depends on
//! a few frames on either side. So the graph is cut into
//!
//! - an encoder: phonemes to, for each of them, its number of frames and a mean and deviation per channel;
//! - stages, each from a row of frames to a row of frames or samples, with the context it needs on each side.
//!   Cutting the flow between its layers, and the vocoder before each rise in rate, keeps the contexts short,
//!   and so what has to be computed twice where two windows meet.
//!
//! The graph's random numbers become inputs. Values are found by what surrounds them and not by name, since
//! the exporter numbers them differently for each voice.

use std::collections::{BTreeSet, HashMap, HashSet};

use rten_onnx::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::intact;

/// The encoder, as an ONNX file.
pub(super) struct EncoderPart {
    pub onnx: Vec<u8>,
    /// Noise of the duration predictor, `[1, 2, phonemes]`; absent in voices with a deterministic one.
    pub noise: Option<String>,
    /// Whether the speaker is an input, `sid`.
    pub speaker: bool,
    /// Frames of each phoneme, `[1, 1, phonemes]`.
    pub durations: String,
    /// `[1, channels, phonemes]`.
    pub mean: String,
    /// Logarithm of the standard deviation, `[1, channels, phonemes]`.
    pub log_deviation: String,
}

/// One stage, as an ONNX file.
pub(super) struct StagePart {
    pub onnx: Vec<u8>,
    pub input: String,
    pub output: String,
    /// An input of ones, `[1, 1, frames]`, where the stage has one.
    pub mask: Option<String>,
    /// Whether the speaker is an input, `sid`.
    pub speaker: bool,
    /// Frames needed on each side of those that are wanted; `None`: all.
    pub context: Option<usize>,
    /// Output frames for an input frame.
    pub scale: usize,
}

/// Operators that keep frames apart.
const FRAMEWISE: &[&str] = &[
    "Add",
    "Concat",
    "Constant",
    "Div",
    "Exp",
    "Identity",
    "LeakyRelu",
    "Mul",
    "Neg",
    "Relu",
    "Sigmoid",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Tanh",
    "Unsqueeze",
];

/// Cuts a voice.
///
/// # Errors
/// What was looked for in the graph and not found.
pub(super) fn cut(onnx: &[u8]) -> Result<(EncoderPart, Vec<StagePart>), String> {
    intact::check(onnx).map_err(|e| format!("not an ONNX file: {e}"))?;
    let model = ModelProto::parse_buf(onnx).map_err(|e| format!("not an ONNX file: {e}"))?;
    let graph = Graph::new(&model)?;
    let landmarks = Landmarks::find(&graph)?;
    let encoder = graph.encoder(&landmarks)?;
    let mut stages = Vec::new();
    let cuts = graph.cuts(&landmarks)?;
    for ends in cuts.windows(2) {
        stages.push(graph.stage(&landmarks, &ends[0], &ends[1])?);
    }
    Ok((encoder, stages))
}

struct Graph<'a> {
    model: &'a ModelProto,
    nodes: &'a [NodeProto],
    /// Number of the node that makes a value.
    producer: HashMap<&'a str, usize>,
    constants: HashMap<&'a str, &'a TensorProto>,
    output: &'a str,
}

/// The values at which the graph is cut.
struct Landmarks {
    duration_noise: Option<String>,
    durations: String,
    mean: String,
    log_deviation: String,
    /// Where the frames enter the flow.
    frames: String,
    mask: Option<String>,
    /// Where they enter the vocoder.
    latent: String,
}

/// What a value is computed from.
struct Ancestry {
    nodes: BTreeSet<usize>,
    constants: BTreeSet<String>,
    /// Inputs of the graph among them.
    inputs: BTreeSet<String>,
    /// Which of the given stops were met.
    met: BTreeSet<String>,
}

impl<'a> Graph<'a> {
    fn new(model: &'a ModelProto) -> Result<Self, String> {
        let graph = model.graph.as_ref().ok_or("the ONNX file has no graph")?;
        let outputs =
            |(i, n): (usize, &'a NodeProto)| n.output.iter().map(move |o| (o.as_str(), i));
        let named = |t: &'a TensorProto| Some((t.name.as_deref()?, t));
        Ok(Graph {
            model,
            nodes: &graph.node,
            producer: graph.node.iter().enumerate().flat_map(outputs).collect(),
            constants: graph.initializer.iter().filter_map(named).collect(),
            output: match graph.output.as_slice() {
                [one] => one
                    .name
                    .as_deref()
                    .ok_or("the graph's output has no name")?,
                _ => return Err("the graph has more than one output".to_owned()),
            },
        })
    }

    fn made_by(&self, value: &str, operator: &str) -> Option<&'a NodeProto> {
        let node = &self.nodes[*self.producer.get(value)?];
        (node.op_type.as_deref() == Some(operator)).then_some(node)
    }

    fn of_type<'s>(&'s self, operator: &'s str) -> impl Iterator<Item = &'a NodeProto> + 's {
        self.nodes
            .iter()
            .filter(move |n| n.op_type.as_deref() == Some(operator))
    }

    fn ancestry(&self, values: &[&str], stops: &[&str]) -> Ancestry {
        let stops: HashSet<&str> = stops.iter().copied().collect();
        let mut found = Ancestry {
            nodes: BTreeSet::new(),
            constants: BTreeSet::new(),
            inputs: BTreeSet::new(),
            met: BTreeSet::new(),
        };
        let mut open: Vec<&str> = values.to_vec();
        while let Some(value) = open.pop() {
            if value.is_empty() {
                // An optional input that is left out.
            } else if stops.contains(value) {
                found.met.insert(value.to_owned());
            } else if let Some(&node) = self.producer.get(value) {
                if found.nodes.insert(node) {
                    open.extend(self.nodes[node].input.iter().map(String::as_str));
                }
            } else if self.constants.contains_key(value) {
                found.constants.insert(value.to_owned());
            } else {
                found.inputs.insert(value.to_owned());
            }
        }
        found
    }

    /// A model of its own from part of the graph.
    fn extract(
        &self,
        part: &Ancestry,
        inputs: &[&str],
        outputs: &[&str],
    ) -> Result<Vec<u8>, String> {
        let info = |name: &&str| ValueInfoProto {
            name: Some((*name).to_owned()),
            ..ValueInfoProto::default()
        };
        let graph = GraphProto {
            node: part.nodes.iter().map(|&n| self.nodes[n].clone()).collect(),
            initializer: part
                .constants
                .iter()
                .map(|c| self.constants[c.as_str()].clone())
                .collect(),
            input: inputs.iter().map(info).collect(),
            output: outputs.iter().map(info).collect(),
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: self.model.ir_version,
            opset_import: self.model.opset_import.clone(),
            graph: Some(graph),
            ..ModelProto::default()
        };
        model
            .write_buf()
            .map_err(|e| format!("cannot write a part of the graph: {e}"))
    }

    fn encoder(&self, at: &Landmarks) -> Result<EncoderPart, String> {
        let outputs = [at.durations.as_str(), &at.mean, &at.log_deviation];
        let noise = at.duration_noise.as_deref();
        let part = self.ancestry(&outputs, noise.as_slice());
        let mut inputs: Vec<&str> = part.inputs.iter().map(String::as_str).collect();
        inputs.extend(noise);
        Ok(EncoderPart {
            onnx: self.extract(&part, &inputs, &outputs)?,
            noise: at.duration_noise.clone(),
            speaker: part.inputs.contains("sid"),
            durations: at.durations.clone(),
            mean: at.mean.clone(),
            log_deviation: at.log_deviation.clone(),
        })
    }

    /// The ends of the stages, from the frames to the samples.
    fn cuts(&self, at: &Landmarks) -> Result<Vec<String>, String> {
        let mut cuts = vec![at.frames.clone()];
        // Between the layers of the flow, where everything goes through one value.
        let mut stops = vec![at.frames.as_str()];
        stops.extend(at.mask.as_deref());
        let flow = self.ancestry(&[&at.latent], &stops);
        for &node in &flow.nodes {
            let node = &self.nodes[node];
            let [value] = node.output.as_slice() else {
                continue;
            };
            if node.op_type.as_deref() != Some("Concat") || *value == at.latent {
                continue;
            }
            let above = self.ancestry(&[&at.latent], &[&stops[..], &[value]].concat());
            let below = self.ancestry(&[value], &stops);
            let is_only_way = above.met.contains(value) && !above.met.contains(&at.frames);
            if is_only_way && below.met.contains(&at.frames) {
                cuts.push(value.clone());
            }
        }
        // The last layer's end and the latent differ by the mask at most.
        if cuts.len() > 1 {
            cuts.pop();
        }
        cuts.push(at.latent.clone());
        // Before each rise in rate but the first, which comes right after the vocoder's first layer.
        let vocoder = self.ancestry(&[self.output], &[&at.latent]);
        let rises = vocoder.nodes.iter().map(|&n| &self.nodes[n]);
        let rises = rises.filter(|n| n.op_type.as_deref() == Some("ConvTranspose"));
        cuts.extend(rises.skip(1).filter_map(|n| n.input.first().cloned()));
        cuts.push(self.output.to_owned());
        Ok(cuts)
    }

    fn stage(&self, at: &Landmarks, input: &str, output: &str) -> Result<StagePart, String> {
        let mut stops = vec![input];
        stops.extend(at.mask.as_deref());
        let part = self.ancestry(&[output], &stops);
        let mask = at.mask.as_deref().filter(|m| part.met.contains(*m));
        let mut inputs = vec![input];
        inputs.extend(mask);
        for other in &part.inputs {
            if other != "sid" {
                return Err(format!(
                    "between {input} and {output} the graph also needs {other}"
                ));
            }
            inputs.push(other);
        }
        let reach = self.reach(&part, input, output);
        let (context, scale) =
            reach.ok_or_else(|| format!("{output} does not depend on {input}"))?;
        Ok(StagePart {
            onnx: self.extract(&part, &inputs, &[output])?,
            input: input.to_owned(),
            output: output.to_owned(),
            mask: mask.map(str::to_owned),
            speaker: part.inputs.contains("sid"),
            context,
            scale,
        })
    }

    /// How far to each side an output frame depends on input frames, and how many of it there are for one.
    fn reach(&self, part: &Ancestry, input: &str, output: &str) -> Option<(Option<usize>, usize)> {
        // Of each value that depends on the input: its reach in input frames, and its scale.
        let mut reaches: HashMap<&str, (f64, usize)> = HashMap::from([(input, (0.0, 1))]);
        // Nodes come in an order in which each follows what it needs.
        for &node in &part.nodes {
            let node = &self.nodes[node];
            let known = node.input.iter().filter_map(|i| reaches.get(i.as_str()));
            let Some((mut reach, mut scale)) =
                known.copied().reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
            else {
                continue;
            };
            let operator = node.op_type.as_deref().unwrap_or_default();
            match operator {
                "Conv" | "ConvTranspose" => {
                    let kernel = self.kernel(node);
                    let number = |name: &str, default: usize| {
                        let attribute = node
                            .attribute
                            .iter()
                            .find(|a| a.name.as_deref() == Some(name));
                        attribute
                            .and_then(|a| a.ints.first())
                            .map_or(default, |v| *v as usize)
                    };
                    let (stride, dilation) = (number("strides", 1), number("dilations", 1));
                    let taps = kernel.map_or(f64::INFINITY, |k| ((k - 1) * dilation) as f64);
                    if operator == "Conv" {
                        let sides = if stride == 1 {
                            taps / 2.0
                        } else {
                            f64::INFINITY
                        };
                        reach += sides / scale as f64;
                    } else {
                        let before = number("pads", 0) as f64;
                        reach += before.max(taps - before) / (stride * scale) as f64;
                        scale *= stride;
                    }
                }
                // Zeros as long as their input.
                "Shape" | "ConstantOfShape" => {}
                framewise if FRAMEWISE.contains(&framewise) => {}
                _ => reach = f64::INFINITY,
            }
            for made in &node.output {
                reaches.insert(made, (reach, scale));
            }
        }
        let (reach, scale) = *reaches.get(output)?;
        Some((reach.is_finite().then(|| reach.ceil() as usize), scale))
    }

    fn kernel(&self, node: &NodeProto) -> Option<usize> {
        let weights = self.constants.get(node.input.get(1)?.as_str())?;
        usize::try_from(*weights.dims.get(2)?)
            .ok()
            .filter(|k| *k > 0)
    }
}

impl Landmarks {
    fn find(graph: &Graph<'_>) -> Result<Self, String> {
        let is_first_of_vocoder = |n: &&NodeProto| {
            n.name
                .as_deref()
                .is_some_and(|n| n.ends_with("dec/conv_pre/Conv"))
        };
        let first = graph.of_type("Conv").find(is_first_of_vocoder);
        let latent = first
            .and_then(|n| n.input.first())
            .ok_or("no vocoder (dec/conv_pre/Conv) in the graph: is it a Piper voice?")?;

        let durations = match graph.of_type("Ceil").collect::<Vec<_>>().as_slice() {
            [one] => one.output[0].clone(),
            found => return Err(format!("{} nodes round durations up, not one", found.len())),
        };

        // frames = mean + noise * exp(log deviation) * noise scale, all spread over frames.
        let spread = |noise: &NodeProto| {
            let mean = noise.input.first()?;
            let add = graph.of_type("Add").find(|a| a.input.contains(mean))?;
            Some((mean.clone(), add.output[0].clone()))
        };
        let before_vocoder = graph.ancestry(&[latent], &[]);
        let noises = graph.of_type("RandomNormalLike");
        let noises: Vec<_> = noises
            .filter(|n| {
                before_vocoder
                    .nodes
                    .contains(&graph.producer[n.output[0].as_str()])
            })
            .collect();
        let is_of_frames =
            |n: &&&NodeProto| spread(n).is_some_and(|(mean, _)| unspread(graph, &mean).is_some());
        let noise = noises
            .iter()
            .find(is_of_frames)
            .ok_or("no noise over frames in the graph")?;
        let (spread_mean, frames) = spread(noise).ok_or("no noise over frames in the graph")?;
        let scaled = graph
            .of_type("Mul")
            .find(|m| m.input.contains(&noise.output[0]));
        let deviation = scaled.and_then(|m| m.input.iter().find_map(|i| graph.made_by(i, "Exp")));
        let log_deviation = deviation
            .and_then(|exp| unspread(graph, &exp.input[0]))
            .ok_or("no deviation of the frames in the graph")?;
        let others: Vec<_> = noises.iter().filter(|n| n.output != noise.output).collect();
        let duration_noise = match others.as_slice() {
            [] => None,
            [one] => Some(one.output[0].clone()),
            found => {
                return Err(format!(
                    "{} noises of durations in the graph, not one",
                    found.len()
                ));
            }
        };

        let masked = graph.made_by(latent, "Mul");
        let mask = masked.and_then(|mul| {
            let is_mask = |i: &&String| !graph.ancestry(&[i], &[&frames]).met.contains(&frames);
            mul.input.iter().find(is_mask).cloned()
        });
        Ok(Landmarks {
            duration_noise,
            durations,
            mean: unspread(graph, &spread_mean).ok_or("no mean of the frames in the graph")?,
            log_deviation,
            frames,
            mask,
            latent: latent.clone(),
        })
    }
}

/// The value per phoneme behind a value per frame: frames = transpose(path x transpose(phonemes)).
fn unspread(graph: &Graph<'_>, value: &str) -> Option<String> {
    let product = graph.made_by(&graph.made_by(value, "Transpose")?.input[0], "MatMul")?;
    Some(graph.made_by(product.input.get(1)?, "Transpose")?.input[0].clone())
}

/// The graph uncut, but for its random numbers, which are its last two inputs.
#[cfg(test)]
pub(super) fn whole(onnx: &[u8]) -> Result<Vec<u8>, String> {
    let model = ModelProto::parse_buf(onnx).map_err(|e| e.to_string())?;
    let graph = Graph::new(&model)?;
    let at = Landmarks::find(&graph)?;
    let of_frames = graph
        .of_type("RandomNormalLike")
        .map(|n| n.output[0].as_str())
        .find(|n| Some(*n) != at.duration_noise.as_deref())
        .ok_or("no noise of frames")?;
    let noises = [
        at.duration_noise
            .as_deref()
            .ok_or("no noise of durations")?,
        of_frames,
    ];
    let part = graph.ancestry(&[graph.output], &noises);
    let inputs = ["input", "input_lengths", "scales", noises[0], noises[1]];
    graph.extract(&part, &inputs, &[graph.output])
}
