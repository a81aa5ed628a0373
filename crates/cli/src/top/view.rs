//! What `duologue top` shows, as words: the screen and the plain text are both made of it.

use std::time::Duration;

use duologue_orchestrator::status::ServerStatus;

use super::exposition::Page;

/// All that is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The server, in a line.
    pub title: String,
    /// Counts, with their names.
    pub counts: Vec<(&'static str, String)>,
    /// What the latencies are of.
    pub period: String,
    /// The tables: latencies, sessions, workers.
    pub latencies: Table,
    /// Of `None` the server does not tell at this address.
    pub sessions: Option<Table>,
    /// The same.
    pub workers: Option<Table>,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What its columns are called.
    pub header: Vec<&'static str>,
    /// Its lines.
    pub rows: Vec<Vec<String>>,
}

/// What a latency is called, its metric and the label's value.
type Latency = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
);

/// The latencies, in the order of a turn.
const LATENCIES: [Latency; 11] = [
    ("voice to voice", "duologue_voice_to_voice_seconds", None),
    (
        "  end of turn",
        "duologue_turn_step_seconds",
        Some(("step", "end_of_turn")),
    ),
    (
        "  transcript",
        "duologue_turn_step_seconds",
        Some(("step", "transcript")),
    ),
    (
        "  first clause",
        "duologue_turn_step_seconds",
        Some(("step", "first_clause")),
    ),
    (
        "  first audio",
        "duologue_turn_step_seconds",
        Some(("step", "first_audio")),
    ),
    ("barge-in", "duologue_barge_in_seconds", None),
    (
        "language model, first token",
        "duologue_llm_first_token_seconds",
        None,
    ),
    (
        "voice, first audio",
        "duologue_worker_first_audio_seconds",
        None,
    ),
    ("frame lateness", "duologue_frame_lateness_seconds", None),
    ("wait for a thread", "duologue_inference_wait_seconds", None),
    ("reactor lag", "duologue_reactor_lag_seconds", None),
];

impl View {
    /// What is to be shown of a server: its metrics now and some time before (nothing: since it began), and its status
    /// if it tells.
    pub fn new(
        address: &str,
        now: &Page,
        before: Option<(&Page, Duration)>,
        status: Option<&ServerStatus>,
    ) -> Self {
        let mut title = match status {
            Some(status) => format!("Duologue {} at {address}", status.version),
            None => format!("Duologue at {address}"),
        };
        if status.is_some_and(|status| status.draining) {
            title.push_str(", draining");
        }
        Self {
            title,
            counts: counts(now),
            period: match before {
                Some((_, length)) => format!("last {} s", length.as_secs()),
                None => "since it began".to_owned(),
            },
            latencies: latencies(now, before.map(|(page, _)| page)),
            sessions: status.map(sessions),
            workers: status.map(workers),
        }
    }

    /// As plain text.
    pub fn plain(&self) -> String {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let mut text = format!("{}\n", self.title);
        for line in counts.chunks(COUNTS_A_LINE) {
            text.push_str(&format!("{}\n", line.join(", ")));
        }
        let mut add = |title: &str, table: &Table| {
            text.push_str(&format!("\n{title}\n{}", table.plain()));
        };
        add(&format!("LATENCY ({})", self.period), &self.latencies);
        match &self.sessions {
            Some(sessions) => add("SESSIONS", sessions),
            None => text.push_str(&format!("\n{NOT_TOLD}\n")),
        }
        if let Some(workers) = &self.workers {
            text.push_str(&format!("\nWORKERS\n{}", workers.plain()));
        }
        text
    }
}

/// So many counts fit on a line.
const COUNTS_A_LINE: usize = 6;

/// Where sessions are not told one by one.
pub const NOT_TOLD: &str = "Sessions one by one, and workers: start the server with --admin-listen 127.0.0.1:9100, \
                            and ask there: duologue top http://127.0.0.1:9100";

impl Table {
    /// The width of each column.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    fn plain(&self) -> String {
        let widths = self.widths();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (cell, width) in cells.zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            format!("{}\n", line.trim_end())
        };
        let mut text = line(&mut self.header.iter().copied());
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        if self.rows.is_empty() {
            text.push_str("none\n");
        }
        text
    }
}

fn counts(page: &Page) -> Vec<(&'static str, String)> {
    let mut counts = Vec::new();
    let mut add = |name: &'static str, metric: &str, of: Option<(&str, &str)>| {
        if page.has(metric) {
            counts.push((name, format!("{:.0}", page.sum(metric, of))));
        }
    };
    add("sessions", "duologue_sessions", None);
    add("free", "duologue_slots_free", None);
    add("on the worker", "duologue_worker_sessions", None);
    add("turns", "duologue_turns_total", None);
    add(
        "interruptions",
        "duologue_interruptions_committed_total",
        None,
    );
    add("taken back", "duologue_interruptions_retracted_total", None);
    add(
        "failed",
        "duologue_replies_total",
        Some(("status", "failed")),
    );
    add("refused", "duologue_sessions_refused_total", None);
    add("underruns", "duologue_playback_underruns_total", None);
    add("utterances", "duologue_worker_utterances_total", None);
    add("voices", "duologue_models_resident", None);
    let memory = page.sum("duologue_process_resident_bytes", None);
    if memory > 0.0 {
        counts.push(("memory", bytes(memory)));
    }
    counts
}

fn latencies(now: &Page, before: Option<&Page>) -> Table {
    let mut rows = Vec::new();
    for (name, metric, of) in LATENCIES {
        let mut distribution = now.distribution(metric, of);
        if distribution.count() == 0.0 {
            continue;
        }
        if let Some(before) = before {
            distribution = distribution.since(&before.distribution(metric, of));
        }
        let ms = |share| {
            let value: Option<f64> = distribution.quantile(share);
            value.map_or_else(|| "-".to_owned(), |seconds| milliseconds(seconds * 1_000.0))
        };
        rows.push(vec![
            name.to_owned(),
            ms(0.5),
            ms(0.95),
            format!("{:.0}", distribution.count()),
        ]);
    }
    Table {
        header: vec![
            "from the user's last sound; and of parts",
            "p50 ms",
            "p95 ms",
            "of",
        ],
        rows,
    }
}

fn sessions(status: &ServerStatus) -> Table {
    let rows = status.sessions.iter().map(|session| {
        vec![
            session.id.clone(),
            session.transport.clone(),
            session.state.clone(),
            duration(session.in_state_seconds),
            duration(session.seconds),
            session.turns.to_string(),
            format!("{}/{}", session.interruptions, session.retractions),
            session
                .voice_to_voice_ms
                .map_or_else(|| "-".to_owned(), milliseconds),
            session.underruns.to_string(),
            session.worker.clone(),
            bytes(session.received_bytes as f64),
            bytes(session.sent_bytes as f64),
        ]
    });
    Table {
        header: vec![
            "session",
            "over",
            "state",
            "for",
            "age",
            "turns",
            "barged/back",
            "v2v ms",
            "dry",
            "worker",
            "in",
            "out",
        ],
        rows: rows.collect(),
    }
}

fn workers(status: &ServerStatus) -> Table {
    let measured = |value: f32, text: String| if value > 0.0 { text } else { "-".to_owned() };
    let rows = status.workers.iter().map(|worker| {
        let slots = match worker.slots {
            0 => worker.taken.to_string(),
            slots => format!("{}/{slots}", worker.taken),
        };
        vec![
            worker.name.clone(),
            if worker.draining { "draining" } else { "ready" }.to_owned(),
            slots,
            measured(
                worker.first_audio_p95_ms,
                milliseconds(worker.first_audio_p95_ms.into()),
            ),
            measured(
                worker.real_time_factor,
                format!("{:.2}", worker.real_time_factor),
            ),
            worker.resident.join(" "),
        ]
    });
    Table {
        header: vec![
            "worker",
            "state",
            "taken",
            "first audio p95 ms",
            "real-time factor",
            "voices",
        ],
        rows: rows.collect(),
    }
}

fn milliseconds(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02}", whole / 3_600, whole / 60 % 60, whole % 60),
    }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.0} kB", b / 1e3),
        b => format!("{b:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use duologue_orchestrator::status::{SessionStatus, WorkerStatus};

    use super::*;

    const PAGE: &str = "duologue_sessions{transport=\"websocket\"} 1\n\
        duologue_replies_total{status=\"failed\"} 2\n\
        duologue_replies_total{status=\"completed\"} 7\n\
        duologue_process_resident_bytes 1340000000\n\
        duologue_voice_to_voice_seconds_bucket{le=\"1\"} 4\n\
        duologue_voice_to_voice_seconds_bucket{le=\"2\"} 8\n\
        duologue_voice_to_voice_seconds_bucket{le=\"+Inf\"} 8\n";

    #[test]
    fn a_server_that_tells_of_its_sessions_has_them_and_its_workers_listed() {
        let status = ServerStatus {
            version: "1.2.3".into(),
            sessions: vec![SessionStatus {
                id: "abc".into(),
                state: "speaking".into(),
                seconds: 75.0,
                voice_to_voice_ms: Some(612.0),
                received_bytes: 1_500_000,
                ..SessionStatus::default()
            }],
            workers: vec![WorkerStatus {
                name: "kitchen".into(),
                taken: 1,
                slots: 4,
                ..WorkerStatus::default()
            }],
            ..ServerStatus::default()
        };
        let view = View::new("here", &Page::read(PAGE), None, Some(&status));
        let text = view.plain();
        for part in [
            "Duologue 1.2.3 at here",
            "failed 2",
            "memory 1.3 GB",
            "since it began",
            "1:15",
            "612",
            "1.5 MB",
            "kitchen  ready  1/4",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        let voice: Vec<&str> = view.latencies.rows[0].iter().map(String::as_str).collect();
        assert_eq!(voice, ["voice to voice", "1000", "1900", "8"]);
    }

    #[test]
    fn of_a_server_that_does_not_tell_it_is_said_how_to_ask() {
        let page = Page::read(PAGE);
        let view = View::new("here", &page, Some((&page, Duration::from_secs(30))), None);
        let text = view.plain();
        assert!(text.contains("--admin-listen"), "{text}");
        assert!(text.contains("last 30 s"), "{text}");
        // Nothing came meanwhile.
        assert_eq!(view.latencies.rows[0][1..], ["-", "-", "0"]);
    }
}
