//! The voices of a TTS worker: which it has, what they take, loading and unloading them.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use duologue_orchestrator::voice::{Reach, why};
use duologue_rpc::tts_worker_client::TtsWorkerClient;
use duologue_rpc::{
    GetCapabilitiesRequest, GetCapabilitiesResponse, ListModelsRequest, LoadModelRequest, Model,
    UnloadModelRequest,
};
use duologue_voicepack::Bytes;
use serde_json::{Value, json};
use tonic::transport::Channel;

/// A worker that does not take a connection in this time is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// A worker that is talked to.
pub struct OnWorker {
    client: TtsWorkerClient<Channel>,
    address: String,
}

impl OnWorker {
    /// Connects to a worker at `host:port` or `http://host:port`.
    ///
    /// # Errors
    /// What is no address, and where nobody listens.
    pub async fn connect(address: &str, reach: &Reach) -> anyhow::Result<Self> {
        let url = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let endpoint = reach.to(&url).context("--worker")?.connect_timeout(CONNECT);
        let channel = endpoint.connect().await.with_context(|| {
            format!("cannot reach a worker at {url}; start one there with `duologue worker --listen ADDR`")
        })?;
        let mut client = TtsWorkerClient::new(channel);
        // Over TLS 1.3 a connection is there before the worker has looked at our certificate.
        if url.starts_with("https:") {
            let answer = client.get_capabilities(GetCapabilitiesRequest {}).await;
            answer.map_err(told).with_context(|| {
                format!("the worker at {url} does not answer: it may not take the certificate of --worker-cert")
            })?;
        }
        Ok(Self {
            client,
            address: url,
        })
    }

    pub async fn list(mut self, json: bool) -> anyhow::Result<()> {
        let models = self.client.list_models(ListModelsRequest {}).await;
        let models = models.map_err(told)?.into_inner().models;
        let mut out = std::io::stdout().lock();
        if json {
            let models: Vec<Value> = models.iter().map(model_json).collect();
            writeln!(out, "{:#}", Value::Array(models))?;
            return Ok(());
        }
        let width = models.iter().map(|m| m.name.len()).max().unwrap_or(0);
        writeln!(
            out,
            "  {:width$}  {:8}  {:9}  {:>10}  {:>8}  TAGS",
            "NAME", "FAMILY", "LANGUAGES", "MEMORY", "SESSIONS"
        )?;
        for model in &models {
            let mark = if model.resident { "*" } else { " " };
            let memory = match (model.resident, model.resident_bytes, model.estimated_bytes) {
                (true, 0, _) | (false, _, 0) => String::new(),
                (true, bytes, _) => Bytes(bytes).to_string(),
                (false, _, bytes) => format!("~{}", Bytes(bytes)),
            };
            let mut tags = model.tags.clone();
            if model.is_default {
                tags.insert(0, "default".to_owned());
            }
            let line = format!(
                "{mark} {:width$}  {:8}  {:9}  {memory:>10}  {:>8}  {}",
                model.name,
                model.family,
                languages(&model.languages),
                model.sessions,
                tags.join(" ")
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        writeln!(
            out,
            "\n* is in memory at {}; ~ is what a voice is thought to take",
            self.address
        )?;
        Ok(())
    }

    /// Loads voices, or reads them again where they are in memory.
    pub async fn load(mut self, names: &[String], reload: bool, json: bool) -> anyhow::Result<()> {
        let mut loaded = Vec::new();
        let mut failed = 0;
        for name in names {
            let request = LoadModelRequest {
                name: name.clone(),
                reload,
            };
            match self.client.load_model(request).await {
                Ok(response) => {
                    let model = response.into_inner().model.unwrap_or_default();
                    if !json {
                        let done = if reload { "read again" } else { "in memory" };
                        println!("{name}: {done}, {}", Bytes(model.resident_bytes));
                    }
                    loaded.push(model_json(&model));
                }
                Err(status) => {
                    failed += 1;
                    eprintln!("{name}: {}", told(status));
                }
            }
        }
        if json {
            println!("{:#}", Value::Array(loaded));
        }
        if failed > 0 {
            bail!("{failed} of {} voices could not be loaded", names.len());
        }
        Ok(())
    }

    pub async fn unload(mut self, names: &[String]) -> anyhow::Result<()> {
        let mut failed = 0;
        for name in names {
            let request = UnloadModelRequest { name: name.clone() };
            match self.client.unload_model(request).await {
                Ok(_) => println!("{name}: not in memory any more"),
                Err(status) => {
                    failed += 1;
                    eprintln!("{name}: {}", told(status));
                }
            }
        }
        if failed > 0 {
            bail!("{failed} of {} voices could not be unloaded", names.len());
        }
        Ok(())
    }

    pub async fn capabilities(mut self, json: bool) -> anyhow::Result<()> {
        let answer = self.client.get_capabilities(GetCapabilitiesRequest {});
        let answer = answer.await.map_err(told)?.into_inner();
        if json {
            println!("{:#}", capabilities_json(&answer));
        } else {
            print_capabilities(&answer)?;
        }
        Ok(())
    }
}

fn print_capabilities(worker: &GetCapabilitiesResponse) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut row = |name: &str, value: String| writeln!(out, "{name:16}{value}");
    let draining = if worker.draining {
        ", shutting down"
    } else {
        ""
    };
    row(
        "worker",
        format!("{}, version {}{draining}", worker.worker, worker.version),
    )?;
    let hardware = worker.hardware.clone().unwrap_or_default();
    row(
        "hardware",
        format!(
            "{}, {} cores, {}",
            hardware.device,
            hardware.cores,
            Bytes(hardware.memory_bytes)
        ),
    )?;
    row(
        "sessions",
        format!("{} of {} free", worker.free_sessions, worker.max_sessions),
    )?;
    let format = worker.format.clone().unwrap_or_default();
    row(
        "audio",
        format!(
            "{} Hz, {} channel, {} samples a frame, {}",
            format.sample_rate, format.channels, format.frame_samples, format.encoding
        ),
    )?;
    row("languages", worker.languages.join(", "))?;
    let able = [
        ("streaming", true),
        ("zero_shot", worker.zero_shot),
        ("lora", worker.lora),
        ("cpu_ok", worker.cpu_ok),
        ("emotive", worker.emotive),
    ];
    let able: Vec<&str> = able
        .iter()
        .filter(|(_, is)| *is)
        .map(|(what, _)| *what)
        .collect();
    row("can", able.join(", "))?;
    let resident: Vec<&Model> = worker.models.iter().filter(|m| m.resident).collect();
    let names: Vec<&str> = resident.iter().map(|m| m.name.as_str()).collect();
    row("in memory", names.join(", "))?;
    let residency = worker.residency.unwrap_or_default();
    let of = |n: String, limit: u64, shown: String| match limit {
        0 => n,
        _ => format!("{n} of {shown}"),
    };
    row(
        "memory",
        format!(
            "{}, {}",
            of(
                Bytes(residency.bytes).to_string(),
                residency.limit_bytes,
                Bytes(residency.limit_bytes).to_string()
            ),
            of(
                format!("{} in number", resident.len()),
                residency.max_voices.into(),
                residency.max_voices.to_string()
            ),
        ),
    )?;
    let live = worker.live.unwrap_or_default();
    row("waiting", format!("{} utterances", live.queue_depth))?;
    if live.first_audio_p95_ms > 0.0 {
        row(
            "last minute",
            format!(
                "{} utterances; first audio p50 {:.0} ms, p95 {:.0} ms; real-time factor {:.3}",
                live.utterances,
                live.first_audio_p50_ms,
                live.first_audio_p95_ms,
                live.real_time_factor
            ),
        )?;
    }
    Ok(())
}

fn capabilities_json(worker: &GetCapabilitiesResponse) -> Value {
    let hardware = worker.hardware.clone().unwrap_or_default();
    let residency = worker.residency.unwrap_or_default();
    let live = worker.live.unwrap_or_default();
    let format = worker.format.clone().unwrap_or_default();
    json!({
        "worker": worker.worker,
        "version": worker.version,
        "draining": worker.draining,
        "max_sessions": worker.max_sessions,
        "free_sessions": worker.free_sessions,
        "streaming": true,
        "zero_shot": worker.zero_shot,
        "lora": worker.lora,
        "cpu_ok": worker.cpu_ok,
        "emotive": worker.emotive,
        "languages": worker.languages,
        "format": {
            "sample_rate": format.sample_rate,
            "channels": format.channels,
            "frame_samples": format.frame_samples,
            "encoding": format.encoding,
        },
        "hardware": {
            "device": hardware.device,
            "cores": hardware.cores,
            "memory_bytes": hardware.memory_bytes,
        },
        "residency": {
            "bytes": residency.bytes,
            "limit_bytes": residency.limit_bytes,
            "max_voices": residency.max_voices,
        },
        "live": {
            "utterances": live.utterances,
            "real_time_factor": live.real_time_factor,
            "first_audio_p50_ms": live.first_audio_p50_ms,
            "first_audio_p95_ms": live.first_audio_p95_ms,
            "queue_depth": live.queue_depth,
        },
        "models": worker.models.iter().map(model_json).collect::<Vec<_>>(),
    })
}

fn model_json(model: &Model) -> Value {
    json!({
        "name": model.name,
        "family": model.family,
        "languages": model.languages,
        "tags": model.tags,
        "speakers": model.speakers,
        "resident": model.resident,
        "default": model.is_default,
        "sessions": model.sessions,
        "resident_bytes": model.resident_bytes,
        "estimated_bytes": model.estimated_bytes,
    })
}

fn languages(all: &[String]) -> String {
    match all {
        [] => "any".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

/// A worker's refusals are written for people.
fn told(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", why(&status))
}
