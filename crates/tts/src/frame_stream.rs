//! Puts an utterance into 48 kHz frames.
//!
//! A voice gives pieces of any length at its own rate; a listener is sent 20 ms frames. The last frame before
//! a pause in the text is filled up with silence, so that no sound waits for text that has yet to be written,
//! and the text that follows starts on a frame of its own. Word marks move with the samples they stand on.

use std::collections::VecDeque;

use duologue_audio::{FRAME_SAMPLES, Frame, Framer, Resampler, SAMPLE_RATE};

use crate::{Sound, Speech, StopFlag, TtsError, WordMark};

/// Drives a [`Speech`] and cuts its sound into [`SpokenFrame`]s.
///
/// Nothing is computed but in [`FrameStream::next`], which blocks while the voice works: call it off the
/// reactor. Dropping the stream ends the utterance and frees all it held.
pub struct FrameStream {
    speech: Box<dyn Speech>,
    resampler: Resampler,
    /// 48 kHz samples not yet sent; the first is number `sent`.
    framer: Framer,
    words: VecDeque<WordMark>,
    sent: u64,
    /// Samples taken from the voice, at its rate.
    taken: u64,
    /// Where the text since the last pause starts: in the voice's samples and in 48 kHz samples.
    origin: (u64, u64),
    /// The voice has said all it was given.
    drained: bool,
    finished: bool,
    ended: bool,
}

/// A frame of an utterance and the words that start in it.
#[derive(Clone, Debug, PartialEq)]
pub struct SpokenFrame {
    /// 20 ms of sound.
    pub frame: Frame,
    /// Words that start in it, in order; their samples are 48 kHz samples from the utterance's start, of
    /// which each frame so far held 960.
    pub words: Vec<WordMark>,
    /// The utterance ends here. Only after [`FrameStream::finish`].
    pub last: bool,
}

impl FrameStream {
    /// Frames of `speech`, whose samples come at `rate` Hz ([`Voice::sample_rate`](crate::Voice::sample_rate)).
    ///
    /// # Errors
    /// [`TtsError::BadSetting`] for a rate that cannot be brought to 48 kHz; a loaded voice has none such.
    pub fn new(speech: Box<dyn Speech>, rate: u32) -> Result<Self, TtsError> {
        let resampler =
            Resampler::new(rate, SAMPLE_RATE).map_err(|e| TtsError::BadSetting(e.to_string()))?;
        Ok(FrameStream {
            speech,
            resampler,
            framer: Framer::new(),
            words: VecDeque::new(),
            sent: 0,
            taken: 0,
            origin: (0, 0),
            drained: true,
            finished: false,
            ended: false,
        })
    }

    /// Adds a piece of text.
    ///
    /// # Errors
    /// As [`Speech::say`]; [`TtsError::BadSetting`] after [`FrameStream::finish`].
    pub fn say(&mut self, text: &str) -> Result<(), TtsError> {
        if self.finished {
            return Err(TtsError::BadSetting(
                "text was added to an utterance after its end".to_owned(),
            ));
        }
        self.speech.say(text)?;
        self.drained = false;
        Ok(())
    }

    /// Tells that no more text will come: a frame flagged [`SpokenFrame::last`] ends the stream.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next frame; blocks while the voice computes it. `None` when all text so far has been spoken (say
    /// more, or [`FrameStream::finish`]), and ever after the last frame.
    ///
    /// # Errors
    /// As [`Speech::next`]. After an error the utterance cannot go on: drop the stream.
    pub fn next(&mut self, stop: &StopFlag) -> Result<Option<SpokenFrame>, TtsError> {
        loop {
            stop.check()?;
            // Of a finished utterance the last frame is sent only once it is known to be the last.
            let enough = FRAME_SAMPLES + usize::from(self.finished && !self.drained);
            if self.framer.pending() >= enough {
                return Ok(self.frame());
            }
            if self.drained {
                if !self.finished || self.ended {
                    return Ok(None);
                }
                self.framer.push(&Frame::SILENCE.0);
                continue;
            }
            match self.speech.next(stop)? {
                Some(sound) => self.take(sound),
                None => self.pad(),
            }
        }
    }

    fn take(&mut self, sound: Sound) {
        self.taken += sound.samples.len() as u64;
        self.framer
            .push_f32(&self.resampler.process(&sound.samples));
        for word in sound.words {
            let (start, end) = (self.at_48k(word.start), self.at_48k(word.end));
            self.words.push_back(WordMark { start, end, ..word });
        }
    }

    /// A sample of the voice as a 48 kHz sample of the stream.
    fn at_48k(&self, sample: u64) -> u64 {
        let since = sample.saturating_sub(self.origin.0);
        let rate = u64::from(self.resampler.from_rate());
        self.origin.1 + (since * u64::from(SAMPLE_RATE) + rate / 2) / rate
    }

    /// Sends on what is left, filled up with silence.
    fn pad(&mut self) {
        self.framer.push_f32(&self.resampler.flush());
        let silence = self.framer.pending().next_multiple_of(FRAME_SAMPLES) - self.framer.pending();
        self.framer.push(&Frame::SILENCE.0[..silence]);
        self.origin = (self.taken, self.sent + self.framer.pending() as u64);
        self.drained = true;
    }

    fn frame(&mut self) -> Option<SpokenFrame> {
        let frame = self.framer.next_frame()?;
        self.sent += FRAME_SAMPLES as u64;
        let end_of_sound = self.drained && self.framer.pending() == 0;
        self.ended = self.finished && end_of_sound;
        // A mark at the very end of the sound has no later frame to go with.
        let here = self
            .words
            .iter()
            .take_while(|w| end_of_sound || w.start < self.sent)
            .count();
        Some(SpokenFrame {
            frame,
            words: self.words.drain(..here).collect(),
            last: self.ended,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Says `n` samples of silence with a click at the start, in pieces of `piece`, for the text "n".
    struct Clicks {
        piece: usize,
        waiting: VecDeque<usize>,
        left: usize,
        spoken: u64,
        chunks: u32,
    }

    impl Clicks {
        fn stream(rate: u32, piece: usize) -> FrameStream {
            let waiting = VecDeque::new();
            let clicks = Clicks {
                piece,
                waiting,
                left: 0,
                spoken: 0,
                chunks: 0,
            };
            FrameStream::new(Box::new(clicks), rate).unwrap()
        }
    }

    impl Speech for Clicks {
        fn say(&mut self, text: &str) -> Result<(), TtsError> {
            self.waiting.push_back(text.parse().unwrap());
            Ok(())
        }

        fn next(&mut self, _: &StopFlag) -> Result<Option<Sound>, TtsError> {
            let mut words = Vec::new();
            let mut click = 0.0;
            if self.left == 0 {
                let Some(length) = self.waiting.pop_front() else {
                    return Ok(None);
                };
                self.left = length;
                click = 0.5;
                words.push(WordMark {
                    word: "click".to_owned(),
                    start: self.spoken,
                    end: self.spoken + length as u64,
                    chunk: self.chunks,
                    text: 0..5,
                });
                self.chunks += 1;
            }
            let mut samples = vec![0.0; self.left.min(self.piece)];
            if let Some(first) = samples.first_mut() {
                *first = click;
            }
            self.left -= samples.len();
            self.spoken += samples.len() as u64;
            Ok(Some(Sound { samples, words }))
        }
    }

    fn drain(stream: &mut FrameStream) -> Vec<SpokenFrame> {
        let stop = StopFlag::default();
        std::iter::from_fn(|| stream.next(&stop).unwrap()).collect()
    }

    fn samples(frames: &[SpokenFrame]) -> Vec<i16> {
        frames.iter().flat_map(|f| f.frame.0).collect()
    }

    #[test]
    fn marks_stay_on_their_samples_through_resampling_and_padding() {
        for (rate, piece) in [
            (22_050, 1),
            (22_050, 777),
            (24_000, 5_000),
            (44_100, 100),
            (48_000, 960),
        ] {
            let mut stream = Clicks::stream(rate, piece);
            let mut frames = Vec::new();
            for length in ["1234", "50", "9999", "300"] {
                stream.say(length).unwrap();
                stream.say("4321").unwrap();
                frames.extend(drain(&mut stream));
            }
            let pcm = samples(&frames);
            let marks: Vec<_> = frames.iter().flat_map(|f| f.words.clone()).collect();
            assert_eq!(marks.len(), 8);
            for mark in &marks {
                let near =
                    mark.start.saturating_sub(3) as usize..pcm.len().min(mark.start as usize + 4);
                let loudest = near.max_by_key(|n| pcm[*n].unsigned_abs()).unwrap();
                assert!(
                    pcm[loudest] > 10_000,
                    "rate {rate}: no click near {}",
                    mark.start
                );
                assert!(
                    (loudest as i64 - mark.start as i64).abs() <= 1,
                    "rate {rate}: {loudest} {}",
                    mark.start
                );
                assert!(mark.end > mark.start);
            }
            assert!(
                marks.windows(2).all(|w| w[0].end <= w[1].start),
                "rate {rate}"
            );
        }
    }

    #[test]
    fn a_mark_comes_with_the_frame_that_its_word_starts_in() {
        let mut stream = Clicks::stream(24_000, 1_000);
        for length in ["700", "480", "1", "479", "5000"] {
            stream.say(length).unwrap();
        }
        stream.finish();
        for (n, frame) in drain(&mut stream).iter().enumerate() {
            let here = n as u64 * 960..(n as u64 + 1) * 960;
            assert!(
                frame.words.iter().all(|w| here.contains(&w.start)),
                "frame {n}: {:?}",
                frame.words
            );
        }
    }

    #[test]
    fn no_sound_waits_for_the_text_that_follows() {
        let mut stream = Clicks::stream(24_000, 100);
        stream.say("490").unwrap();
        let frames = drain(&mut stream);
        assert_eq!(frames.len(), 2, "980 samples are a frame and a padded one");
        assert!(frames.iter().all(|f| !f.last));
        stream.say("480").unwrap();
        stream.finish();
        let frames = drain(&mut stream);
        assert_eq!(frames.len(), 1);
        assert!(frames[0].last);
        assert_eq!(frames[0].words[0].start, 2 * 960);
    }

    #[test]
    fn the_frame_flagged_last_is_one_and_the_last() {
        let ends = |texts: &[&str], finish_first: bool| {
            let mut stream = Clicks::stream(48_000, 960);
            for text in texts {
                stream.say(text).unwrap();
            }
            let mut frames = Vec::new();
            if !finish_first {
                frames = drain(&mut stream);
            }
            stream.finish();
            frames.extend(drain(&mut stream));
            assert!(drain(&mut stream).is_empty());
            assert!(matches!(stream.say("1"), Err(TtsError::BadSetting(_))));
            frames.iter().map(|f| f.last).collect::<Vec<_>>()
        };
        assert_eq!(ends(&[], true), [true]);
        assert_eq!(ends(&["960"], true), [true]);
        assert_eq!(ends(&["961"], true), [false, true]);
        assert_eq!(ends(&["960", "960"], true), [false, true]);
        assert_eq!(
            ends(&["960"], false),
            [false, true],
            "the sound was sent before the end was known"
        );
    }

    #[test]
    fn a_stop_is_told_at_once() {
        let mut stream = Clicks::stream(48_000, 10);
        stream.say("100000").unwrap();
        let stop = StopFlag::default();
        assert!(stream.next(&stop).unwrap().is_some());
        stop.stop();
        assert!(matches!(stream.next(&stop), Err(TtsError::Stopped)));
    }
}
