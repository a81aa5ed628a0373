//! All metrics there are.

use crate::metric::{Counter, Gauge, Histogram, Kind, Metric};

/// Waits that people notice, in seconds: fine around half a second, where it is decided whether a conversation flows.
const LATENCY: &[f64] = &[
    0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0,
];
/// Times in which a sound is stopped or a frame is late, in seconds.
const PROMPT: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0,
];
/// Loads of models, in seconds.
const LOAD: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0];
/// Seconds it takes to compute a second of sound.
const FACTOR: &[f64] = &[0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.5, 2.0];
/// Bytes of a session: from a few seconds of Opus to an hour of PCM in JSON.
const BYTES: &[f64] = &[1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9];
/// Lengths of sessions, in seconds.
const LENGTH: &[f64] = &[
    5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0,
];

macro_rules! metrics {
    ($($(#[label($label:literal, $values:literal)])? $constant:ident: $kind:ident $(($buckets:ident))? = $name:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: $kind = $kind(Metric {
                name: $name,
                help: $help,
                label: metrics!(@label $($label, $values)?),
                kind: Kind::$kind $(($buckets))?,
            });
        )*
        /// Every metric, in the order of the documentation.
        pub const ALL: &[Metric] = &[$($constant.0),*];
    };
    (@label) => { None };
    (@label $label:literal, $values:literal) => { Some(($label, $values)) };
}

metrics! {
    #[label("transport", "`websocket`, `webrtc`, `livekit`")]
    SESSIONS: Gauge = "duologue_sessions", "Sessions that are open.";
    #[label("transport", "`websocket`, `webrtc`, `livekit`")]
    SESSIONS_BEGUN: Counter = "duologue_sessions_begun_total", "Sessions that began.";
    #[label("reason", "`client_closed`, `transport_lost`, `idle_timeout`, `max_duration`, `max_turns`, `shutdown`, `overrun`")]
    SESSIONS_ENDED: Counter = "duologue_sessions_ended_total", "Sessions that ended, by why.";
    #[label("reason", "`full`, `busy`, `stopping`, `voice`")]
    SESSIONS_REFUSED: Counter = "duologue_sessions_refused_total", "Clients that were refused: no slot is free, one more session would be too much, the server stops, no voice could be had.";
    #[label("reason", "`key`, `page`, `size`, `sessions`, `requests`, `bytes`")]
    REQUESTS_REFUSED: Counter = "duologue_requests_refused_total", "Requests that were refused: without a good key, from a page that may not, with too large a head, beyond what a key may have.";
    SESSION_SECONDS: Histogram(LENGTH) = "duologue_session_seconds", "How long sessions lasted.";
    SLOTS_FREE: Gauge = "duologue_slots_free", "Sessions that may still begin.";
    #[label("transport", "`websocket`, `webrtc`")]
    RECEIVED: Counter = "duologue_received_bytes_total", "Bytes that came from clients: messages of WebSockets, datagrams of calls.";
    #[label("transport", "`websocket`, `webrtc`")]
    SENT: Counter = "duologue_sent_bytes_total", "Bytes that went to clients, counted alike.";
    SESSION_RECEIVED: Histogram(BYTES) = "duologue_session_received_bytes", "Bytes that came from one client in a session.";
    SESSION_SENT: Histogram(BYTES) = "duologue_session_sent_bytes", "Bytes that went to one client in a session.";

    TURNS: Counter = "duologue_turns_total", "Messages of users.";
    INPUT_DISCARDED: Counter = "duologue_input_discarded_total", "What was taken for speech and had no words.";
    VOICE_TO_VOICE: Histogram(LATENCY) = "duologue_voice_to_voice_seconds", "From the user's last sound to the first that is sent back.";
    #[label("step", "`end_of_turn`, `transcript`, `first_clause`, `first_audio`, `sent`")]
    TURN_STEP: Histogram(LATENCY) = "duologue_turn_step_seconds", "From the user's last sound until a step of the turn was reached.";
    #[label("status", "`completed`, `cancelled`, `incomplete`, `failed`")]
    REPLIES: Counter = "duologue_replies_total", "Replies, by how they ended.";

    INTERRUPTIONS_SUSPECTED: Counter = "duologue_interruptions_suspected_total", "Times that speech was heard over a reply.";
    #[label("evidence", "`duration`, `words`, `command`, `client`")]
    INTERRUPTIONS_COMMITTED: Counter = "duologue_interruptions_committed_total", "Replies that were given up for the user, by what decided.";
    #[label("evidence", "`too_short`, `backchannel`, `own_speech`, `echo`, `no_words`, `deadline`, `client`")]
    INTERRUPTIONS_RETRACTED: Counter = "duologue_interruptions_retracted_total", "Replies that went on after a suspicion, by what decided.";
    BARGE_IN: Histogram(PROMPT) = "duologue_barge_in_seconds", "From the first sound of speech over a reply until the reply is held.";
    INTERRUPTION_DECIDED: Histogram(LATENCY) = "duologue_interruption_decided_seconds", "From the suspicion of an interruption to its verdict.";
    HEARD_ITSELF: Counter = "duologue_heard_itself_total", "Times that a session took its own words for the user's.";
    #[label("outcome", "`kept`, `wasted`")]
    SPECULATIONS: Counter = "duologue_speculations_total", "Replies begun before the turn was over.";

    #[label("kind", "`partial`, `final`")]
    TRANSCRIPTION: Histogram(LATENCY) = "duologue_transcription_seconds", "Time in which a transcript was made, its wait for a thread included.";
    #[label("kind", "`empty`, `failed`")]
    TRANSCRIPTS_WITHOUT_WORDS: Counter = "duologue_transcripts_without_words_total", "Final transcripts that had no words (rejected ones are among them), or failed.";
    #[label("reason", "`silence`, `no_speech`, `unsure`, `repetition`, `known_phrase`")]
    TRANSCRIPTS_REJECTED: Counter = "duologue_transcripts_rejected_total", "Final transcripts that were thrown away as made up, by the mark they bore.";
    TRANSCRIPTION_FACTOR: Histogram(FACTOR) = "duologue_transcription_real_time_factor", "Seconds it took to transcribe a second of sound, its wait for a thread included; final transcripts.";
    FIRST_TOKEN: Histogram(LATENCY) = "duologue_llm_first_token_seconds", "From a prompt to the language model's first text.";
    #[label("pool", "`ear`, `mind`")]
    POOL_WAIT: Histogram(PROMPT) = "duologue_inference_wait_seconds", "How long inference waited for a thread.";
    #[label("pool", "`ear`, `mind`")]
    POOL_QUEUE: Gauge = "duologue_inference_queue", "Inference that waits for a thread.";
    REACTOR_LAG: Histogram(PROMPT) = "duologue_reactor_lag_seconds", "How late a timer of the async runtime fires.";

    FRAME_LATENESS: Histogram(PROMPT) = "duologue_frame_lateness_seconds", "How late after its time a frame of a reply left.";
    #[label("transport", "`websocket`, `webrtc`, `livekit`")]
    UNDERRUNS: Counter = "duologue_playback_underruns_total", "Gaps in the sound of replies: as the client reports its playout, else as sound is handed to the network.";
    VOICE_FAILOVERS: Counter = "duologue_voice_failovers_total", "Replies that went on with another voice worker.";
    VOICE_GAP: Histogram(LATENCY) = "duologue_voice_failover_gap_seconds", "Silence that a listener heard for it.";

    WORKER_SESSIONS: Gauge = "duologue_worker_sessions", "Sessions open on this voice worker.";
    WORKER_UTTERANCES: Counter = "duologue_worker_utterances_total", "Utterances that sounded.";
    WORKER_FAILURES: Counter = "duologue_worker_utterances_failed_total", "Utterances that were ended with an error.";
    WORKER_FIRST_AUDIO: Histogram(LATENCY) = "duologue_worker_first_audio_seconds", "From an utterance's first text to its first frame.";
    WORKER_FACTOR: Histogram(FACTOR) = "duologue_worker_real_time_factor", "Seconds it took to compute a second of an utterance.";
    #[label("outcome", "`loaded`, `failed`")]
    MODEL_LOADS: Counter = "duologue_model_loads_total", "Loads of voices.";
    MODEL_LOAD: Histogram(LOAD) = "duologue_model_load_seconds", "Time in which a voice was loaded and warmed up.";
    MODEL_EVICTIONS: Counter = "duologue_model_evictions_total", "Voices dropped from memory.";
    MODELS_RESIDENT: Gauge = "duologue_models_resident", "Voices in memory.";

    PROCESS_MEMORY: Gauge = "duologue_process_resident_bytes", "Memory of the process that is in RAM; Linux only, as those below.";
    PROCESS_CPU: Counter = "duologue_process_cpu_seconds_total", "Whole seconds of CPU time that the process has taken.";
    PROCESS_FILES: Gauge = "duologue_process_open_files", "Files and sockets that the process has open.";
}

/// The table as `docs/metrics.md` has it.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from("| metric | kind | what |\n|---|---|---|\n");
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let label = metric
            .label
            .map(|(label, values)| format!(" `{label}`: {values}."))
            .unwrap_or_default();
        page.push_str(&format!(
            "| `{}` | {kind} | {}{label} |\n",
            metric.name, metric.help
        ));
    }
    page
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_in_the_documentation_is_this_table() {
        let page = include_str!("../../../docs/metrics.md");
        assert!(
            page.contains(&markdown()),
            "docs/metrics.md has not this table:\n{}",
            markdown()
        );
    }

    #[test]
    fn names_follow_the_conventions_and_are_used_once() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            assert!(names.insert(metric.name), "{} twice", metric.name);
            assert!(metric.name.starts_with("duologue_"), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(buckets.is_sorted(), "{}", metric.name);
            }
        }
    }
}
