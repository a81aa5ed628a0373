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
use duologue_audio::{FRAME_SAMPLES, Frame, wav};
use duologue_llm::speakable::{ClauseRules, Speakable};
use duologue_rpc::AudioFrame;
use duologue_session::ReplyId;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::ApiError;
use crate::Orchestrator;
use crate::fleet::Wanted;
use crate::realtime::{AudioEncoding, OutputEncoder};
use crate::voice::{Listener, Purpose, Speaking, VoiceError, Voiced};

/// Longest text, characters.
const TEXT_LIMIT: usize = 32 * 1024;
/// Largest request, bytes: such a text in the widest characters, escaped.
pub(super) const BODY_LIMIT: usize = 16 * TEXT_LIMIT;

/// Pieces of sound, of 20 ms, that may wait for the client.
const QUEUED: usize = 50;
/// A client that takes none of it for so long is given up.
const STALLED: Duration = Duration::from_secs(30);

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
    let Json(request) =
        request.map_err(|error| ApiError::rejected(error.status(), error.body_text()))?;
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
    let fleet = orchestrator.engines().fleet.clone();
    let purpose = Purpose::FILE;
    let wanted = Wanted::new(&id, choice, purpose.mode);
    let session = fleet.open(wanted, id.clone(), purpose.lead).await?;
    let mut voice = Recital {
        speaking: Speaking::new(fleet, &id, session, purpose),
        given: 0,
    };
    let mut clauses = Speakable::new("en", ClauseRules::default());
    let mut pieces = clauses.push(&request.input);
    pieces.extend(clauses.finish());
    voice.say(pieces.into_iter().map(|piece| piece.spoken))?;
    // The first frame decides between an answer and an error.
    let mut encoder = Encoder::new(format)?;
    let first = match voice.next().await {
        Some(frame) => encoder.frame(&frame?.pcm)?,
        None => Vec::new(),
    };
    let (to_client, pieces) = mpsc::channel(QUEUED);
    tokio::spawn(recite(voice, encoder, first, to_client));
    let content_type = match format {
        Format::Wav => "audio/wav",
        Format::Pcm => "audio/pcm;rate=24000;channels=1",
        Format::Opus => "audio/ogg; codecs=opus",
    };
    Ok((
        [(header::CONTENT_TYPE, content_type)],
        Body::from_stream(ReceiverStream::new(pieces)),
    )
        .into_response())
}

/// A text that is read out.
struct Recital {
    speaking: Speaking,
    /// Samples that the client was given.
    given: u64,
}

/// There is one text, and so one generation.
const TEXT: ReplyId = ReplyId(0);

impl Recital {
    fn say(&mut self, pieces: impl Iterator<Item = String>) -> Result<(), ApiError> {
        let mut silent = true;
        for piece in pieces.filter(|piece| !piece.trim().is_empty()) {
            silent = false;
            if !self.speaking.say(TEXT, piece, None) {
                return Err(ApiError::invalid(
                    "input",
                    "input has too many sentences to speak at once",
                ));
            }
        }
        if silent {
            // An utterance without words is silent, and has an end all the same.
            self.speaking.say(TEXT, String::new(), None);
        }
        self.speaking.end(TEXT);
        Ok(())
    }

    /// The next frame; `None` after the last.
    async fn next(&mut self) -> Option<Result<AudioFrame, VoiceError>> {
        loop {
            let listener = Listener {
                in_hand: Duration::ZERO,
                left: self.given,
            };
            match self.speaking.next(listener).await {
                Voiced::Frame(_, frame) => {
                    self.given += FRAME_SAMPLES as u64;
                    return Some(Ok(frame));
                }
                Voiced::Ended(_) => return None,
                Voiced::Failed(_, error) | Voiced::NotOpened(error) => return Some(Err(error)),
                Voiced::Pause(_) => {
                    self.given += FRAME_SAMPLES as u64;
                    let pcm = vec![0; 2 * FRAME_SAMPLES].into();
                    return Some(Ok(AudioFrame {
                        pcm,
                        ..AudioFrame::default()
                    }));
                }
                // What was given cannot be dropped: a word that broke is heard again.
                Voiced::Moved(..) | Voiced::Progress => {}
            }
        }
    }
}

type Piece = Result<Bytes, std::io::Error>;

/// Reads a text out, to its end or until the client has gone or takes nothing: then the voice is others' again.
async fn recite(
    mut voice: Recital,
    mut encoder: Encoder,
    first: Vec<u8>,
    to_client: mpsc::Sender<Piece>,
) {
    let mut piece: Piece = Ok(first.into());
    let mut more = true;
    loop {
        more &= piece.is_ok();
        match tokio::time::timeout(STALLED, to_client.send(piece)).await {
            Ok(Ok(())) if more => {}
            Ok(_) => return,
            Err(_) => {
                tracing::debug!("a client takes no more of a text that is read out to it");
                return;
            }
        }
        let next = tokio::select! {
            next = voice.next() => next,
            () = to_client.closed() => return,
        };
        let encoded = match next {
            Some(Ok(frame)) => encoder.frame(&frame.pcm),
            Some(Err(error)) => Err(error.into()),
            None => {
                more = false;
                encoder.finish()
            }
        };
        piece = encoded
            .map(Bytes::from)
            .map_err(|error| std::io::Error::other(error.message));
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
