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
