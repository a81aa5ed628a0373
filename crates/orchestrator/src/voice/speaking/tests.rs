//! Workers that die, fall silent or crawl in the middle of a word, over real gRPC in memory, in virtual time.
#![allow(clippy::unwrap_used)]

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use duologue_rpc::tts_worker_server::{TtsWorker, TtsWorkerServer};
use duologue_rpc::*;
use hyper_util::rt::TokioIo;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::voice::VoiceClient;

const FRAME: u64 = 960;
const REPLY: ReplyId = ReplyId(1);
const TEXT: [&str; 2] = ["one two three, four five. ", "six seven eight nine ten."];

/// What a worker does wrong after so many frames.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Breaks,
    Hangs,
    Crawls,
    Forgets,
}

/// A worker that takes 100 ms for a word, four frames of sound and one of silence.
struct Fake {
    fault: Option<(Fault, u64)>,
    /// Sessions that it has opened.
    opened: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl TtsWorker for Fake {
    async fn start_session(
        &self,
        request: Request<StartSessionRequest>,
    ) -> Result<Response<StartSessionResponse>, Status> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let voice = request.into_inner().voice;
        Ok(Response::new(StartSessionResponse {
            voice,
            format: None,
        }))
    }

    type SynthesizeStream = Pin<Box<dyn Stream<Item = Result<AudioFrame, Status>> + Send>>;

    async fn synthesize(
        &self,
        request: Request<Streaming<TextChunk>>,
    ) -> Result<Response<Self::SynthesizeStream>, Status> {
        // Only its first session has the fault.
        let fault = self
            .fault
            .filter(|_| self.opened.load(Ordering::Relaxed) == 1);
        if let Some((Fault::Forgets, _)) = fault {
            return Err(Status::failed_precondition(
                "it said nothing for 30 minutes",
            ));
        }
        let (to_client, frames) = mpsc::channel(4);
        tokio::spawn(speak(request.into_inner(), to_client, fault));
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }

    async fn control(
        &self,
        _: Request<ControlRequest>,
    ) -> Result<Response<ControlResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn end_session(
        &self,
        _: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn load_model(
        &self,
        _: Request<LoadModelRequest>,
    ) -> Result<Response<LoadModelResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn unload_model(
        &self,
        _: Request<UnloadModelRequest>,
    ) -> Result<Response<UnloadModelResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

/// Says what comes in frames 20 ms apart, a second ahead of the listener.
async fn speak(
    mut chunks: Streaming<TextChunk>,
    to_client: mpsc::Sender<Result<AudioFrame, Status>>,
    fault: Option<(Fault, u64)>,
) {
    let mut sequence = 0;
    let mut chunk = 0;
    let mut unsent: Option<AudioFrame> = None;
    let started = Instant::now();
    while let Ok(Some(TextChunk { text, .. })) = chunks.message().await {
        for word in text.split_whitespace() {
            let at = (word.as_ptr() as usize - text.as_ptr() as usize) as u32;
            let start_sample = sequence * FRAME;
            let mark = WordMark {
                word: word.to_owned(),
                start_sample,
                end_sample: start_sample + 4 * FRAME,
                chunk,
                text_start: at,
                text_end: at + word.len() as u32,
            };
            for part in 0..5 {
                let words = if part == 0 {
                    vec![mark.clone()]
                } else {
                    Vec::new()
                };
                let frame = AudioFrame {
                    sequence,
                    pcm: vec![0; 2 * FRAME as usize].into(),
                    words,
                    ..AudioFrame::default()
                };
                sequence += 1;
                if let Some(frame) = unsent.replace(frame) {
                    let due = Duration::from_millis(20) * frame.sequence as u32;
                    tokio::time::sleep_until(started + due.saturating_sub(Duration::from_secs(1)))
                        .await;
                    match fault {
                        Some((fault, after)) if frame.sequence >= after => match fault {
                            Fault::Breaks => {
                                let _ = to_client.send(Err(Status::unavailable("killed"))).await;
                                return;
                            }
                            Fault::Hangs => std::future::pending().await,
                            _ => tokio::time::sleep(Duration::from_millis(120)).await,
                        },
                        _ => {}
                    }
                    if to_client.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
            }
        }
        chunk += 1;
    }
    if let Some(mut frame) = unsent {
        frame.r#final = true;
        let _ = to_client.send(Ok(frame)).await;
    }
}

/// A fleet of workers with these faults, and how often each was asked for a session.
fn fleet(faults: &[Option<(Fault, u64)>]) -> (Fleet, Vec<Arc<AtomicUsize>>) {
    let mut opened = Vec::new();
    let mut workers = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let count = Arc::new(AtomicUsize::new(0));
        opened.push(Arc::clone(&count));
        let worker = TtsWorkerServer::new(Fake {
            fault: *fault,
            opened: count,
        });
        let (connections, accepted) = mpsc::channel::<std::io::Result<tokio::io::DuplexStream>>(4);
        let accepted = ReceiverStream::new(accepted).map(|stream| stream);
        tokio::spawn(
            Server::builder()
                .add_service(worker)
                .serve_with_incoming(accepted),
        );
        let connect = move |_: Uri| {
            let connections = connections.clone();
            async move {
                let (near, far) = tokio::io::duplex(4_096);
                let _ = connections.send(Ok(far)).await;
                Ok::<_, std::io::Error>(TokioIo::new(near))
            }
        };
        let channel = Endpoint::from_static("http://fake")
            .connect_with_connector_lazy(tower::service_fn(connect));
        workers.push((format!("w{number}"), VoiceClient::new(channel)));
    }
    (Fleet::of(workers), opened)
}

/// What a listener got of a reply.
#[derive(Debug, Default)]
struct Heard {
    /// Words, and where they lie.
    words: Vec<(String, u64, u64)>,
    moves: Vec<&'static str>,
    end: Option<Result<(), String>>,
    samples: u64,
    /// Silence in the middle of the reply.
    gap: Duration,
}

/// Listens in real time to a reply of these texts.
async fn listen(fleet: Fleet) -> Heard {
    let purpose = Purpose::LISTENER;
    let wanted = Wanted::new("s", VoiceChoice::parse("fake", 1.0), purpose.mode);
    let session = fleet.open(wanted, "s".into(), purpose.lead).await.unwrap();
    let mut speaking = Speaking::new(fleet, "s", session, purpose);
    for text in TEXT {
        assert!(speaking.say(REPLY, text.into(), None));
    }
    speaking.end(REPLY);
    let mut heard = Heard::default();
    // The listener plays from the first frame on, and waits where there is nothing.
    let mut dry_at = Instant::now();
    let started = Instant::now();
    while heard.end.is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "{heard:?}");
        let in_hand = dry_at.saturating_duration_since(Instant::now());
        let left = heard.samples - (in_hand.as_micros() as u64 * 48 / 1_000).min(heard.samples);
        let voiced = speaking.next(Listener { in_hand, left });
        // As in a session, other things happen meanwhile.
        let Ok(voiced) = tokio::time::timeout(Duration::from_millis(20), voiced).await else {
            continue;
        };
        match voiced {
            Voiced::Frame(_, frame) => {
                let now = Instant::now();
                if heard.samples > 0 {
                    heard.gap += now.saturating_duration_since(dry_at);
                }
                dry_at = dry_at.max(now) + Duration::from_millis(20);
                heard.samples += FRAME;
                for mark in frame.words {
                    let text = TEXT[mark.chunk as usize];
                    let said = &text[mark.text_start as usize..mark.text_end as usize];
                    heard
                        .words
                        .push((said.to_owned(), mark.start_sample, mark.end_sample));
                }
            }
            Voiced::Moved(_, at, why) => {
                let dropped = (heard.samples - at) * 1_000 / 48;
                dry_at -= Duration::from_micros(dropped);
                heard.samples = at;
                heard.words.retain(|(_, _, end)| *end <= at);
                heard.moves.push(why);
            }
            Voiced::Pause(_) => {
                dry_at += Duration::from_millis(20);
                heard.samples += FRAME;
            }
            Voiced::Ended(_) => heard.end = Some(Ok(())),
            Voiced::Failed(_, error) | Voiced::NotOpened(error) => {
                heard.end = Some(Err(error.to_string()))
            }
            Voiced::Progress => {}
        }
    }
    heard
}

impl Heard {
    fn is_whole(&self) {
        assert_eq!(self.end, Some(Ok(())), "{self:?}");
        let said: Vec<&str> = self.words.iter().map(|(word, ..)| word.as_str()).collect();
        let all: Vec<&str> = TEXT
            .iter()
            .flat_map(|text| text.split_whitespace())
            .collect();
        assert_eq!(said, all);
        let mut end = 0;
        for (word, from, to) in &self.words {
            assert!(*from >= end && to > from, "{word} lies at {from} to {to}");
            end = *to;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_breaks_in_a_word_is_followed_by_another_without_a_gap() {
    let (fleet, opened) = fleet(&[Some((Fault::Breaks, 17)), None]);
    let heard = listen(fleet).await;
    heard.is_whole();
    assert_eq!(heard.moves, ["broken"]);
    assert!(heard.gap < Duration::from_millis(40), "{heard:?}");
    assert_eq!(opened[1].load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_is_followed_by_another_before_its_listener_runs_dry() {
    let (fleet, _) = fleet(&[Some((Fault::Hangs, 37)), None]);
    let heard = listen(fleet).await;
    heard.is_whole();
    assert_eq!(heard.moves, ["silent"]);
    assert!(heard.gap < Duration::from_millis(40), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_never_begins_is_followed_by_another_within_a_second() {
    let (fleet, _) = fleet(&[Some((Fault::Hangs, 0)), None]);
    let began = Instant::now();
    let heard = listen(fleet).await;
    heard.is_whole();
    assert_eq!(heard.moves, ["mute"]);
    assert!(began.elapsed() < Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_slows_to_a_crawl_is_followed_by_another() {
    let (fleet, _) = fleet(&[Some((Fault::Crawls, 12)), None]);
    let heard = listen(fleet).await;
    heard.is_whole();
    assert_eq!(heard.moves, ["slow"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_alone_that_crawls_is_listened_to_with_patience() {
    let (fleet, opened) = fleet(&[Some((Fault::Crawls, 12))]);
    let heard = listen(fleet).await;
    heard.is_whole();
    assert_eq!(heard.moves, Vec::<&str>::new());
    assert_eq!(opened[0].load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_its_worker_ended_is_opened_again_on_it() {
    let (fleet, opened) = fleet(&[Some((Fault::Forgets, 0))]);
    let began = Instant::now();
    let heard = listen(fleet).await;
    heard.is_whole();
    assert_eq!(opened[0].load(Ordering::Relaxed), 2);
    assert!(began.elapsed() < Duration::from_millis(1_100), "it waited");
}

#[tokio::test(start_paused = true)]
async fn a_worker_alone_that_breaks_is_tried_again() {
    let (fleet, opened) = fleet(&[Some((Fault::Breaks, 17))]);
    let heard = listen(fleet).await;
    heard.is_whole();
    assert_eq!(opened[0].load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_is_left_the_reply_fails_with_the_first_reason() {
    let gone = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let (fleet, _) = fleet(&[Some((Fault::Breaks, 17))]);
    let client = fleet
        .acquire(&Wanted::new(
            "s",
            VoiceChoice::parse("fake", 1.0),
            Mode::Session,
        ))
        .await
        .unwrap()
        .client;
    // The worker is there for one session, and its address is dead after.
    let session = client
        .open(
            "s".into(),
            VoiceChoice::parse("fake", 1.0),
            Duration::from_secs(1),
        )
        .await
        .unwrap();
    let nobody = Fleet::of([("w".to_owned(), VoiceClient::new(gone))]);
    let mut speaking = Speaking::new(nobody, "s", session, Purpose::LISTENER);
    assert!(speaking.say(REPLY, TEXT[0].into(), None));
    speaking.end(REPLY);
    let failed = loop {
        let listener = Listener {
            in_hand: Duration::ZERO,
            left: 0,
        };
        match speaking.next(listener).await {
            Voiced::Failed(reply, error) => break (reply, error.to_string()),
            Voiced::Ended(_) => panic!("it ended"),
            _ => {}
        }
    };
    assert_eq!(failed.0, REPLY);
    assert!(failed.1.contains("killed"), "{}", failed.1);
}
