//! What is recorded is what Prometheus reads.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use duologue_metrics::{Exposition, table};

#[test]
fn what_is_recorded_is_on_the_page_once_it_is_installed() {
    table::TURNS.count();
    let page = Exposition::install().unwrap();
    assert!(Exposition::install().is_err());
    // What came before is lost; counters begin with a zero, for rates.
    assert!(page.render().contains("duologue_turns_total 0"));
    table::TURNS.add(2);
    table::REPLIES.count_for("completed");
    let held = table::SESSIONS.hold_for("websocket");
    table::VOICE_TO_VOICE.record(Duration::from_millis(450));
    let text = page.render();
    for line in [
        "# HELP duologue_turns_total Messages of users.",
        "# TYPE duologue_turns_total counter",
        "duologue_turns_total 2",
        "duologue_replies_total{status=\"completed\"} 1",
        "duologue_sessions{transport=\"websocket\"} 1",
        "duologue_voice_to_voice_seconds_bucket{le=\"0.4\"} 0",
        "duologue_voice_to_voice_seconds_bucket{le=\"0.5\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    drop(held);
    assert!(
        page.render()
            .contains("duologue_sessions{transport=\"websocket\"} 0")
    );
}
