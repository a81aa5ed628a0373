//! `POST /v1/audio/speech`: text to speech, streamed as it is made.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use duologue_audio::ogg::OggOpusStream;
use duologue_audio::opus::OpusOptions;
use duologue_audio::{Frame, wav};
use duologue_llm::speakable::{ClauseRules, Speakable};
use serde::Deserialize;

use super::ApiError;
use crate::Orchestrator;
use crate::fleet::{Mode, Wanted};
use crate::realtime::{AudioEncoding, OutputEncoder};
use crate::voice::{Utterance, VoiceError, VoiceSession};

/// Longest text, characters.
const TEXT_LIMIT: usize = 32 * 1024;
/// Nobody listens in real time to a file, so the voice may run far ahead.
const LEAD: Duration = Duration::from_secs(3_600);

#[derive(Deserialize)]
pub(super) struct Request {
    input: String,
    #[serde(default)]
    voice: Option<serde_json::Value>,
    #[serde(default)]
    response_format: Option<String>,
    #[serde(default)]
    speed: Option<f32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Wav,
    Pcm,
    Opus,
}

pub(super) async fn speak(
    State(orchestrator): State<Arc<Orchestrator>>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = request.map_err(|error| ApiError::invalid(None, error.body_text()))?;
    let characters = request.input.chars().count();
    if request.input.trim().is_empty() {
        return Err(ApiError::invalid("input", "input has no text to speak"));
    }
    if characters > TEXT_LIMIT {
        return Err(ApiError::invalid(
            "input",
            format!("input has {characters} characters; at most {TEXT_LIMIT} are spoken at once"),
        ));
    }
    let format = match request.response_format.as_deref() {
        None | Some("wav") => Format::Wav,
        Some("pcm") => Format::Pcm,
        Some("opus") => Format::Opus,
        Some(other) => {
            return Err(ApiError::invalid(
                "response_format",
                format!(
                    "{other:?} is not offered: use wav (the default here), pcm (24 kHz s16le) or opus"
                ),
            ));
        }
    };
    let speed = request.speed.unwrap_or(1.0);
    if !(0.25..=4.0).contains(&speed) {
        return Err(ApiError::invalid(
            "speed",
            format!("{speed} is out of range: 0.25 to 4.0"),
        ));
    }
    let name = match &request.voice {
        None => String::new(),
        Some(serde_json::Value::String(name)) => name.clone(),
        Some(other) => other["id"].as_str().unwrap_or_default().to_owned(),
    };
    let choice = orchestrator
        .voice_choice(&name, speed.clamp(0.5, 2.0))
        .map_err(|message| ApiError::invalid("voice", message))?;
    let id = format!("speech-{}", orchestrator.new_seed());
    let wanted = Wanted::new(&id, choice, Mode::Text);
    let session = orchestrator.engines().fleet.open(wanted, id, LEAD).await?;
    let mut clauses = Speakable::new("en", ClauseRules::default());
    let mut pieces = clauses.push(&request.input);
    pieces.extend(clauses.finish());
    let Utterance { text, mut frames } = session.speak("speech");
    tokio::spawn(async move {
        for piece in pieces
            .into_iter()
            .filter(|piece| !piece.spoken.trim().is_empty())
        {
            if text.send(piece.spoken).await.is_err() {
                return;
            }
        }
    });
    // The first frame decides between an answer and an error.
    let mut encoder = Encoder::new(format)?;
    let first = match frames.recv().await {
        Some(frame) => encoder.frame(&frame?.pcm)?,
        None => Vec::new(),
    };
    let stream = futures_util::stream::unfold(
        Some(Streaming {
            session,
            frames,
            encoder,
            first: Some(first),
        }),
        |state| async move { state?.step().await },
    );
    let content_type = match format {
        Format::Wav => "audio/wav",
        Format::Pcm => "audio/pcm;rate=24000;channels=1",
        Format::Opus => "audio/ogg; codecs=opus",
    };
    Ok((
        [(header::CONTENT_TYPE, content_type)],
        Body::from_stream(stream),
    )
        .into_response())
}

struct Streaming {
    /// Ends when the client has gone or all is said.
    session: VoiceSession,
    frames: tokio::sync::mpsc::Receiver<Result<duologue_rpc::AudioFrame, VoiceError>>,
    encoder: Encoder,
    first: Option<Vec<u8>>,
}

type Step = Option<(Result<Bytes, std::io::Error>, Option<Streaming>)>;

impl Streaming {
    async fn step(mut self) -> Step {
        if let Some(first) = self.first.take() {
            return Some((Ok(first.into()), Some(self)));
        }
        let encoded = match self.frames.recv().await {
            Some(Ok(frame)) => self.encoder.frame(&frame.pcm).map(|bytes| (bytes, true)),
            Some(Err(error)) => Err(error.into()),
            None => self.encoder.finish().map(|bytes| (bytes, false)),
        };
        match encoded {
            Ok((bytes, true)) => Some((Ok(bytes.into()), Some(self))),
            Ok((bytes, false)) => {
                drop(self.session);
                Some((Ok(bytes.into()), None))
            }
            Err(error) => Some((Err(std::io::Error::other(error.message)), None)),
        }
    }
}

enum Encoder {
    Linear {
        encoder: OutputEncoder,
        header: bool,
    },
    Opus(Option<Box<OggOpusStream>>),
}

impl Encoder {
    fn new(format: Format) -> Result<Self, ApiError> {
        Ok(match format {
            Format::Wav | Format::Pcm => Self::Linear {
                encoder: OutputEncoder::new(AudioEncoding::Pcm16).map_err(broken)?,
                header: format == Format::Wav,
            },
            Format::Opus => Self::Opus(Some(Box::new(
                OggOpusStream::new(OpusOptions::default(), 1).map_err(broken)?,
            ))),
        })
    }

    fn frame(&mut self, pcm: &[u8]) -> Result<Vec<u8>, ApiError> {
        let frame = Frame::from_le_bytes(pcm)
            .ok_or_else(|| ApiError::server("the voice worker sent a frame of the wrong length"))?;
        match self {
            Self::Linear { encoder, header } => {
                let mut bytes = Vec::new();
                if std::mem::take(header) {
                    bytes.extend(wav::header(AudioEncoding::Pcm16.sample_rate(), None));
                }
                bytes.extend(encoder.encode(&[frame]));
                Ok(bytes)
            }
            Self::Opus(stream) => match stream {
                Some(stream) => stream.push(&frame).map_err(broken),
                None => Ok(Vec::new()),
            },
        }
    }

    fn finish(&mut self) -> Result<Vec<u8>, ApiError> {
        match self {
            Self::Linear { encoder, .. } => Ok(encoder.finish()),
            Self::Opus(stream) => match stream.take() {
                Some(stream) => stream.finish().map_err(broken),
                None => Ok(Vec::new()),
            },
        }
    }
}

fn broken(error: impl std::fmt::Display) -> ApiError {
    ApiError::server(error.to_string())
}
