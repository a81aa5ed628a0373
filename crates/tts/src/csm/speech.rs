//! One reply: its sentences, one after the other, frame by frame.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::codec::Decoder;
use super::model::{Manner, Memory, engine};
use super::script::{self, Marker, Sentence};
use super::voice::{Shared, Speaker, Turn};
use crate::neural::Stretcher;
use crate::{Sound, Speech, StopFlag, TtsError, WordMark};

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
    chunks: u32,
    /// Texts not yet read, with their numbers.
    texts: VecDeque<(u32, String)>,
    sentences: VecDeque<Sentence>,
    current: Option<Current>,
    /// What the network remembers; taken with the first sentence.
    memory: Option<Memory>,
    /// Frames of the last sentence that it has not read, its end among them.
    unread: Vec<Vec<u32>>,
    /// What was said in this reply.
    said: VecDeque<Turn>,
    random: StdRng,
    /// Letters a second.
    pace: f64,
    /// Samples given.
    spoken: u64,
}

/// The sentence that is spoken.
struct Current {
    chunk: u32,
    turn: Turn,
    letters: f64,
    marker: Marker,
    decoder: Decoder,
    /// Frames made, of which the last is not read yet.
    unread: bool,
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
    pub(super) fn new(shared: Arc<Shared>, speaker: usize, speed: f32) -> Self {
        CsmSpeech {
            speaker,
            speed: f64::from(speed),
            chunks: 0,
            texts: VecDeque::new(),
            sentences: VecDeque::new(),
            current: None,
            memory: None,
            unread: Vec::new(),
            said: VecDeque::new(),
            random: StdRng::seed_from_u64(shared.seed),
            pace: shared.manner.pace,
            spoken: 0,
            shared,
        }
    }

    fn next_sound(&mut self, stop: &StopFlag) -> Result<Option<Sound>, TtsError> {
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
            } else if let Some((chunk, text)) = self.texts.pop_front() {
                self.sentences.extend(script::sentences(chunk, &text));
            } else {
                return Ok(None);
            }
        }
    }

    /// Reads a sentence's text.
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

        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => {
                let mut memory = base
                    .model
                    .memory(shared.capacity(speaker))
                    .map_err(engine)?;
                self.recall(&mut memory, speaker, 0, stop)?;
                memory
            }
        };
        let reference = speaker.memory(base, shared.lora.as_deref(), stop)?;
        let before = memory.steps() - reference.as_ref().map_or(0, |r| r.steps());
        let needed = self.unread.len() + tokens.len() + limit + 1;
        if before > shared.context() || needed > memory.room() {
            // Half of what is kept at most, so that this is not needed again with the next sentence.
            self.recall(&mut memory, speaker, shared.context() / 2, stop)?;
        }
        if needed > memory.room() && before > 0 {
            self.recall(&mut memory, speaker, 0, stop)?;
        }
        let room = memory.room().saturating_sub(tokens.len() + 1);
        if room == 0 {
            return Err(TtsError::Engine(format!(
                "a sentence of {} tokens does not fit beside the recording of the speaker",
                tokens.len()
            )));
        }
        let lora = shared.lora.as_deref();
        let unread = std::mem::take(&mut self.unread);
        base.model.read_frames(&unread, &mut memory, lora, stop)?;
        base.model.read_text(&tokens, &mut memory, lora, stop)?;
        self.memory = Some(memory);
        Ok(Current {
            chunk: sentence.chunk,
            letters: sentence.letters,
            turn: Turn {
                tokens,
                frames: Vec::new(),
            },
            marker,
            decoder: base.model.codec().decoder(),
            unread: false,
            limit: limit.min(room),
            held: VecDeque::new(),
            given: 0,
            over: false,
            stretcher: (self.speed != 1.0).then(|| Stretcher::new(codec.rate, self.speed)),
            from: self.spoken,
        })
    }

    /// Sets the memory to the speaker's recording and the last of what was said, `steps` of it at most.
    fn recall(
        &mut self,
        memory: &mut Memory,
        speaker: &Speaker,
        steps: usize,
        stop: &StopFlag,
    ) -> Result<(), TtsError> {
        let (base, lora) = (&self.shared.base, self.shared.lora.as_deref());
        memory.clear();
        self.unread.clear();
        if let Some(reference) = speaker.memory(base, lora, stop)? {
            memory.copy_from(&reference).map_err(engine)?;
        }
        let mut left = steps;
        let kept = self.said.iter().rev().take_while(|turn| {
            let fits = turn.steps() <= left;
            left = left.saturating_sub(turn.steps());
            fits
        });
        let kept = kept.count();
        self.said.drain(..self.said.len() - kept);
        for turn in &self.said {
            base.read(turn, memory, lora, stop)?;
        }
        Ok(())
    }

    /// Makes the frames that are needed for the next piece of sound, and gives it; `None` after the last.
    fn advance(
        &mut self,
        current: &mut Current,
        stop: &StopFlag,
    ) -> Result<Option<Sound>, TtsError> {
        let held = if current.given == 0 { 0 } else { HELD };
        while !current.over && current.held.len() <= held {
            self.make_frame(current, stop)?;
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

    fn make_frame(&mut self, current: &mut Current, stop: &StopFlag) -> Result<(), TtsError> {
        let (base, lora) = (&self.shared.base, self.shared.lora.as_deref());
        let Some(memory) = &mut self.memory else {
            return Err(TtsError::Engine("a sentence without a memory".to_owned()));
        };
        if current.unread {
            let made = current.turn.frames.len();
            let last = &current.turn.frames[made - 1..];
            base.model.read_frames(last, memory, lora, stop)?;
            current.unread = false;
        }
        let random = &mut self.random;
        let mut manner = Manner {
            sampling: self.shared.manner.sampling(),
            lora,
            draw: &mut || random.random::<f32>(),
            stop,
        };
        let codes = base.model.frame(memory, &mut manner)?;
        // The codec before the codes are looked at: so the device is waited for once, also where the frame turns out
        // to be the end and its sound is not wanted.
        let sound = current.decoder.step(&codes).map_err(engine)?;
        let codes: Vec<u32> = codes.to_vec1().map_err(engine)?;
        if base.model.is_end(&codes) {
            current.over = true;
            return Ok(());
        }
        current.held.push_back(sound);
        current.turn.frames.push(codes);
        current.unread = true;
        current.over = current.turn.frames.len() >= current.limit;
        Ok(())
    }

    /// Learns from a sentence that is over. What of it was not read is left to the next, should there be one.
    fn end(&mut self, current: Current) {
        let model = &self.shared.base.model;
        let frames = &current.turn.frames;
        if current.unread {
            self.unread.extend(frames.last().cloned());
        }
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

impl Speech for CsmSpeech {
    fn say(&mut self, text: &str) -> Result<(), TtsError> {
        self.shared.voice.check_length(text)?;
        self.texts.push_back((self.chunks, text.to_owned()));
        self.chunks += 1;
        Ok(())
    }

    fn next(&mut self, stop: &StopFlag) -> Result<Option<Sound>, TtsError> {
        let shared = Arc::clone(&self.shared);
        shared.base.pool.install(|| self.next_sound(stop))
    }
}
