//! What every voice must do, as checks that a voice's tests call.
//!
//! [`conformance_tests!`](crate::conformance_tests) makes a test of each check. None asserts how fast something
//! is; what must happen "soon" is checked by the order of events.

use std::ops::Range;
use std::sync::Arc;

use crate::{FrameStream, Settings, Sound, SpokenFrame, StopFlag, Synthesizer, TtsError, WordMark};

type Voice = Arc<dyn Synthesizer>;

const FRAME: u64 = duologue_audio::FRAME_SAMPLES as u64;
const SHORT: &str = "Hello there, how are you today?";
const LONG: &str = "It was a bright cold day in April, and the clocks were striking thirteen. \
                    She walked slowly down the hill, past the old mill and over the bridge.";

/// Makes a test of each check for the voice that an expression gives: `&Arc<dyn Synthesizer>`, evaluated once a
/// test.
#[macro_export]
macro_rules! conformance_tests {
    ($voice:expr) => {
        $crate::conformance_tests! { @each $voice;
            frames_are_of_one_utterance_and_the_last_is_flagged
            words_are_marked_in_order_within_the_sound
            marks_lie_where_the_sound_is
            a_word_however_it_is_spoken_is_marked_once
            text_without_words_is_silent
            text_of_any_script_does_no_harm
            text_added_after_a_pause_goes_on
            a_text_too_long_is_refused_and_harms_nothing
            the_longest_text_is_spoken
            the_same_text_sounds_the_same
            sessions_at_once_sound_as_alone
            a_pause_between_pulls_changes_nothing
            a_stop_ends_the_utterance_and_no_other
            dropped_utterances_leave_the_voice_as_it_was
            settings_out_of_range_are_refused
            speed_changes_the_length
            sound_is_within_range_and_does_not_click
        }
    };
    (@each $voice:expr; $($check:ident)*) => {
        $(#[test] fn $check() { $crate::conformance::$check($voice); })*
    };
}

/// An utterance from beginning to end.
struct Heard {
    frames: Vec<SpokenFrame>,
}

impl Heard {
    fn samples(&self) -> Vec<i16> {
        self.frames.iter().flat_map(|f| f.frame.0).collect()
    }

    fn words(&self) -> Vec<WordMark> {
        self.frames.iter().flat_map(|f| f.words.clone()).collect()
    }

    fn seconds(&self) -> f64 {
        self.frames.len() as f64 * 0.02
    }
}

fn begin(voice: &Voice) -> FrameStream {
    begin_with(voice, &Settings::default())
}

fn begin_with(voice: &Voice, settings: &Settings) -> FrameStream {
    let speech = voice.begin(settings).expect("the voice opens an utterance");
    FrameStream::new(speech, voice.voice().sample_rate).expect("the voice's rate can be resampled")
}

fn drain(stream: &mut FrameStream) -> Vec<SpokenFrame> {
    let stop = StopFlag::default();
    std::iter::from_fn(|| stream.next(&stop).expect("the voice speaks")).collect()
}

fn hear(voice: &Voice, text: &str) -> Heard {
    let mut stream = begin(voice);
    stream.say(text).expect("the text is taken");
    stream.finish();
    Heard {
        frames: drain(&mut stream),
    }
}

/// The pieces of an utterance as the voice gives them.
fn pieces(voice: &Voice, text: &str) -> Vec<Sound> {
    let mut speech = voice
        .begin(&Settings::default())
        .expect("the voice opens an utterance");
    speech.say(text).expect("the text is taken");
    let stop = StopFlag::default();
    std::iter::from_fn(|| speech.next(&stop).expect("the voice speaks")).collect()
}

/// Level of samples, as a root mean square.
fn level(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
    (energy / samples.len().max(1) as f64).sqrt()
}

/// The last frame and only it says so, also of an utterance without text.
pub fn frames_are_of_one_utterance_and_the_last_is_flagged(voice: &Voice) {
    for text in ["", SHORT] {
        let heard = hear(voice, text);
        let (last, others) = heard.frames.split_last().expect("an utterance has a frame");
        assert!(last.last, "{text:?}: the last frame is not flagged");
        assert!(
            others.iter().all(|f| !f.last),
            "{text:?}: a frame before the last is flagged"
        );
    }
    assert!(hear(voice, SHORT).seconds() > 0.5);
}

/// Each word once, in order, with its place in the text, its sound within the utterance's, in the frame that it
/// starts in.
pub fn words_are_marked_in_order_within_the_sound(voice: &Voice) {
    let mut stream = begin(voice);
    for text in [SHORT, LONG] {
        stream.say(text).expect("the text is taken");
    }
    stream.finish();
    let heard = Heard {
        frames: drain(&mut stream),
    };
    let expected: Vec<String> = [SHORT, LONG].iter().flat_map(|t| words_of(t)).collect();
    let marks = heard.words();
    assert_eq!(
        marks.iter().map(|w| w.word.clone()).collect::<Vec<_>>(),
        expected
    );
    check_marks(&marks, &[SHORT, LONG], heard.frames.len() as u64 * FRAME);
    for (n, frame) in heard.frames.iter().enumerate() {
        let here = n as u64 * FRAME..(n as u64 + 1) * FRAME;
        let inside = |w: &WordMark| here.contains(&w.start);
        assert!(
            frame.words.iter().all(inside),
            "frame {n} brings words of others: {:?}",
            frame.words
        );
    }
}

/// What is marked is louder than the whole, and what lies between the marks is quiet.
pub fn marks_lie_where_the_sound_is(voice: &Voice) {
    let heard = hear(voice, LONG);
    let samples = heard.samples();
    let marked: Vec<i16> = heard
        .words()
        .iter()
        .flat_map(|w| samples[w.start as usize..w.end as usize].to_vec())
        .collect();
    let marks = heard.words();
    let gaps = marks
        .windows(2)
        .map(|w| w[0].end as usize..w[1].start as usize);
    let gaps: Vec<i16> = gaps
        .flat_map(|g: Range<usize>| samples[g].to_vec())
        .collect();
    let (inside, whole) = (level(&marked), level(&samples));
    assert!(
        inside >= whole,
        "words are at {inside}, the whole at {whole}"
    );
    if gaps.len() > 2_400 {
        assert!(
            level(&gaps) < inside / 2.0,
            "gaps are at {}, words at {inside}",
            level(&gaps)
        );
    }
}

/// Numbers, abbreviations, signs and odd punctuation: every word that has a sound has one mark.
pub fn a_word_however_it_is_spoken_is_marked_once(voice: &Voice) {
    for text in [
        "Dr. Smith paid $3.50 for 1,234 apples on Jan. 5th, 2023 at 10:30 p.m.",
        "It's 42% of the U.S. total, i.e. half; out of the blue: a NASA CD-ROM (in the box).",
        "He said: \"Well—no... not now!\" And so on, and so forth; as well as that.",
        "one  two\tthree\nfour\u{a0}five",
    ] {
        let heard = hear(voice, text);
        let marks = heard.words();
        let marked: Vec<String> = marks.iter().map(|w| w.word.clone()).collect();
        assert_eq!(marked, words_of(text), "{text:?}");
        check_marks(&marks, &[text], heard.frames.len() as u64 * FRAME);
    }
}

/// Nothing to say is no error, and takes hardly any time to listen to.
pub fn text_without_words_is_silent(voice: &Voice) {
    for text in [
        "",
        " ",
        "\n\n\t",
        ".",
        "...",
        "?!",
        "—",
        "\"\"",
        ", , ,",
        "()",
        "[[]]",
        "🙂",
        "🎉 🎉",
    ] {
        let heard = hear(voice, text);
        assert!(heard.words().is_empty(), "{text:?}: {:?}", heard.words());
        assert!(heard.seconds() < 0.5, "{text:?}: {} s", heard.seconds());
        assert!(level(&heard.samples()) < 1.0, "{text:?} is audible");
    }
}

/// Other alphabets, control characters, markup, combining marks: no error, and marks that keep to the rules.
pub fn text_of_any_script_does_no_harm(voice: &Voice) {
    for text in [
        "Hello 🙂 there 👩‍👩‍👧 friend",
        "Привет, мир. Hello again.",
        "你好世界 and こんにちは",
        "مرحبا بالعالم and שלום",
        "Zoë's naïve café: Ünïcödé e\u{301}\u{301}\u{301}",
        "a\0b\u{1}5p c\u{7f}d \u{1b}[31mred\u{1b}[0m",
        "<speak>hello <break time=\"10h\"/> there</speak> &amp; [[h@l'oU]] {x} \\n",
        "x\u{200b}y \u{202e}right to left\u{202c} \u{feff}mark",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!!!!!!!!!!!!!!!!!!!!!!!",
        "99999999999999999999999999999999 0.000000001 1e999 -0",
        "https://example.org/a/b?c=d&e=f#g user@example.org #tag @name C++ C# /etc/passwd",
    ] {
        let heard = hear(voice, text);
        check_marks(&heard.words(), &[text], heard.frames.len() as u64 * FRAME);
        assert!(heard.seconds() < 120.0, "{text:?}: {} s", heard.seconds());
    }
}

/// A listener who had all there was gets what is added, on frames of its own, with marks that go on counting.
pub fn text_added_after_a_pause_goes_on(voice: &Voice) {
    let mut stream = begin(voice);
    stream.say(SHORT).expect("the text is taken");
    let first = drain(&mut stream);
    stream.say(SHORT).expect("the text is taken");
    let second = drain(&mut stream);
    stream.finish();
    let end = drain(&mut stream);
    assert!(end.last().is_some_and(|f| f.last));
    let marks = |frames: &[SpokenFrame]| {
        frames
            .iter()
            .flat_map(|f| f.words.clone())
            .collect::<Vec<_>>()
    };
    let (before, after) = (marks(&first), marks(&second));
    assert_eq!(before.len(), after.len());
    assert!(before.iter().all(|w| w.chunk == 0) && after.iter().all(|w| w.chunk == 1));
    assert!(after[0].start >= first.len() as u64 * FRAME);
    let all = [before, after].concat();
    check_marks(
        &all,
        &[SHORT, SHORT],
        (first.len() + second.len()) as u64 * FRAME,
    );
}

/// One character more than the limit.
pub fn a_text_too_long_is_refused_and_harms_nothing(voice: &Voice) {
    let limit = voice.voice().max_chars;
    let mut stream = begin(voice);
    stream.say(SHORT).expect("the text is taken");
    // Characters, not bytes.
    let refused = stream.say(&"é".repeat(limit + 1));
    match refused {
        Err(TtsError::TextTooLong { chars, limit: told }) => {
            assert_eq!((chars, told), (limit + 1, limit))
        }
        other => panic!("{other:?}"),
    }
    stream.say(SHORT).expect("the text is taken");
    stream.finish();
    let heard = Heard {
        frames: drain(&mut stream),
    };
    let chunks: Vec<u32> = heard.words().iter().map(|w| w.chunk).collect();
    let words = words_of(SHORT).len();
    assert_eq!(
        chunks,
        [vec![0; words], vec![1; words]].concat(),
        "the refused text counts as no chunk"
    );
}

/// Texts of just the limit, one without a full stop and one without a space, begin to sound.
pub fn the_longest_text_is_spoken(voice: &Voice) {
    let limit = voice.voice().max_chars;
    for text in ["word ".repeat(limit), "bamboo".repeat(limit)] {
        let text: String = text.chars().take(limit).collect();
        let mut stream = begin(voice);
        stream.say(&text).expect("the text is taken");
        stream.finish();
        let stop = StopFlag::default();
        let frames: Vec<_> = (0..100)
            .map_while(|_| stream.next(&stop).expect("the voice speaks"))
            .collect();
        assert_eq!(frames.len(), 100);
        let heard = Heard { frames };
        assert!(!heard.words().is_empty());
        assert!(level(&heard.samples()) > 100.0);
    }
}

/// Twice the same.
pub fn the_same_text_sounds_the_same(voice: &Voice) {
    assert!(hear(voice, LONG).frames == hear(voice, LONG).frames);
}

/// Four sessions in four threads.
pub fn sessions_at_once_sound_as_alone(voice: &Voice) {
    let texts = [
        SHORT,
        LONG,
        "One two three four five.",
        "Something else is said here.",
    ];
    let alone: Vec<_> = texts.iter().map(|t| hear(voice, t).frames).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let sessions = texts.map(|text| scope.spawn(move || hear(voice, text).frames));
        sessions
            .into_iter()
            .map(|s| s.join().expect("the session ends"))
            .collect()
    });
    assert!(alone == together);
}

/// Frames pulled in turns with those of another utterance are the same as without.
pub fn a_pause_between_pulls_changes_nothing(voice: &Voice) {
    let alone = hear(voice, SHORT).frames;
    let (mut one, mut other) = (begin(voice), begin(voice));
    for (stream, text) in [(&mut one, SHORT), (&mut other, LONG)] {
        stream.say(text).expect("the text is taken");
        stream.finish();
    }
    let stop = StopFlag::default();
    let mut frames = Vec::new();
    while let Some(frame) = one.next(&stop).expect("the voice speaks") {
        frames.push(frame);
        other.next(&stop).expect("the voice speaks");
    }
    assert!(frames == alone);
}

/// A stop asked for while the voice computes comes before the text's end; others speak on.
pub fn a_stop_ends_the_utterance_and_no_other(voice: &Voice) {
    let stop = StopFlag::default();
    let mut speech = voice
        .begin(&Settings::default())
        .expect("the voice opens an utterance");
    for _ in 0..20 {
        speech.say(LONG).expect("the text is taken");
    }
    let (begun, first) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let flag = stop.clone();
        let stopper = scope.spawn(move || {
            // The first piece is out and the voice is at the next.
            first.recv().expect("the first piece comes");
            flag.stop();
        });
        let mut told = false;
        let end = loop {
            match speech.next(&stop) {
                Ok(Some(_)) if !told => {
                    begun.send(()).expect("the other thread waits");
                    told = true;
                }
                Ok(Some(_)) => {}
                Ok(None) => panic!("all was said before the stop"),
                Err(e) => break e,
            }
        };
        assert!(matches!(end, TtsError::Stopped), "{end}");
        stopper.join().expect("the thread ends");
    });
    assert!(
        matches!(speech.next(&stop), Err(TtsError::Stopped)),
        "a stopped utterance stays stopped"
    );
    assert!(hear(voice, SHORT).seconds() > 0.5);
}

/// Begun, not begun, half said, and dropped.
pub fn dropped_utterances_leave_the_voice_as_it_was(voice: &Voice) {
    let before = hear(voice, SHORT).frames;
    let stop = StopFlag::default();
    for pulls in [0, 1, 3, 10] {
        let mut stream = begin(voice);
        stream.say(LONG).expect("the text is taken");
        for _ in 0..pulls {
            stream.next(&stop).expect("the voice speaks");
        }
    }
    assert!(hear(voice, SHORT).frames == before);
}

/// Speeds, speakers and languages that there are not.
pub fn settings_out_of_range_are_refused(voice: &Voice) {
    let speed = |s| Settings {
        speed: Some(s),
        ..Settings::default()
    };
    for bad in [0.0, 0.49, 2.01, -1.0, f32::NAN, f32::INFINITY] {
        let refused = voice.begin(&speed(bad)).err();
        assert!(
            matches!(refused, Some(TtsError::BadSetting(_))),
            "speed {bad}: {refused:?}"
        );
    }
    let speaker = |s: &str| Settings {
        speaker: Some(s.to_owned()),
        ..Settings::default()
    };
    for bad in ["nobody of this name", "-1", "1000000"] {
        let refused = voice.begin(&speaker(bad)).err();
        assert!(
            matches!(refused, Some(TtsError::UnknownSpeaker { .. })),
            "speaker {bad}: {refused:?}"
        );
    }
    assert!(voice.begin(&speaker("0")).is_ok() && voice.begin(&speaker("")).is_ok());
    let language = |l: &str| Settings {
        language: Some(l.to_owned()),
        ..Settings::default()
    };
    for known in &voice.voice().languages {
        assert!(voice.begin(&language(known)).is_ok(), "{known}");
    }
    if !voice.voice().languages.is_empty() {
        let refused = voice.begin(&language("tlh")).err();
        assert!(
            matches!(refused, Some(TtsError::BadSetting(_))),
            "{refused:?}"
        );
    }
}

/// Half and double speed, roughly.
pub fn speed_changes_the_length(voice: &Voice) {
    let seconds = |speed| {
        let mut stream = begin_with(
            voice,
            &Settings {
                speed: Some(speed),
                ..Settings::default()
            },
        );
        stream.say(LONG).expect("the text is taken");
        stream.finish();
        let heard = Heard {
            frames: drain(&mut stream),
        };
        assert_eq!(heard.words().len(), words_of(LONG).len());
        heard.seconds()
    };
    let (slow, normal, fast) = (seconds(0.5), seconds(1.0), seconds(2.0));
    assert!(
        (1.5..2.5).contains(&(slow / normal)),
        "{slow} s at half speed, {normal} s at full"
    );
    assert!(
        (1.5..2.8).contains(&(normal / fast)),
        "{normal} s at full speed, {fast} s at double"
    );
}

/// Samples from -1 to 1, and where two pieces meet no jump greater than within them.
pub fn sound_is_within_range_and_does_not_click(voice: &Voice) {
    let pieces = pieces(voice, LONG);
    assert!(pieces.len() > 1, "the whole text came in one piece");
    let all = pieces.iter().flat_map(|p| &p.samples);
    assert!(
        all.clone()
            .all(|s| s.is_finite() && (-1.0..=1.0).contains(s))
    );
    let inside = |p: &Sound| {
        p.samples
            .windows(2)
            .map(|w| (w[1] - w[0]).abs())
            .fold(0.0, f32::max)
    };
    let greatest = pieces.iter().map(inside).fold(0.0, f32::max);
    for (n, pair) in pieces.windows(2).enumerate() {
        if let (Some(before), Some(after)) = (pair[0].samples.last(), pair[1].samples.first()) {
            let jump = (after - before).abs();
            assert!(
                jump <= greatest,
                "a jump of {jump} after piece {n}, of at most {greatest} within pieces"
            );
        }
    }
}

fn words_of(text: &str) -> Vec<String> {
    crate::words::runs(text)
        .map(|w| w.word.to_owned())
        .collect()
}

fn check_marks(marks: &[WordMark], texts: &[&str], end: u64) {
    for mark in marks {
        let text = texts[mark.chunk as usize];
        assert_eq!(
            text.get(mark.text.clone()),
            Some(mark.word.as_str()),
            "{mark:?}"
        );
        assert!(
            mark.start < mark.end && mark.end <= end,
            "{mark:?} of {end}"
        );
    }
    for pair in marks.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:?} overlap");
        let place = |w: &WordMark| (w.chunk, w.text.start);
        assert!(
            place(&pair[0]) < place(&pair[1]),
            "{pair:?} are out of order"
        );
    }
}
