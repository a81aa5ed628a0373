//! Access control of the endpoints: it reads headers and the clock for `duologue-access`, and does what that says.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use duologue_access::{
    Addresses, Admitted, Authenticator, ClientSecret, Key, Limited, Limits, PageRefused, Pages,
    Refused, Scope, SecretRefused, Usage, Visit, bearer, in_subprotocols,
};
use duologue_metrics::table;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::ApiError;

/// Most bytes of a request's headers. Client secrets and resume tokens travel in them.
const HEADERS: usize = 48 * 1024;
/// Longest address, with its parameters.
const ADDRESS: usize = 8 * 1024;
/// For how long a browser may remember that a site may talk to this server.
const PREFLIGHT: &str = "600";

/// Access control of a running server: who may use it, and what each has taken.
pub struct AccessControl {
    authenticator: RwLock<Arc<Authenticator>>,
    pages: RwLock<Arc<Pages>>,
    usage: Mutex<HashMap<String, Usage>>,
    addresses: Mutex<Addresses>,
    began: Instant,
}

impl AccessControl {
    /// That of a server that begins.
    #[must_use]
    pub fn new(authenticator: Authenticator, pages: Pages) -> Self {
        let access = Self {
            authenticator: RwLock::new(Arc::new(Authenticator::clone(&authenticator))),
            pages: RwLock::new(Arc::new(pages)),
            usage: Mutex::default(),
            addresses: Mutex::new(Addresses::new(Limits::default())),
            began: Instant::now(),
        };
        access.replace_keys(authenticator.keys().to_vec());
        access
    }

    /// Takes other keys and limits from now on. Sessions that run go on; those of a key that stays count on.
    pub fn replace_keys(&self, keys: Vec<Key>) {
        let now = self.began.elapsed();
        let mut usage = self.usage();
        usage.retain(|name, _| keys.iter().any(|key| key.name == *name));
        for key in &keys {
            usage
                .entry(key.name.clone())
                .and_modify(|usage| usage.limit(key.limits, now))
                .or_insert_with(|| Usage::new(key.limits, now));
        }
        drop(usage);
        let authenticator = self.authenticator().with_keys(keys);
        *self
            .authenticator
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(authenticator);
    }

    /// What a client without a key may take, counted by its address, from now on.
    pub fn limit_addresses(&self, limits: Limits) {
        let now = self.began.elapsed();
        self.addresses().limit(limits, now);
    }

    /// A client secret for whoever is shown it, in the name of the first key; `None` where none is needed.
    #[must_use]
    pub fn for_a_visitor(&self, lasting: Duration) -> Option<String> {
        let authenticator = self.authenticator();
        let key = authenticator.keys().first()?;
        let secret = ClientSecret {
            key: Some(key.name.clone()),
            expires_at: unix_time() + lasting.as_secs(),
            id: rand::random(),
            session: Map::new(),
        };
        authenticator.issue(&secret).ok()
    }

    /// Judges pages by other rules from now on.
    pub fn replace_pages(&self, pages: Pages) {
        *self.pages.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pages);
    }

    fn authenticator(&self) -> Arc<Authenticator> {
        Arc::clone(
            &self
                .authenticator
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.pages.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn usage(&self) -> MutexGuard<'_, HashMap<String, Usage>> {
        // Nothing that can panic is done while it is held.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        // As above.
        let addresses = self.addresses.lock();
        addresses.unwrap_or_else(PoisonError::into_inner)
    }

    fn of<T>(&self, key: &str, ask: impl FnOnce(&mut Usage, Duration) -> T) -> Option<T> {
        let now = self.began.elapsed();
        self.usage().get_mut(key).map(|usage| ask(usage, now))
    }
}

/// Seconds of Unix time.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Whoever sent a request.
#[derive(Clone)]
pub(crate) struct Caller {
    access: Arc<AccessControl>,
    key: Option<Arc<str>>,
    /// From where it came.
    address: Option<IpAddr>,
    session: Option<Arc<Map<String, Value>>>,
}

impl Caller {
    /// Name of the key; `None`: none is needed.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }

    /// Settings for its sessions, where it came with a client secret.
    pub fn session(&self) -> Option<Value> {
        self.session
            .as_ref()
            .map(|session| Value::Object(Map::clone(session)))
    }

    /// Counts a session for as long as what is returned is there.
    pub fn begin_session(&self) -> Result<SessionPlace, ApiError> {
        self.ask(|usage, _| usage.begin_session())?;
        Ok(SessionPlace(self.clone()))
    }

    /// Counts bytes that have come.
    pub fn received(&self, bytes: usize) -> Result<(), Limited> {
        self.ask(|usage, now| usage.received(bytes as u64, now))
    }

    /// Makes a client secret for sessions in its name.
    pub fn issue(&self, secret: ClientSecret) -> Result<String, SecretRefused> {
        let secret = ClientSecret {
            key: self.key.as_deref().map(str::to_owned),
            ..secret
        };
        self.access.authenticator().issue(&secret)
    }

    fn ask(
        &self,
        ask: impl FnOnce(&mut Usage, Duration) -> Result<(), Limited>,
    ) -> Result<(), Limited> {
        let asked = match (&self.key, self.address) {
            (Some(key), _) => self.access.of(key, ask),
            (None, Some(address)) => {
                let now = self.access.began.elapsed();
                let mut addresses = self.access.addresses();
                addresses.of(address, now).map(|usage| ask(usage, now))
            }
            (None, None) => None,
        };
        asked.unwrap_or(Ok(()))
    }
}

/// A session that counts for its key or address; dropped, it does not any more.
pub(crate) struct SessionPlace(Caller);

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let ended = self.0.ask(|usage, _| {
            usage.end_session();
            Ok(())
        });
        debug_assert!(ended.is_ok());
    }
}

/// What stands before a group of endpoints.
#[derive(Clone)]
pub(super) struct Guard {
    pub access: Arc<AccessControl>,
    pub scope: Scope,
}

/// Lets in who has what the endpoint asks for, and says who it is.
pub(super) async fn ask_for_key(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let presented = presented(request.headers());
    let authenticator = guard.access.authenticator();
    let admitted = authenticator.admit(presented, guard.scope, unix_time());
    let Admitted { key, session } = admitted.map_err(|refused| {
        table::REQUESTS_REFUSED.count_for("key");
        tracing::debug!(path = request.uri().path(), why = %refused, "a request was refused");
        ApiError::from(refused)
    })?;
    let caller = Caller {
        access: guard.access,
        key: key.map(Arc::from),
        address: request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .map(|ConnectInfo(from)| from.ip()),
        session: session.map(Arc::new),
    };
    caller.ask(Usage::request)?;
    let counted = caller.clone();
    request = request.map(|body| count(body, counted));
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    match text(header::AUTHORIZATION) {
        Some(header) => bearer(header),
        None => in_subprotocols(text(header::SEC_WEBSOCKET_PROTOCOL)?),
    }
}

/// Counts a body as it is read. A request that was let in may send all of it.
fn count(body: Body, caller: Caller) -> Body {
    Body::from_stream(body.into_data_stream().inspect(move |piece| {
        if let Ok(piece) = piece {
            let _ = caller.received(piece.len());
        }
    }))
}

/// Turns away pages that may not talk to this server, and heads of requests that are too large; answers browsers that
/// ask whether a page may.
pub(super) async fn look_at_page(
    State(access): State<Arc<AccessControl>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check_size(&request)?;
    let headers = request.headers();
    let visit = access.pages().visit(
        readable(headers, header::HOST),
        readable(headers, header::ORIGIN),
    );
    let visit = visit.map_err(|refused| {
        table::REQUESTS_REFUSED.count_for("page");
        tracing::warn!(%refused, "a request was refused");
        ApiError::from(refused)
    })?;
    let origin = request.headers().get(header::ORIGIN).cloned();
    let asked = request
        .headers()
        .get(header::ACCESS_CONTROL_REQUEST_METHOD)
        .is_some();
    let listed = (visit == Visit::Listed).then_some(origin).flatten();
    if request.method() == Method::OPTIONS && asked {
        return match listed {
            Some(origin) => Ok(preflight(request.headers(), origin)),
            None => Err(ApiError::forbidden(
                "origin_not_allowed",
                "pages of other sites may not read this server's answers; its operator can allow them with --cors-origin",
            )),
        };
    }
    let mut response = next.run(request).await;
    if let Some(origin) = listed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("Location, Retry-After"),
        );
    }
    Ok(response)
}

/// What cannot be read is not left out: it is none of ours.
fn readable(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    Some(headers.get(name)?.to_str().unwrap_or("null"))
}

fn check_size(request: &Request) -> Result<(), ApiError> {
    let too_large = |status, message: String| {
        table::REQUESTS_REFUSED.count_for("size");
        Err(ApiError {
            status,
            code: "request_too_large",
            ..ApiError::invalid(None, message)
        })
    };
    let address = request.uri().path().len() + request.uri().query().map_or(0, str::len);
    if address > ADDRESS {
        let message = format!("the address has {address} bytes; at most {ADDRESS} are read");
        return too_large(StatusCode::URI_TOO_LONG, message);
    }
    let headers: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if headers > HEADERS {
        let message = format!("the headers have {headers} bytes; at most {HEADERS} are read");
        return too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message);
    }
    Ok(())
}

/// A listed site may send whatever it wants to, and read the answer.
fn preflight(asked: &HeaderMap, origin: HeaderValue) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, DELETE"),
    );
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static(PREFLIGHT),
    );
    // A page on the internet and a server in the house.
    if asked.contains_key("access-control-request-private-network") {
        headers.insert(
            HeaderName::from_static("access-control-allow-private-network"),
            HeaderValue::from_static("true"),
        );
    }
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    response
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotForThis => Self::forbidden("insufficient_permissions", refused.to_string()),
            _ => Self {
                status: StatusCode::UNAUTHORIZED,
                code: "invalid_api_key",
                ..Self::invalid(None, refused.to_string())
            },
        }
    }
}

impl From<PageRefused> for ApiError {
    fn from(refused: PageRefused) -> Self {
        let code = match &refused {
            PageRefused::Host(_) => "host_not_allowed",
            PageRefused::Origin(_) => "origin_not_allowed",
        };
        Self::forbidden(code, refused.to_string())
    }
}

impl From<Limited> for ApiError {
    fn from(limited: Limited) -> Self {
        table::REQUESTS_REFUSED.count_for(limited.of());
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "rate_limit_exceeded",
            kind: Some(limited.of()),
            retry_after: Some(limited.retry_after()),
            ..Self::invalid(None, limited.to_string())
        }
    }
}
