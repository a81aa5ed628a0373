//! What is said arrives whole.

use crate::support::*;
use duologue_rpc::WordMark;

const TEXT: &str = "The quick brown fox, jumps over the lazy dog.";

fn words(frames: &[duologue_rpc::AudioFrame]) -> Vec<WordMark> {
    frames.iter().flat_map(|f| f.words.clone()).collect()
}

fn assert_marks_lie_in_their_frames(frames: &[duologue_rpc::AudioFrame]) {
    for frame in frames {
        let (from, to) = (frame.sequence * 960, (frame.sequence + 1) * 960);
        for word in &frame.words {
            assert!(
                (from..to).contains(&word.start_sample),
                "{word:?} in {from}..{to}"
            );
            assert!(word.end_sample > word.start_sample);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_is_whole_over_tcp_and_over_the_in_memory_connection() {
    let worker = start(config()).await;
    let (tcp, _server) = connect_tcp(&worker).await;
    for client in [connect(&worker), tcp] {
        let opened = open_session(&client, "s", "").await.unwrap();
        assert_eq!(opened.voice, "tone");
        let format = opened.format.unwrap();
        assert_eq!(
            (
                format.sample_rate,
                format.channels,
                format.frame_samples,
                format.encoding.as_str()
            ),
            (48_000, 1, 960, "s16le")
        );
        let frames = say(&client, "s", TEXT).await.unwrap();
        assert_whole(&frames, TEXT);
        assert!(frames.iter().all(|frame| frame.utterance_id == "u"));
        assert_marks_lie_in_their_frames(&frames);
        let marks = words(&frames);
        let said: Vec<_> = marks.iter().map(|mark| mark.word.as_str()).collect();
        assert_eq!(
            said,
            [
                "The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"
            ]
        );
        for mark in &marks {
            assert_eq!(
                TEXT[mark.text_start as usize..mark.text_end as usize],
                mark.word
            );
        }
        end_session(&client, "s").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_numbered_as_they_arrive_empty_ones_too() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session(&client, "s", "").await.unwrap();
    let mut utterance = Utterance::begin(&client, "s", "u", "").await;
    utterance.send("", "", "one two.").await;
    utterance.send("s", "u", "").await;
    utterance.send("", "", "three").await;
    utterance.finish();
    let frames = utterance.rest().await.unwrap();
    assert_marks_lie_in_their_frames(&frames);
    let marks: Vec<_> = words(&frames)
        .into_iter()
        .map(|m| (m.word, m.chunk))
        .collect();
    let expected = [("one", 1), ("two", 1), ("three", 3)];
    assert_eq!(
        marks,
        expected.map(|(word, chunk)| (word.to_owned(), chunk))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_comes_while_more_text_may_follow() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session(&client, "s", "").await.unwrap();
    let mut utterance = Utterance::begin(&client, "s", "u", "one").await;
    let first = utterance.next_frame().await;
    assert_eq!(first.words[0].word, "one");
    utterance.send("", "", "two").await;
    utterance.finish();
    let rest = utterance.rest().await.unwrap();
    assert_eq!(words(&rest)[0].word, "two");
    assert!(rest.last().unwrap().r#final);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_without_a_word_ends_with_a_silent_final_frame() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session(&client, "s", "").await.unwrap();
    for text in ["", "  ", "?!...", "\u{1F600}\u{1F680}"] {
        let frames = say(&client, "s", text).await.unwrap();
        assert!(frames.last().unwrap().r#final, "{text:?}");
        assert!(pcm(&frames).iter().all(|sample| *sample == 0), "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_sessions_at_once_on_one_voice_are_all_whole() {
    let worker = start(config()).await;
    let (client, _server) = connect_tcp(&worker).await;
    let sessions = (0..8).map(|n| {
        let client = client.clone();
        tokio::spawn(async move {
            let id = format!("s{n}");
            open_session(&client, &id, "").await.unwrap();
            let text = format!("Session number {n} says this, and then it ends.");
            let frames = say(&client, &id, &text).await.unwrap();
            assert_whole(&frames, &text);
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        session.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_slower_than_real_time_still_delivers() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session(&client, "s", "slow").await.unwrap();
    let frames = say(&client, "s", "This takes a while.").await.unwrap();
    assert_whole(&frames, "This takes a while.");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_says_one_utterance_after_another() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session(&client, "s", "").await.unwrap();
    for text in ["First.", "Second, a longer one.", "Third."] {
        // The next may begin as soon as the final frame is there, before the stream has ended.
        let mut utterance = Utterance::begin(&client, "s", "u", text).await;
        utterance.finish();
        let mut frames = vec![utterance.next_frame().await];
        while !frames.last().unwrap().r#final {
            frames.push(utterance.next_frame().await);
        }
        assert_whole(&frames, text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_text_from_a_client_that_does_not_wait_is_whole() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session_with_lead(&client, "s", "", 60_000)
        .await
        .unwrap();
    let mut utterance = Utterance::begin(&client, "s", "u", "").await;
    for _ in 0..500 {
        utterance.send("", "", "word and another, ").await;
    }
    utterance.finish();
    let frames = utterance.rest().await.unwrap();
    let marks = words(&frames);
    assert_eq!(marks.len(), 1_500);
    assert_eq!(marks.last().unwrap().chunk, 500);
    assert!(marks.is_sorted_by_key(|mark| mark.start_sample));
    assert!(
        frames
            .iter()
            .enumerate()
            .all(|(n, frame)| frame.sequence == n as u64)
    );
}
