//! A recognizer elsewhere, behind an OpenAI-compatible address: the sound is sent, the words come back.

use std::time::{Duration, Instant};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::{
    AsrError, Cancel, Options, Recognizer, RecognizerInfo, SAMPLE_RATE, Segment, Timings,
    Transcript,
};

/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The far end must take a connection within.
const CONNECT: Duration = Duration::from_secs(3);
/// Most of an error's body that is told.
const TOLD: usize = 300;
/// An answer that is longer is none: an hour of speech is some 60 kB.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// How often it is looked whether anybody still waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where a remote recognizer is.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// The API's address, such as `http://127.0.0.1:8000/v1`; `/audio/transcriptions` is added.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
}

impl std::fmt::Debug for RemoteConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteConfig")
            .field("url", &self.url)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// A [`Recognizer`] that asks another server.
#[derive(Debug)]
pub struct Remote {
    info: RecognizerInfo,
    url: Url,
    config: RemoteConfig,
    client: Client,
    runtime: Handle,
}

#[derive(Deserialize)]
pub(crate) struct Answer {
    text: String,
    #[serde(default)]
    language: Option<String>,
}

impl Remote {
    /// A client of this recognizer. Nothing is asked yet. To be made on the reactor, which carries its requests.
    ///
    /// # Errors
    /// [`AsrError::Load`]: the address is none.
    pub fn new(config: RemoteConfig) -> Result<Self, AsrError> {
        let failed = |reason: String| AsrError::Load {
            name: config.model.clone(),
            dir: config.url.clone(),
            reason,
        };
        let url = format!("{}/audio/transcriptions", config.url.trim_end_matches('/'));
        let url = Url::parse(&url)
            .map_err(|error| failed(format!("{error}; write it as http://host:port/v1")))?;
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let runtime = Handle::try_current().map_err(|error| failed(error.to_string()))?;
        let info = RecognizerInfo {
            name: config.model.clone(),
            family: "remote".into(),
            multilingual: true,
            languages: Vec::new(),
            compute: "elsewhere".into(),
            replicas: usize::MAX,
            resident_bytes: 0,
        };
        Ok(Self {
            info,
            url,
            config,
            client,
            runtime,
        })
    }

    async fn ask(&self, audio: &[f32], options: &Options) -> Result<Answer, AsrError> {
        let fields = [
            ("model", Some(self.config.model.as_str())),
            ("language", options.language.as_deref()),
            ("prompt", options.prompt.as_deref()),
            ("response_format", Some("json")),
        ];
        let boundary = "duologue-7d1f0c5e2b9a4836";
        let mut body = Vec::with_capacity(audio.len() * 2 + 1_024);
        for (name, value) in fields {
            // A value that could end its part early is not sent.
            let Some(value) = value.filter(|value| !value.contains(boundary)) else {
                continue;
            };
            let part = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
            body.extend(part.into_bytes());
        }
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\n\
             Content-Type: audio/wav\r\n\r\n"
        );
        body.extend(head.into_bytes());
        body.extend(wav(audio));
        body.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
        let mut request = self
            .client
            .post(self.url.clone())
            .header(
                CONTENT_TYPE,
                format!("multipart/form-data; boundary={boundary}"),
            )
            .body(body);
        if let Some(key) = &self.config.api_key {
            request = request.bearer_auth(key);
        }
        let failed = |error: &dyn std::fmt::Display| {
            AsrError::Engine(format!("the recognizer at {}: {error}", self.url))
        };
        let mut response = request.send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + piece.len() > LONGEST_ANSWER {
                let told = format!("its answer has more than {LONGEST_ANSWER} bytes");
                return Err(failed(&told));
            }
            body.extend_from_slice(&piece);
        }
        let text = String::from_utf8_lossy(&body);
        if !status.is_success() {
            let told: String = text.chars().take(TOLD).collect();
            return Err(failed(&format!("{status}: {told}")));
        }
        read_answer(&text).map_err(|error| failed(&error))
    }
}

/// What a recognizer answered.
pub(crate) fn read_answer(body: &str) -> Result<Answer, serde_json::Error> {
    serde_json::from_str(body)
}

/// Waits until it was asked for the end.
async fn asked_to_end(cancel: &Cancel) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while !cancel.is_cancelled() {
        looks.tick().await;
    }
}

impl Recognizer for Remote {
    fn info(&self) -> &RecognizerInfo {
        &self.info
    }

    fn transcribe(
        &self,
        audio_16k: &[f32],
        options: &Options,
        cancel: &Cancel,
    ) -> Result<Transcript, AsrError> {
        cancel.check()?;
        let started = Instant::now();
        // Whoever waits for a far end that hangs keeps a thread that others need.
        let answer = self.runtime.block_on(async {
            tokio::select! {
                answer = self.ask(audio_16k, options) => answer,
                () = asked_to_end(cancel) => Err(AsrError::Cancelled),
            }
        })?;
        cancel.check()?;
        let text = answer.text.trim().to_owned();
        Ok(Transcript {
            segments: vec![Segment {
                start: 0.0,
                end: audio_16k.len() as f32 / SAMPLE_RATE as f32,
                text: text.clone(),
                words: Vec::new(),
            }],
            text,
            language: answer
                .language
                .or_else(|| options.language.clone())
                .unwrap_or_default(),
            language_probability: 1.0,
            timings: Timings {
                decode: started.elapsed(),
                ..Timings::default()
            },
            ..Transcript::default()
        })
    }
}

/// 16-bit WAV (RIFF), mono, 16 kHz.
fn wav(audio: &[f32]) -> Vec<u8> {
    let bytes = audio.len() as u32 * 2;
    let mut wav = Vec::with_capacity(44 + bytes as usize);
    wav.extend(b"RIFF");
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    wav.extend(1u16.to_le_bytes());
    wav.extend(1u16.to_le_bytes());
    wav.extend(SAMPLE_RATE.to_le_bytes());
    wav.extend((SAMPLE_RATE * 2).to_le_bytes());
    wav.extend(2u16.to_le_bytes());
    wav.extend(16u16.to_le_bytes());
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    for sample in duologue_audio::pcm::f32_to_i16(audio) {
        wav.extend(sample.to_le_bytes());
    }
    wav
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A far end that answers once; gives what it was sent.
    fn far_end(answer: &'static str) -> (String, std::thread::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let sent = whole_request(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            sent
        });
        (url, served)
    }

    fn whole_request(stream: &mut TcpStream) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut piece = [0; 4_096];
        while !sent.ends_with(b"--\r\n") {
            let read = stream.read(&mut piece).unwrap();
            sent.extend(&piece[..read]);
        }
        sent
    }

    fn asked(url: String, cancel: &Cancel) -> Result<Transcript, AsrError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let remote = {
            let _inside = runtime.enter();
            Remote::new(RemoteConfig {
                url,
                model: "whisper-1".into(),
                api_key: Some("secret".into()),
            })?
        };
        let options = Options {
            language: Some("en".into()),
            ..Options::default()
        };
        remote.transcribe(&[0.25; 1_600], &options, cancel)
    }

    #[test]
    fn the_sound_is_sent_as_a_file_and_the_words_come_back() {
        let (url, served) = far_end(
            "HTTP/1.1 200 OK\r\nContent-Length: 25\r\nConnection: close\r\n\r\n{\"text\":\" Good morning.\"}",
        );
        let transcript = asked(url, &Cancel::default()).unwrap();
        assert_eq!(transcript.text, "Good morning.");
        assert_eq!(transcript.language, "en");
        let sent = served.join().unwrap();
        let text = String::from_utf8_lossy(&sent);
        assert!(text.starts_with("POST /v1/audio/transcriptions HTTP/1.1\r\n"));
        assert!(text.contains("name=\"model\"\r\n\r\nwhisper-1\r\n"));
        assert!(text.contains("name=\"language\"\r\n\r\nen\r\n"));
        assert!(text.to_lowercase().contains("authorization: bearer secret"));
        let at = sent
            .windows(4)
            .position(|window| window == b"RIFF")
            .unwrap();
        let recording = &sent[at..at + 44 + 3_200];
        assert_eq!(&recording[40..44], &3_200u32.to_le_bytes());
        assert_eq!(&recording[44..46], &8_192i16.to_le_bytes());
    }

    #[test]
    fn a_far_end_that_fails_is_named_with_what_it_said() {
        let (url, _served) = far_end(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy",
        );
        let told = asked(url, &Cancel::default()).unwrap_err().to_string();
        assert!(told.contains("503") && told.contains("busy") && told.contains("127.0.0.1"));
        let told = asked("not an address".into(), &Cancel::default()).unwrap_err();
        assert!(told.to_string().contains("http://host:port/v1"), "{told}");
    }

    #[test]
    fn a_far_end_that_never_stops_answering_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Whoever is answered before all was sent may take that for a failure.
            whole_request(&mut stream);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"text\": \"";
            stream.write_all(head.as_bytes()).unwrap();
            let mut sent = 0;
            while stream.write_all(&[b'a'; 65_536]).is_ok() {
                sent += 65_536;
            }
            sent
        });
        let told = asked(url, &Cancel::default()).unwrap_err().to_string();
        assert!(told.contains("more than 4194304 bytes"), "{told}");
        // What the system's buffers hold was sent, and no more.
        assert!(served.join().unwrap() < 64 * 1024 * 1024);
    }

    #[test]
    fn nobody_waits_for_a_far_end_that_hangs_once_it_is_cancelled() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let cancel = Cancel::default();
        let (waits, cancelled) = (std::sync::mpsc::channel(), cancel.clone());
        let asking = std::thread::spawn(move || {
            waits.0.send(asked(url, &cancelled).map(drop)).unwrap();
        });
        // It has asked, and is never answered.
        let held = listener.accept().unwrap();
        cancel.cancel();
        let told = waits.1.recv_timeout(PATIENCE / 2).unwrap();
        assert!(matches!(told, Err(AsrError::Cancelled)), "{told:?}");
        asking.join().unwrap();
        drop(held);
    }

    #[test]
    fn what_was_cancelled_is_not_asked() {
        let cancel = Cancel::default();
        cancel.cancel();
        let told = asked("http://127.0.0.1:9/v1".into(), &cancel);
        assert!(matches!(told, Err(AsrError::Cancelled)));
    }
}
