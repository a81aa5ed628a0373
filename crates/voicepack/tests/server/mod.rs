//! An HTTP server whose files can be cut short, stalled, wrong or without ranges.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use duologue_voicepack::{Event, IndexSettings, Network, Progress};
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

/// How a file is served.
#[derive(Clone, Default)]
pub struct Served {
    pub content: Vec<u8>,
    pub content_type: Option<&'static str>,
    /// Say nothing more after so many bytes of the first answer, until [`Server::cut`].
    pub stall: Option<usize>,
    /// Ignore `Range`.
    pub no_ranges: bool,
    /// Leave `Content-Length` out.
    pub no_length: bool,
    /// The hub's announcement.
    pub announced: Option<String>,
}

impl Served {
    pub fn new(content: impl Into<Vec<u8>>) -> Self {
        Self {
            content: content.into(),
            ..Self::default()
        }
    }
}

#[derive(Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Served>>,
    /// Method, path and range of each request.
    log: Mutex<Vec<(Method, String, Option<String>)>>,
    cut: Notify,
}

pub struct Server {
    pub address: String,
    shared: Arc<Shared>,
}

impl Server {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, shared }
    }

    pub fn serve(&self, path: &str, file: Served) {
        let mut files = self.shared.files.lock().unwrap();
        files.insert(path.to_owned(), file);
    }

    /// Breaks the connection of a stalled answer.
    pub fn cut(&self) {
        self.shared.cut.notify_one();
    }

    /// The ranges (empty: none) asked for in GETs of a path, in order.
    pub fn gets(&self, path: &str) -> Vec<String> {
        let log = self.shared.log.lock().unwrap();
        log.iter()
            .filter(|(method, p, _)| *method == Method::GET && p == path)
            .map(|(_, _, range)| range.clone().unwrap_or_default())
            .collect()
    }

    /// A network of nothing but this server: hub under `/hub`, index under `/simple`.
    pub fn network(&self) -> Network {
        Network {
            hub: format!("{}/hub", self.address),
            hub_token: None,
            index: IndexSettings {
                indexes: vec![format!("{}/simple", self.address)],
                certificate: None,
                proxy: None,
            },
            certificates: Vec::new(),
            system_proxy: false,
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let range = request
        .headers()
        .get(header::RANGE)
        .map(|v| v.to_str().unwrap().to_owned());
    let entry = (request.method().clone(), path.clone(), range.clone());
    shared.log.lock().unwrap().push(entry);
    let head = request.method() == Method::HEAD;
    let file = {
        let mut files = shared.files.lock().unwrap();
        let Some(file) = files.get_mut(&path) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let now = file.clone();
        if !head {
            file.stall = None;
        }
        now
    };
    let total = file.content.len();
    let from = range.filter(|_| !file.no_ranges).map(|r| {
        r["bytes=".len()..]
            .trim_end_matches('-')
            .parse::<usize>()
            .unwrap()
    });
    let mut response = Response::builder();
    if let Some(announced) = &file.announced {
        response = response.header("x-linked-etag", format!("\"{announced}\""));
    }
    if let Some(content_type) = file.content_type {
        response = response.header(header::CONTENT_TYPE, content_type);
    }
    if let Some(from) = from {
        if from >= total {
            return response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{total}"))
                .body(Body::empty())
                .unwrap();
        }
        let sent = format!("bytes {from}-{}/{total}", total - 1);
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, sent);
    }
    let content = Bytes::from(file.content).slice(from.unwrap_or(0)..);
    if !file.no_length {
        response = response.header(header::CONTENT_LENGTH, content.len());
    }
    let body = if head {
        Body::empty()
    } else if let Some(at) = file.stall {
        let first = stream::iter([Ok(content.slice(..at))]);
        let broken = stream::once(async move {
            shared.cut.notified().await;
            Err(std::io::Error::other("cut"))
        });
        Body::from_stream(first.chain(broken))
    } else {
        Body::from_stream(stream::iter([Ok::<_, Infallible>(content)]))
    };
    response.body(body).unwrap()
}

/// Keeps all events.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<Event>>);

impl Progress for Heard {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Heard {
    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|e| wanted(e)).count()
    }
}

pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Bytes that do not repeat soon, so that a wrong join shows.
pub fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut x = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        (x >> 8) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A wheel with these members.
pub fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, content) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}
