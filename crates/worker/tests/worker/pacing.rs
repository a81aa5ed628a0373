//! How far frames run ahead of the listener, in virtual time.

use std::time::Duration;

use crate::support::*;
use tokio::time::Instant;

/// About 6 s of sound.
const LONG: &str = "One sentence of about a hundred characters, so that there is more than enough of it to be sent ahead.";

#[tokio::test(start_paused = true)]
async fn frames_run_ahead_by_the_lead_and_no_further() {
    let worker = start(config()).await;
    let client = connect(&worker);
    for (session, asked, lead) in [("default", 0, 1_000), ("short", 100, 100)] {
        open_session_with_lead(&client, session, "", asked)
            .await
            .unwrap();
        let mut utterance = Utterance::begin(&client, session, "u", LONG).await;
        utterance.finish();
        let mut begun = None;
        let mut ahead = Vec::new();
        while let Some(frame) = utterance.next().await.unwrap() {
            let begun = *begun.get_or_insert_with(Instant::now);
            let sound = Duration::from_millis((frame.sequence + 1) * 20);
            let lead = Duration::from_millis(lead);
            assert!(
                sound <= begun.elapsed() + lead,
                "{session}: frame {}",
                frame.sequence
            );
            ahead.push(sound.saturating_sub(begun.elapsed()));
        }
        // In the middle of it the lead is used, but for the timer's resolution.
        let middle = ahead[ahead.len() / 2];
        assert!(
            middle + Duration::from_millis(21) >= Duration::from_millis(lead),
            "{middle:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn text_that_comes_late_is_not_made_up_for_by_a_burst() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session_with_lead(&client, "s", "", 200).await.unwrap();
    let mut utterance = Utterance::begin(&client, "s", "u", "Hello.").await;
    // 18 frames, of which 8 wait for the listener.
    for _ in 0..18 {
        utterance.next_frame().await;
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    utterance.send("", "", LONG).await;
    utterance.finish();
    let begun = Instant::now();
    let mut sent = Duration::ZERO;
    while utterance.next().await.unwrap().is_some() {
        sent += Duration::from_millis(20);
        assert!(
            sent <= begun.elapsed() + Duration::from_millis(200 + 20),
            "{sent:?}"
        );
    }
}
