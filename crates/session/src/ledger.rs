//! What of a reply was heard, word by word.
//!
//! A reply exists three times: as text to read, as text to say, and as sound. The ledger ties the three together:
//! each word of the display has the sample range of the words said for it, and the playout says how far the sound
//! got. Everything that claims to know what the assistant said asks here.
//!
//! A word counts as heard when more than half of its sound was played. The words heard are always a prefix of the
//! text; what is never said (code, an emoji) counts with the word before it.

use crate::playout::Playout;
use crate::{Clause, WordMark};
use std::ops::Range;
use std::time::Duration;

/// Characters a second, to place words where a voice gives no marks.
const CHARS_PER_SECOND: u64 = 14;

/// A word of the display.
#[derive(Clone, Debug)]
struct Word {
    /// Number of the clause it is said in; `None`: never said.
    clause: Option<u32>,
    /// Byte range in that clause's spoken text.
    spoken: Range<usize>,
    /// Where it ends in the whole text, with the punctuation behind it.
    display_end: usize,
    /// Its samples, when the voice has told them.
    samples: Option<Range<u64>>,
}

/// The ledger of one reply.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    text: String,
    words: Vec<Word>,
    spoken: Vec<String>,
    marked: bool,
    received: u64,
    audio_ended: bool,
    /// How far the sound got.
    pub playout: Playout,
    /// Where a client said that it stopped.
    cut: Option<u64>,
}

impl Ledger {
    pub fn new(output_delay: Duration) -> Self {
        Self {
            text: String::new(),
            words: Vec::new(),
            spoken: Vec::new(),
            marked: false,
            received: 0,
            audio_ended: false,
            playout: Playout::new(output_delay),
            cut: None,
        }
    }

    /// What is sent from now on is heard so much later.
    pub fn set_output_delay(&mut self, delay: Duration) {
        self.playout.set_delay(delay);
    }

    /// Takes a clause in; its number if there is something to say.
    pub fn add(&mut self, clause: &Clause) -> Option<u32> {
        let base = self.text.len();
        self.text.push_str(&clause.display);
        let end = self.text.len();
        if clause.spoken.trim().is_empty() {
            match self.words.last_mut() {
                Some(word) => word.display_end = end,
                None => self.words.push(Word {
                    clause: None,
                    spoken: 0..0,
                    display_end: end,
                    samples: None,
                }),
            }
            return None;
        }
        let number = u32::try_from(self.spoken.len()).unwrap_or(u32::MAX);
        let pairs = word_pairs(clause);
        for (at, (spoken, display)) in pairs.iter().enumerate() {
            let display_end = match pairs.get(at + 1) {
                Some((_, next)) => {
                    base + with_punctuation(&clause.display, display.end, next.start)
                }
                None => end,
            };
            let spoken = spoken.clone();
            self.words.push(Word {
                clause: Some(number),
                spoken,
                display_end,
                samples: None,
            });
        }
        self.spoken.push(clause.spoken.clone());
        Some(number)
    }

    /// Notes how much sound there is and where its words lie.
    pub fn audio(&mut self, samples: u64, marks: &[WordMark]) {
        self.received = self.received.max(samples);
        for mark in marks {
            self.marked = true;
            for word in &mut self.words {
                let touches =
                    word.spoken.start < mark.spoken.end && mark.spoken.start < word.spoken.end;
                if word.clause == Some(mark.clause) && touches {
                    let old = word
                        .samples
                        .clone()
                        .unwrap_or(mark.start_sample..mark.end_sample);
                    word.samples =
                        Some(old.start.min(mark.start_sample)..old.end.max(mark.end_sample));
                }
            }
        }
    }

    /// Sound from there on is dropped unless it was sent, and will be made again.
    pub fn cut_audio(&mut self, samples: u64) {
        self.received = self.received.min(samples.max(self.playout.furthest()));
        for word in &mut self.words {
            let broken = |samples: &Range<u64>| samples.end > self.received;
            word.samples = word.samples.take().filter(|samples| !broken(samples));
        }
    }

    /// No more sound comes.
    pub fn audio_ended(&mut self) {
        self.audio_ended = true;
    }

    /// Whether all sound is here.
    pub fn has_ended(&self) -> bool {
        self.audio_ended
    }

    /// Samples made so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many clauses are to be said.
    pub fn clauses(&self) -> usize {
        self.spoken.len()
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The client stopped at this position, whatever was sent.
    pub fn cut(&mut self, position: u64) {
        self.cut = Some(position);
    }

    /// How far the sound was heard, samples.
    pub fn heard_samples(&self, at: Duration) -> u64 {
        self.cut
            .unwrap_or_else(|| self.playout.heard(at).min(self.received))
    }

    /// Everything there is was heard.
    pub fn all_heard(&self, at: Duration) -> bool {
        self.audio_ended && self.heard_samples(at) >= self.received
    }

    /// Length in bytes of the text that sounds up to a position.
    pub fn text_until(&self, position: u64) -> usize {
        if self.audio_ended && position >= self.received {
            return self.text.len();
        }
        self.timed_words()
            .take_while(|(samples, _)| {
                samples.as_ref().is_some_and(|samples| {
                    position > 0
                        && 2 * u128::from(position)
                            > u128::from(samples.start) + u128::from(samples.end)
                })
            })
            .last()
            .map_or(0, |(_, word)| word.display_end)
    }

    /// What was heard.
    pub fn heard(&self, at: Duration) -> &str {
        self.text[..self.text_until(self.heard_samples(at))].trim_end()
    }

    /// What was meant to follow.
    pub fn unheard(&self, at: Duration) -> &str {
        self.text[self.text_until(self.heard_samples(at))..].trim()
    }

    /// Where to go on so as to begin with a whole word: the start of the word that sounds at `position`, but no
    /// more than `max_rewind` samples back.
    pub fn word_start(&self, position: u64, max_rewind: u64) -> u64 {
        let start = self
            .words
            .iter()
            .filter_map(|word| word.samples.clone())
            .find(|samples| samples.start < position && position < samples.end)
            .map_or(position, |samples| samples.start);
        if position - start <= max_rewind {
            start
        } else {
            position
        }
    }

    /// The words said between two positions, as said.
    pub fn said_between(&self, from: u64, to: u64) -> String {
        let said: Vec<&str> = self
            .timed_words()
            .filter(|(samples, _)| {
                samples
                    .as_ref()
                    .is_some_and(|s| s.start < to && from < s.end)
            })
            .filter_map(|(_, word)| {
                let clause = self.spoken.get(usize::try_from(word.clause?).ok()?)?;
                clause.get(word.spoken.clone())
            })
            .collect();
        said.join(" ")
    }

    /// Each word with its samples: told, or estimated; `None`: not spoken yet.
    fn timed_words(&self) -> impl Iterator<Item = (Option<Range<u64>>, &Word)> {
        let last_marked = self.words.iter().rposition(|word| word.samples.is_some());
        let mut end = 0;
        self.words.iter().enumerate().map(move |(at, word)| {
            let samples = match &word.samples {
                Some(samples) => Some(samples.clone()),
                // A word without sound of its own, between words that have it.
                None if last_marked.is_some_and(|last| at < last) || word.clause.is_none() => {
                    Some(end..end)
                }
                // The voice tells marks, and has not told this one yet.
                None if self.marked => None,
                None => {
                    let chars = u64::try_from(word.spoken.len())
                        .unwrap_or(u64::MAX)
                        .saturating_add(1);
                    Some(end..end + chars * u64::from(crate::SAMPLE_RATE) / CHARS_PER_SECOND)
                }
            };
            if let Some(samples) = &samples {
                end = samples.end;
            }
            (samples, word)
        })
    }
}

/// Which spoken words say which display words. A map that does not fit the text is not used.
fn word_pairs(clause: &Clause) -> Vec<(Range<usize>, Range<usize>)> {
    let fits = |range: &Range<usize>, text: &str| {
        range.start <= range.end && text.get(range.clone()).is_some()
    };
    let ordered = clause
        .words
        .windows(2)
        .all(|pair| pair[0].1.end <= pair[1].1.start);
    let given = !clause.words.is_empty()
        && ordered
        && clause.words.iter().all(|(spoken, display)| {
            fits(spoken, &clause.spoken) && fits(display, &clause.display)
        });
    if given {
        return clause.words.clone();
    }
    let spoken = words_of(&clause.spoken);
    let display = words_of(&clause.display);
    if spoken.len() == display.len() {
        return spoken.into_iter().zip(display).collect();
    }
    vec![(0..clause.spoken.len(), 0..clause.display.len())]
}

/// Byte ranges of what stands between white space.
fn words_of(text: &str) -> Vec<Range<usize>> {
    text.split_whitespace()
        .map(|word| {
            let start = word.as_ptr() as usize - text.as_ptr() as usize;
            start..start + word.len()
        })
        .collect()
}

/// Takes closing punctuation along, up to the next word.
fn with_punctuation(text: &str, end: usize, next: usize) -> usize {
    let between = text.get(end..next).unwrap_or("");
    end + between.find(char::is_whitespace).unwrap_or(0)
}
