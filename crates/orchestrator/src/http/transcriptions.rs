//! `POST /v1/audio/transcriptions`: a sound file to text.

use std::sync::Arc;

use axum::Json;
use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::extract::{Multipart, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use duologue_asr::{AsrError, Cancel, Options, Transcript};
use duologue_audio::{DecodeError, decode_bytes_within};
use serde_json::{Value, json};

use super::{ApiError, UPLOAD_LIMIT};
use crate::Orchestrator;
use crate::inference::Priority;
use crate::realtime::HEARING_RATE;

/// Longest sound that is transcribed, seconds. It takes 0.7 GB at 48 kHz while it is decoded.
const LONGEST: u32 = 3_600;

/// What is asked for.
#[derive(Default)]
pub(crate) struct Form {
    file: Option<Vec<u8>>,
    language: Option<String>,
    prompt: Option<String>,
    format: Option<String>,
    word_times: bool,
    stream: bool,
}

pub(super) async fn transcribe(
    State(orchestrator): State<Arc<Orchestrator>>,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Response, ApiError> {
    let form = read(multipart).await?;
    let format = form.format.as_deref().unwrap_or("json");
    if !["json", "text", "srt", "vtt", "verbose_json"].contains(&format) {
        return Err(ApiError::invalid(
            "response_format",
            format!("{format:?} is not offered: use json, text, srt, vtt or verbose_json"),
        ));
    }
    if form.stream {
        return Err(ApiError::invalid(
            "stream",
            "streamed transcriptions of files are not offered: leave out stream, or use /v1/realtime",
        ));
    }
    let bytes = form.file.ok_or_else(|| {
        ApiError::invalid(
            "file",
            "file is missing: send the sound as multipart/form-data",
        )
    })?;
    let options = Options {
        language: form.language,
        prompt: form.prompt,
        word_times: form.word_times,
        ..Options::default()
    };
    let recognizer = Arc::clone(&orchestrator.engines().recognizer);
    // Dropped when the client goes away, which ends the work at its next step.
    let cancel = CancelOnDrop(Cancel::default());
    let flag = cancel.0.clone();
    let job = orchestrator
        .engines()
        .mind
        .submit(Priority::Background, move || {
            let recording = decode_bytes_within(bytes, LONGEST)?
                .at_rate(HEARING_RATE)
                .map_err(|error| Failure::Server(error.to_string()))?;
            let seconds = recording.seconds();
            let transcript = recognizer.transcribe(&recording.samples, &options, &flag)?;
            Ok::<_, Failure>((transcript, seconds))
        })?;
    let (transcript, seconds) = job.await??;
    drop(cancel);
    Ok(match format {
        "text" => plain(
            "text/plain; charset=utf-8",
            format!("{}\n", transcript.text),
        ),
        "srt" => plain(
            "application/x-subrip; charset=utf-8",
            subtitles(&transcript, ','),
        ),
        "vtt" => plain(
            "text/vtt; charset=utf-8",
            format!("WEBVTT\n\n{}", subtitles(&transcript, '.')),
        ),
        "verbose_json" => Json(verbose(&transcript, seconds)).into_response(),
        _ => Json(json!({
            "text": transcript.text,
            "usage": {"type": "duration", "seconds": seconds.ceil() as u64},
        }))
        .into_response(),
    })
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Reads a form.
pub(crate) async fn read(
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Form, ApiError> {
    let mut multipart = multipart.map_err(|error| ApiError::invalid(None, error.body_text()))?;
    let mut form = Form::default();
    while let Some(field) = multipart.next_field().await.map_err(malformed)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            let bytes = field.bytes().await.map_err(malformed)?;
            if bytes.len() > UPLOAD_LIMIT {
                return Err(ApiError::invalid(
                    "file",
                    format!("the file is larger than {} MiB", UPLOAD_LIMIT >> 20),
                ));
            }
            form.file = Some(bytes.into());
            continue;
        }
        let text = field.text().await.map_err(malformed)?;
        match name.as_str() {
            "language" => form.language = Some(text).filter(|text| !text.is_empty()),
            "prompt" => form.prompt = Some(text).filter(|text| !text.is_empty()),
            "response_format" => form.format = Some(text),
            "timestamp_granularities[]" | "timestamp_granularities" => {
                form.word_times |= text == "word"
            }
            "stream" => form.stream = text == "true",
            // `model` is whatever is loaded here; `temperature` has no use in greedy decoding.
            _ => {}
        }
    }
    Ok(form)
}

fn malformed(error: MultipartError) -> ApiError {
    ApiError::rejected(
        error.status(),
        format!("the form cannot be read: {}", error.body_text()),
    )
}

enum Failure {
    Sound(DecodeError),
    Asr(AsrError),
    Server(String),
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Sound(error)
    }
}

impl From<AsrError> for Failure {
    fn from(error: AsrError) -> Self {
        Self::Asr(error)
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sound(error) => Self::invalid("file", error.to_string()),
            Failure::Asr(error @ AsrError::UnknownLanguage { .. }) => {
                Self::invalid("language", error.to_string())
            }
            Failure::Asr(error) => Self::server(error.to_string()),
            Failure::Server(message) => Self::server(message),
        }
    }
}

fn plain(content_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn verbose(transcript: &Transcript, seconds: f64) -> Value {
    let segments: Vec<Value> = transcript
        .segments
        .iter()
        .enumerate()
        .map(|(id, segment)| {
            json!({"id": id, "start": segment.start, "end": segment.end, "text": segment.text,
                   "avg_logprob": transcript.avg_logprob, "no_speech_prob": transcript.no_speech_prob})
        })
        .collect();
    let words: Vec<Value> = transcript
        .segments
        .iter()
        .flat_map(|segment| &segment.words)
        .map(|word| json!({"word": word.text, "start": word.start, "end": word.end}))
        .collect();
    let mut body = json!({
        "task": "transcribe", "language": transcript.language, "duration": seconds,
        "text": transcript.text, "segments": segments,
    });
    if !words.is_empty() {
        body["words"] = Value::Array(words);
    }
    body
}

/// SubRip's cues, which WebVTT shares but for the decimal mark.
fn subtitles(transcript: &Transcript, mark: char) -> String {
    let stamp = |seconds: f32| {
        let ms = (seconds.max(0.0) * 1_000.0).round() as u64;
        format!(
            "{:02}:{:02}:{:02}{mark}{:03}",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1_000 % 60,
            ms % 1_000
        )
    };
    transcript
        .segments
        .iter()
        .enumerate()
        .map(|(index, segment)| {
            format!(
                "{}\n{} --> {}\n{}\n\n",
                index + 1,
                stamp(segment.start),
                stamp(segment.end),
                segment.text
            )
        })
        .collect()
}
