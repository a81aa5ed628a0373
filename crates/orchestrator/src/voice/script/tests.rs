//! Voices that die at any moment, and what their listener hears in the end.
#![allow(clippy::unwrap_used)]

use duologue_rpc::WordMark;
use proptest::prelude::*;

use super::*;

const FRAME: u64 = FRAME_SAMPLES as u64;

/// The words of a text as voices mark them: without the punctuation around them.
fn words(text: &str) -> Vec<Range<usize>> {
    text.split_whitespace()
        .filter_map(|run| {
            let word = run.trim_matches(|c: char| !c.is_alphanumeric());
            let start = word.as_ptr() as usize - text.as_ptr() as usize;
            (!word.is_empty()).then(|| start..start + word.len())
        })
        .collect()
}

/// A worker: it says each word it is given as samples of the word's own value, between gaps of zeros.
struct Voice {
    /// Samples of a character, and of a gap.
    pace: (u64, u64),
    chunks: u32,
    samples: Vec<u32>,
    marks: Vec<WordMark>,
    sent: u64,
    ended: bool,
    over: bool,
}

impl Voice {
    fn new(pace: (u64, u64)) -> Self {
        Self {
            pace,
            chunks: 0,
            samples: Vec::new(),
            marks: Vec::new(),
            sent: 0,
            ended: false,
            over: false,
        }
    }

    fn take(&mut self, text: &str) {
        for word in words(text) {
            self.samples
                .extend(std::iter::repeat_n(0, self.pace.1 as usize));
            let start = self.samples.len() as u64;
            let value: u32 = text[word.clone()].parse().unwrap();
            let length = (self.pace.0 as usize) * word.len();
            self.samples.extend(std::iter::repeat_n(value, length));
            self.marks.push(WordMark {
                word: text[word.clone()].into(),
                start_sample: start,
                end_sample: self.samples.len() as u64,
                chunk: self.chunks,
                text_start: word.start as u32,
                text_end: word.end as u32,
            });
        }
        self.chunks += 1;
        // The last frame before a pause in the text is filled up with silence.
        let whole = self.samples.len().next_multiple_of(FRAME as usize);
        self.samples.resize(whole, 0);
    }

    /// The next frame and its sound.
    fn frame(&mut self) -> Option<(AudioFrame, Vec<u32>)> {
        let from = self.sent * FRAME;
        let have = self.samples.len() as u64;
        if self.over || (from >= have && !self.ended) {
            return None;
        }
        let last = self.ended && from + FRAME >= have;
        self.samples.resize(have.max(from + FRAME) as usize, 0);
        let span = from..from + FRAME;
        let frame = AudioFrame {
            sequence: self.sent,
            r#final: last,
            words: self
                .marks
                .iter()
                .filter(|mark| span.contains(&mark.start_sample))
                .cloned()
                .collect(),
            ..AudioFrame::default()
        };
        self.sent += 1;
        self.over = last;
        let sound = self.samples[from as usize..(from + FRAME) as usize].to_vec();
        Some((frame, sound))
    }
}

/// What a listener has of an utterance.
#[derive(Default)]
struct Heard {
    sound: Vec<u32>,
    marks: Vec<WordMark>,
    left: u64,
}

impl Heard {
    fn cut(&mut self, at: u64) {
        assert!(at >= self.left, "what has left was taken back");
        assert!(at <= self.sound.len() as u64);
        self.sound.truncate(at as usize);
        self.marks.retain(|mark| mark.end_sample <= at);
    }

    /// Words in the order in which any of their sound is heard.
    fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = self.sound.clone();
        order.dedup();
        order.retain(|word| *word != 0);
        order
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// More text is written.
    Text,
    /// The worker takes a piece.
    Hand,
    /// The worker brings this many frames.
    Frames(u8),
    /// The listener hears up to this share of what is there, in percent.
    Listen(u8),
    /// The worker dies.
    Die,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Text),
        4 => Just(Step::Hand),
        6 => (1_u8..40).prop_map(Step::Frames),
        4 => (0_u8..=100).prop_map(Step::Listen),
        2 => Just(Step::Die),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Chunks of numbered words with all sorts of punctuation.
fn texts() -> impl Strategy<Value = Vec<String>> {
    let around = prop_oneof![
        Just(("", "")),
        Just(("", ",")),
        Just(("\"", "\"")),
        Just(("(", ").")),
        Just(("— ", "")),
        Just(("", " …")),
    ];
    proptest::collection::vec(proptest::collection::vec(around, 0..6), 1..6).prop_map(|chunks| {
        let mut number = 0;
        let chunk = |words: Vec<(&str, &str)>| {
            let said: Vec<String> = words
                .iter()
                .map(|(before, after)| {
                    number += 1;
                    format!("{before}{number}{after}")
                })
                .collect();
            format!("{}. ", said.join(" "))
        };
        chunks.into_iter().map(chunk).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whoever_dies_whenever_no_word_is_lost_and_at_most_the_broken_one_is_heard_again(
        texts in texts(),
        steps in steps(),
        paces in proptest::collection::vec((50_u64..900, 0_u64..1_500), 1..8),
    ) {
        let mut script = Script::default();
        let mut unwritten: Vec<String> = texts.iter().rev().cloned().collect();
        let mut paces = paces.iter().cycle();
        let mut voice = Voice::new(*paces.next().unwrap());
        let mut heard = Heard::default();
        let mut moved = 0;
        // After the random steps, nobody dies any more and all is said.
        let rest = [Step::Text, Step::Hand, Step::Frames(40), Step::Listen(100)];
        let calm = std::iter::repeat_n(rest, 400).flatten();
        for step in steps.into_iter().chain(calm) {
            match step {
                Step::Text => match unwritten.pop() {
                    Some(text) => script.say(text),
                    None => script.end(),
                },
                Step::Hand => {
                    if let Some(text) = script.next_text() {
                        voice.take(text);
                        script.hand();
                    }
                    voice.ended |= script.all_handed();
                }
                Step::Frames(count) => {
                    for _ in 0..count {
                        let Some((mut frame, sound)) = voice.frame() else { break };
                        prop_assert!(script.is_owed() || !frame.words.is_empty() || sound.iter().all(|s| *s == 0));
                        script.place(&mut frame).unwrap();
                        prop_assert_eq!(frame.sequence, script.received / FRAME - 1);
                        heard.sound.extend(sound);
                        heard.marks.extend(frame.words);
                    }
                }
                Step::Listen(share) => {
                    let all = heard.sound.len() as u64;
                    heard.left = heard.left.max(all * u64::from(share) / 100);
                }
                Step::Die if script.is_said() => {}
                Step::Die => {
                    let before = heard.sound.len() as u64;
                    let cut = script.hand_over(heard.left);
                    prop_assert!(cut.at <= before);
                    heard.cut(cut.at);
                    let silence = cut.pause as u64 * FRAME;
                    heard.sound.extend(std::iter::repeat_n(0, silence as usize));
                    prop_assert_eq!(script.received, heard.sound.len() as u64);
                    voice = Voice::new(*paces.next().unwrap());
                    moved += 1;
                }
            }
        }
        prop_assert!(script.is_said(), "it came to no end");
        let all: Vec<u32> = (1..=texts.iter().map(|text| words(text).len() as u32).sum()).collect();
        let order = heard.order();
        let mut once = order.clone();
        once.dedup();
        prop_assert_eq!(&once, &all, "words are lost, or said in another order");
        prop_assert!(order.len() - all.len() <= moved);
        // Each word's last mark lies where all of it is heard, and no mark lies before the one of an earlier word.
        let mut end = 0;
        for number in &all {
            let name = number.to_string();
            let mark = heard.marks.iter().rev().find(|mark| mark.word == name).unwrap();
            let span = mark.start_sample as usize..mark.end_sample as usize;
            prop_assert!(heard.sound[span].iter().all(|sample| sample == number));
            prop_assert!(mark.start_sample >= end);
            end = mark.end_sample;
            let text = &texts[mark.chunk as usize];
            prop_assert_eq!(&text[mark.text_start as usize..mark.text_end as usize], &name);
        }
    }
}

/// A script of these chunks that was handed all of them, and the frames of a worker that says them.
fn said(chunks: &[&str]) -> (Script, Voice) {
    let mut script = Script::default();
    let mut voice = Voice::new((960, 960));
    for chunk in chunks {
        script.say((*chunk).to_owned());
        voice.take(chunk);
        script.hand();
    }
    script.end();
    voice.ended = true;
    (script, voice)
}

#[test]
fn a_broken_word_that_was_not_played_is_dropped_and_said_once() {
    let (mut script, mut voice) = said(&["10 20, 30."]);
    // Gap, "10", gap, half of "20".
    for _ in 0..5 {
        let (mut frame, _) = voice.frame().unwrap();
        script.place(&mut frame).unwrap();
    }
    let at = 4 * FRAME;
    assert_eq!(script.hand_over(2 * FRAME), Cut { at, pause: 0 });
    assert_eq!(script.next_text(), Some("20, 30."));
}

#[test]
fn a_broken_word_that_was_played_in_part_goes_on_from_there_and_is_said_again() {
    let (mut script, mut voice) = said(&["10 2000, 30."]);
    for _ in 0..7 {
        let (mut frame, _) = voice.frame().unwrap();
        script.place(&mut frame).unwrap();
    }
    let at = 5 * FRAME;
    assert_eq!(script.hand_over(5 * FRAME), Cut { at, pause: 3 });
    assert_eq!(script.next_text(), Some("2000, 30."));
}

#[test]
fn after_a_whole_word_the_text_goes_on_behind_its_punctuation() {
    let (mut script, mut voice) = said(&["10, 20.", " 30 …"]);
    for _ in 0..3 {
        let (mut frame, _) = voice.frame().unwrap();
        script.place(&mut frame).unwrap();
    }
    // The word ended with the frame.
    let at = 3 * FRAME;
    assert_eq!(script.hand_over(0), Cut { at, pause: 3 });
    assert_eq!(script.next_text(), Some("20."));
    script.hand();
    assert_eq!(script.next_text(), Some(" 30 …"));
}

#[test]
fn a_worker_that_dies_after_the_last_word_is_not_missed() {
    let (mut script, mut voice) = said(&["10."]);
    for _ in 0..3 {
        let (mut frame, _) = voice.frame().unwrap();
        frame.r#final = false;
        script.place(&mut frame).unwrap();
    }
    assert!(script.is_said());
    assert!(!script.is_finished());
}

#[test]
fn frames_out_of_order_and_marks_of_no_text_are_refused() {
    let (mut script, mut voice) = said(&["10 20"]);
    let (mut frame, _) = voice.frame().unwrap();
    frame.sequence = 3;
    assert_eq!(
        script.place(&mut frame),
        Err(Misplaced::Sequence {
            expected: 0,
            found: 3
        })
    );
    let (mut frame, _) = voice.frame().unwrap();
    frame.sequence = 0;
    frame.words[0].chunk = 1;
    assert!(matches!(
        script.place(&mut frame),
        Err(Misplaced::Mark { chunk: 1, .. })
    ));
}
