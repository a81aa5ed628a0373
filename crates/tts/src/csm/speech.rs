//! One reply: its sentences, one after the other, frame by frame.
//!
//! What a reply said is left to the next reply of the session, and so is what the network remembers of it, so that going
//! on costs nothing. A sentence that was broken off in the middle is forgotten: its text says more than was heard.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::batch;
use super::engine::Ticket;
use super::model::{Memory, Step, engine};
use super::script::{self, Marker, Sentence};
use super::voice::{Shared, Turn};
use crate::neural::Stretcher;
use crate::texts::Texts;
use crate::{Conversation, Sound, Speech, StopFlag, TtsError, WordMark};

/// Frames that a sentence may take beyond what it is thought to, before the factor in the voice's settings.
const GRACE: usize = 12;
/// Frames held back once the first is out, so that words that are left when a sentence ends have sound to lie in.
const HELD: usize = 1;
/// How much what was heard of a sentence's pace counts for the next.
const LEARNT: f64 = 0.5;

/// One reply in the making.
pub(super) struct CsmSpeech {
    shared: Arc<Shared>,
    speaker: usize,
    speed: f64,
    texts: Texts,
    sentences: VecDeque<Sentence>,
    current: Option<Current>,
    /// What the network remembers between two sentences; taken with the first, and lent to the engine with each.
    memory: Option<Memory>,
    /// What it has not read of the last sentence, its end among that.
    unread: Vec<Step>,
    /// What was said in this reply and in those before it.
    said: VecDeque<Turn>,
    /// Lent to the engine with each sentence.
    random: StdRng,
    /// Letters a second.
    pace: f64,
    /// Samples given.
    spoken: u64,
    conversation: Conversation,
}

/// What a reply leaves to the next of its session.
struct Past {
    /// The voice that said it: another, or the same one loaded again, does not go on from it.
    voice: Weak<Shared>,
    speaker: usize,
    said: VecDeque<Turn>,
    /// What the network remembers, unless the last sentence was broken off, and what it has not read of that.
    memory: Option<Memory>,
    unread: Vec<Step>,
    pace: f64,
}

/// The sentence that is spoken.
struct Current {
    chunk: u32,
    turn: Turn,
    letters: f64,
    marker: Marker,
    ticket: Ticket,
    /// Most frames.
    limit: usize,
    /// Sound that waits.
    held: VecDeque<Vec<f32>>,
    /// Samples that left `held`.
    given: usize,
    /// The last frame was made.
    over: bool,
    stretcher: Option<Stretcher>,
    /// Where in the reply the sentence begins.
    from: u64,
}

impl CsmSpeech {
    pub(super) fn new(
        shared: Arc<Shared>,
        speaker: usize,
        speed: f32,
        conversation: Conversation,
    ) -> Self {
        let past = conversation.take().filter(|past: &Past| {
            std::ptr::eq(past.voice.as_ptr(), Arc::as_ptr(&shared)) && past.speaker == speaker
        });
        let past = past.unwrap_or_else(|| Past {
            voice: Weak::new(),
            speaker,
            said: VecDeque::new(),
            memory: None,
            unread: Vec::new(),
            pace: shared.manner.pace,
        });
        CsmSpeech {
            speaker,
            speed: f64::from(speed),
            texts: Texts::default(),
            sentences: VecDeque::new(),
            current: None,
            memory: past.memory,
            unread: past.unread,
            said: past.said,
            random: StdRng::seed_from_u64(shared.seed),
            pace: past.pace,
            spoken: 0,
            conversation,
            shared,
        }
    }

    /// Hands a sentence to the engine.
    fn start(&mut self, sentence: &Sentence, stop: &StopFlag) -> Result<Current, TtsError> {
        let shared = Arc::clone(&self.shared);
        let base = &shared.base;
        let speaker = &shared.speakers[self.speaker];
        let tokens = base.tokens.turn(speaker.id, &sentence.text);
        let tokens = tokens.map_err(|e| TtsError::Engine(format!("the tokenizer: {e}")))?;
        let codec = &base.model.config().codec;
        let marker = Marker::new(sentence, self.pace, codec.rate, codec.frame);
        let expected = marker.expected / codec.frame;
        let longest = shared.manner.longest;
        let grace = if longest > 1.0 { GRACE } else { 0 };
        let limit = (expected as f64 * longest) as usize + grace;

        let reference = speaker.memory(base, shared.lora.as_deref(), stop)?;
        let reference = reference.as_deref();
        let (mut memory, mut unread) = match self.memory.take() {
            Some(memory) => (memory, std::mem::take(&mut self.unread)),
            None => {
                let room = shared.capacity(speaker);
                let mut memory = base.model.memory(room).map_err(engine)?;
                let unread = self.recall(&mut memory, reference, shared.context())?;
                (memory, unread)
            }
        };
        let needed = tokens.len() + limit + 1;
        let said = memory.steps() + unread.len() - reference.map_or(0, Memory::steps);
        if said > shared.context() || unread.len() + needed > memory.room() {
            // Half of what is kept at most, so that this is not needed again with the next sentence.
            unread = self.recall(&mut memory, reference, shared.context() / 2)?;
        }
        if !unread.is_empty() && unread.len() + needed > memory.room() {
            unread = self.recall(&mut memory, reference, 0)?;
        }
        let room = memory
            .room()
            .saturating_sub(unread.len() + tokens.len() + 1);
        if room == 0 {
            return Err(TtsError::Engine(format!(
                "a sentence of {} tokens does not fit beside the recording of the speaker",
                tokens.len()
            )));
        }
        let limit = limit.clamp(1, room);
        let text = tokens.iter().copied().map(Step::Token);
        let stand_in = StdRng::seed_from_u64(shared.seed);
        let ticket = base.engine.speak(batch::Sentence {
            memory,
            unread: unread.into_iter().chain(text).collect(),
            lora: shared.lora.clone(),
            sampling: shared.manner.sampling(),
            random: std::mem::replace(&mut self.random, stand_in),
            decoder: base.model.codec().decoder(),
            limit,
        });
        Ok(Current {
            chunk: sentence.chunk,
            letters: sentence.letters,
            turn: Turn {
                tokens,
                frames: Vec::new(),
            },
            marker,
            ticket,
            limit,
            held: VecDeque::new(),
            given: 0,
            over: false,
            stretcher: (self.speed != 1.0).then(|| Stretcher::new(codec.rate, self.speed)),
            from: self.spoken,
        })
    }

    /// Sets the memory to the speaker's recording, and gives what is to be read after it: the last of what was said,
    /// `steps` of it at most. The rest is forgotten.
    fn recall(
        &mut self,
        memory: &mut Memory,
        reference: Option<&Memory>,
        steps: usize,
    ) -> Result<Vec<Step>, TtsError> {
        memory.clear();
        if let Some(reference) = reference {
            memory.copy_from(reference).map_err(engine)?;
        }
        let mut left = steps;
        let kept = self.said.iter().rev().take_while(|turn| {
            let fits = turn.steps() <= left;
            left = left.saturating_sub(turn.steps());
            fits
        });
        let kept = kept.count();
        self.said.drain(..self.said.len() - kept);
        let model = &self.shared.base.model;
        let kept = self
            .said
            .iter()
            .flat_map(|turn| turn.read(model.end_frame()));
        Ok(kept.collect())
    }

    /// Takes the frames that are needed for the next piece of sound, and gives it; `None` after the last.
    fn advance(
        &mut self,
        current: &mut Current,
        stop: &StopFlag,
    ) -> Result<Option<Sound>, TtsError> {
        let held = if current.given == 0 { 0 } else { HELD };
        while !current.over && current.held.len() <= held {
            self.take_frame(current, stop)?;
        }
        let mut piece = match current.held.pop_front() {
            Some(piece) => piece,
            None if current.marker.is_done() => return Ok(None),
            // It ended before its words had sound to lie in: they get silence.
            None => Vec::new(),
        };
        let from = current.given;
        current.given += piece.len();
        let last = current.over && current.held.is_empty();
        let words = if last {
            let (words, silence) = current.marker.rest(from, current.given);
            piece.resize(piece.len() + silence, 0.0);
            current.given += silence;
            words
        } else {
            current.marker.until(current.given)
        };
        self.shared.speakers[self.speaker]
            .normaliser
            .apply(&mut piece);
        let samples = match &mut current.stretcher {
            None => piece,
            Some(stretcher) => {
                let mut samples = stretcher.process(&piece);
                if last {
                    samples.extend(stretcher.flush());
                }
                samples
            }
        };
        let at = |sample: usize| (sample as f64 / self.speed).round() as usize;
        let words = words.into_iter().map(|(word, place)| {
            let start = current.from + at(place.start) as u64;
            WordMark {
                word: word.word,
                start,
                end: (current.from + at(place.end) as u64).max(start + 1),
                chunk: current.chunk,
                text: word.range,
            }
        });
        let words = words.collect();
        self.spoken += samples.len() as u64;
        Ok(Some(Sound { samples, words }))
    }

    /// Takes the next frame of the sentence.
    fn take_frame(&mut self, current: &mut Current, stop: &StopFlag) -> Result<(), TtsError> {
        let made = current.ticket.next(stop)?;
        if let Some(frame) = made.frame {
            current.held.push_back(frame.sound);
            current.turn.frames.push(frame.codes);
        }
        if let Some(left) = made.over {
            current.over = true;
            self.memory = Some(left.memory);
            self.random = left.random;
            self.unread = left.unread;
        }
        Ok(())
    }

    /// Learns from a sentence that is over. What of it was not read is left to the next, should there be one.
    fn end(&mut self, current: Current) {
        let model = &self.shared.base.model;
        let frames = &current.turn.frames;
        self.unread.push(model.end_frame());
        let codec = &model.config().codec;
        let seconds = (frames.len() * codec.frame) as f64 / f64::from(codec.rate);
        // A sentence that was broken off tells nothing.
        if seconds > 0.0 && frames.len() < current.limit {
            let heard = (current.letters / seconds).clamp(5.0, 40.0);
            self.pace += LEARNT * (heard - self.pace);
        }
        self.said.push_back(current.turn);
    }
}

impl Drop for CsmSpeech {
    fn drop(&mut self) {
        self.conversation.put(Past {
            voice: Arc::downgrade(&self.shared),
            speaker: self.speaker,
            said: std::mem::take(&mut self.said),
            memory: self.memory.take(),
            unread: std::mem::take(&mut self.unread),
            pace: self.pace,
        });
    }
}

impl Speech for CsmSpeech {
    fn say(&mut self, text: &str) -> Result<(), TtsError> {
        self.texts.say(&self.shared.voice, text)
    }

    fn next(&mut self, stop: &StopFlag) -> Result<Option<Sound>, TtsError> {
        loop {
            stop.check()?;
            if let Some(mut current) = self.current.take() {
                // What fails leaves the sentence where it is: a stopped reply stays stopped.
                let made = self.advance(&mut current, stop);
                match made {
                    Err(error) => {
                        self.current = Some(current);
                        return Err(error);
                    }
                    Ok(Some(sound)) => {
                        self.current = Some(current);
                        if !sound.samples.is_empty() || !sound.words.is_empty() {
                            return Ok(Some(sound));
                        }
                    }
                    Ok(None) => self.end(current),
                }
            } else if let Some(sentence) = self.sentences.pop_front() {
                self.current = Some(self.start(&sentence, stop)?);
            } else if let Some((chunk, text)) = self.texts.read() {
                self.sentences.extend(script::sentences(chunk, &text));
            } else {
                return Ok(None);
            }
        }
    }
}
