//! What clients send that talk with the server.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use duologue_orchestrator::fuzzing;
use duologue_orchestrator::realtime::{
    ClientEvent, Dialect, EventError, InputDecoder, SessionSettings, VoiceNames, apply_update,
    parse,
};
use duologue_rtc::{Port, PortConfig};
use serde_json::Value;
use tokio::runtime::Runtime;

/// What is told of a mistake may not be longer, bytes: it goes back to who made it.
const LONGEST_ERROR: usize = 4 * 1024;

/// An event a line, as one session gets them.
pub fn realtime_event(data: &[u8]) {
    let mut settings = SessionSettings::new("model", "Be brief.", "voice");
    for line in String::from_utf8_lossy(data).lines() {
        match parse(line) {
            Ok((ClientEvent::SessionUpdate(update), _)) => configure(&mut settings, &update),
            Ok((ClientEvent::Append(bytes), _)) => {
                let bytes_are = bytes.len();
                let Ok(mut decoder) = InputDecoder::new(settings.input) else {
                    panic!("an encoding that cannot be read was accepted");
                };
                let samples = decoder.decode(bytes);
                assert!(samples.len() <= bytes_are * 3 && samples.iter().all(|s| s.is_finite()));
            }
            Ok(_) => {}
            Err(error) => check(&error),
        }
    }
}

fn configure(settings: &mut SessionSettings, update: &Value) {
    let voices = VoiceNames {
        known: vec!["voice".into(), "voice:ada".into(), "other".into()],
    };
    match apply_update(settings, update, &voices) {
        Ok(next) => {
            for dialect in [Dialect::Ga, Dialect::Beta] {
                let shown = next.to_json("sess_1", dialect);
                assert!(shown.is_object());
            }
            *settings = next;
        }
        Err(error) => check(&error),
    }
}

fn check(error: &EventError) {
    let told = error.to_json().to_string();
    assert!(!error.message.is_empty());
    assert!(
        told.len() <= LONGEST_ERROR,
        "{} bytes are told of one mistake",
        told.len()
    );
}

/// The first byte says what the request says it is; the rest is its body.
pub fn call_request(data: &[u8]) {
    static PORT: LazyLock<Option<(Runtime, Port)>> = LazyLock::new(|| {
        let runtime = Runtime::new().ok()?;
        let config = PortConfig {
            udp_port: 0,
            tcp_port: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            public_addresses: Vec::new(),
        };
        let port = runtime.block_on(Port::bind(&config)).ok()?;
        Some((runtime, port))
    });
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let kind = match kind % 4 {
        0 => "application/sdp",
        1 => "multipart/form-data; boundary=b",
        2 => "",
        _ => "multipart/form-data",
    };
    let Some((offer, session)) = fuzzing::call_request(kind, body) else {
        return;
    };
    if let Some(session) = session {
        configure(&mut SessionSettings::new("model", "", "voice"), &session);
    }
    let Some((runtime, port)) = &*PORT else {
        panic!("no port could be bound");
    };
    let _guard = runtime.enter();
    match port.accept(&offer) {
        Ok(peer) => assert!(peer.answer().starts_with("v=0")),
        Err(error) => assert!(error.to_string().len() <= LONGEST_ERROR, "{error}"),
    }
}

/// The body of a form.
pub fn transcription_request(data: &[u8]) {
    fuzzing::transcription_request("multipart/form-data; boundary=b", data);
}
