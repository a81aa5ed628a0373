//! An utterance as its listener knows it, whichever workers say it one after the other.
//!
//! A worker numbers what it says from zero: frames, samples, chunks of text, bytes in a chunk. When it is given up
//! in the middle, another says the rest, and numbers that from zero too. The script knows the whole: it says how
//! much of the sound that came is kept, which text is still to be spoken, and puts the numbers of each worker in
//! their place in the whole. It holds no sound and no clock.
//!
//! A word whose sound is not all there is spoken again. What of it has not been played is dropped, so that it is
//! heard once; what has been played cannot be taken back, and then this one word is heard again. No other word is
//! said twice, and none is left out. This rests on the marks of the words, which every voice gives.

use std::ops::Range;

use duologue_audio::FRAME_SAMPLES;
use duologue_rpc::AudioFrame;

/// Samples of silence between words that two workers say: 60 ms.
const PAUSE: u64 = 2_880;

/// Where one worker ends and the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Sound from this sample on is dropped.
    pub at: u64,
    /// Frames of silence that come in its place.
    pub pause: usize,
}

/// The text of an utterance, and how much of it was said.
#[derive(Debug, Default)]
pub(crate) struct Script {
    chunks: Vec<String>,
    /// No text will be added.
    ended: bool,
    /// Samples of the whole that have come and were kept.
    received: u64,
    /// The last word whose sound has begun, in numbers of the whole.
    last: Option<Word>,
    /// The last frame of all has come.
    finished: bool,
    leg: Leg,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    chunk: usize,
    text: Range<usize>,
    samples: Range<u64>,
}

/// What one worker says.
#[derive(Debug, Default)]
struct Leg {
    /// Chunk and byte of the whole at which it begins.
    from: Place,
    /// Its sample 0 in the whole.
    base: u64,
    /// Frames that came from it.
    frames: u64,
    /// Chunks handed to it.
    handed: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    chunk: usize,
    byte: usize,
}

/// A frame that does not follow the one before it, or marks a word that its text has not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misplaced {
    /// Frames are missing, or came twice.
    #[error("the voice worker sent frame {found} where {expected} was due")]
    Sequence {
        /// Number that was due.
        expected: u64,
        /// Number that came.
        found: u64,
    },
    /// A mark points to nothing.
    #[error(
        "the voice worker marked a word in chunk {chunk}, bytes {from} to {to}, which is not its text"
    )]
    Mark {
        /// Chunk, as the worker numbers it.
        chunk: u32,
        /// First byte.
        from: u32,
        /// One past the last.
        to: u32,
    },
}

impl Script {
    /// Adds a piece of text.
    pub fn say(&mut self, text: String) {
        self.chunks.push(text);
    }

    /// No text will be added.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Pieces that the present worker has not been handed.
    pub fn waiting(&self) -> usize {
        self.chunks.len() - (self.leg.from.chunk + self.leg.handed).min(self.chunks.len())
    }

    /// The next piece for the present worker.
    pub fn next_text(&self) -> Option<&str> {
        let chunk = self.leg.from.chunk + self.leg.handed;
        let from = match self.leg.handed {
            0 => self.leg.from.byte,
            _ => 0,
        };
        self.chunks.get(chunk)?.get(from..)
    }

    /// The present worker has the piece that [`next_text`](Self::next_text) gave.
    pub fn hand(&mut self) {
        if self.next_text().is_some() {
            self.leg.handed += 1;
        }
    }

    /// The present worker has, or will have, all text there is.
    pub fn all_handed(&self) -> bool {
        self.ended && self.waiting() == 0
    }

    /// Puts a worker's frame in its place in the whole: its number and those of its words.
    ///
    /// # Errors
    /// [`Misplaced`]: the worker does not keep to its interface; give it up.
    pub fn place(&mut self, frame: &mut AudioFrame) -> Result<(), Misplaced> {
        if frame.sequence != self.leg.frames {
            return Err(Misplaced::Sequence {
                expected: self.leg.frames,
                found: frame.sequence,
            });
        }
        self.leg.frames += 1;
        for mark in &mut frame.words {
            let misplaced = Misplaced::Mark {
                chunk: mark.chunk,
                from: mark.text_start,
                to: mark.text_end,
            };
            let cut = match mark.chunk {
                0 => self.leg.from.byte,
                _ => 0,
            };
            let chunk = self.leg.from.chunk + mark.chunk as usize;
            let text = mark.text_start as usize + cut..mark.text_end as usize + cut;
            let handed = (mark.chunk as usize) < self.leg.handed;
            if !handed
                || self
                    .chunks
                    .get(chunk)
                    .and_then(|whole| whole.get(text.clone()))
                    .is_none()
            {
                return Err(misplaced);
            }
            mark.start_sample += self.leg.base;
            mark.end_sample += self.leg.base;
            // A reply has fewer than 2^32 chunks, and a chunk fewer bytes.
            mark.chunk = chunk as u32;
            mark.text_start = text.start as u32;
            mark.text_end = text.end as u32;
            self.last = Some(Word {
                chunk,
                text,
                samples: mark.start_sample..mark.end_sample,
            });
        }
        self.received += FRAME_SAMPLES as u64;
        frame.sequence = self.received / FRAME_SAMPLES as u64 - 1;
        self.finished |= frame.r#final;
        Ok(())
    }

    /// The last frame of all has come.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Nothing is left to be said, now or later.
    pub fn is_said(&self) -> bool {
        self.finished || (self.ended && !self.has_words_after(self.resumes_at()))
    }

    /// The present worker has words to say, or the end to tell.
    pub fn is_owed(&self) -> bool {
        if self.finished {
            return false;
        }
        let handed = self.leg.from.chunk + self.leg.handed;
        self.all_handed()
            || self
                .words_after(self.resumes_at())
                .is_some_and(|chunk| chunk < handed)
    }

    /// The present worker is given up; what it said so far is kept up to a sample, and after a pause the next begins
    /// there. `left` samples have gone to the listener and cannot be taken back.
    pub fn hand_over(&mut self, left: u64) -> Cut {
        let from = self.resumes_at();
        let broken = self.broken().map(|word| word.samples.start);
        let silent = match (broken, &self.last) {
            (Some(start), _) => {
                self.received = start.max(left).min(self.received);
                self.last = None;
                // Before a word there is its own pause; a part of one is heard as such only with a pause after it.
                if self.received > start { 0 } else { PAUSE }
            }
            (None, Some(word)) => self.received.saturating_sub(word.samples.end),
            (None, None) => PAUSE,
        };
        let at = self.received;
        let pause = PAUSE.saturating_sub(silent).div_ceil(FRAME_SAMPLES as u64);
        self.received += pause * FRAME_SAMPLES as u64;
        self.leg = Leg {
            from,
            base: self.received,
            ..Leg::default()
        };
        Cut {
            at,
            pause: pause as usize,
        }
    }

    /// The word whose sound has begun and is not all there.
    fn broken(&self) -> Option<&Word> {
        self.last
            .as_ref()
            .filter(|word| !self.finished && word.samples.end > self.received)
    }

    /// Where text would go on if the present worker were given up.
    fn resumes_at(&self) -> Place {
        match (&self.last, self.broken()) {
            (_, Some(word)) => Place {
                chunk: word.chunk,
                byte: word.text.start,
            },
            (Some(word), None) => {
                let text = self.chunks.get(word.chunk).map_or("", String::as_str);
                let rest = text.get(word.text.end..).unwrap_or("");
                let skipped = rest.len() - after_word(rest).len();
                Place {
                    chunk: word.chunk,
                    byte: word.text.end + skipped,
                }
            }
            (None, None) => self.leg.from,
        }
    }

    fn has_words_after(&self, place: Place) -> bool {
        self.words_after(place).is_some()
    }

    /// The chunk of the first word from a place on.
    fn words_after(&self, place: Place) -> Option<usize> {
        (place.chunk..self.chunks.len()).find(|&chunk| {
            let from = if chunk == place.chunk { place.byte } else { 0 };
            let rest = self.chunks[chunk].get(from..).unwrap_or("");
            rest.contains(char::is_alphanumeric)
        })
    }
}

/// What follows a word that was said, without the punctuation that closes it.
fn after_word(rest: &str) -> &str {
    let end = rest
        .find(|c: char| c.is_whitespace() || c.is_alphanumeric())
        .unwrap_or(rest.len());
    rest[end..].trim_start()
}

#[cfg(test)]
mod tests;
