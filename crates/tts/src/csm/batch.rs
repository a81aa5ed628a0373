//! The sentences that are spoken at the same time, and a pass over them.
//!
//! Each keeps to itself what it remembers, where in its context it is, its random numbers, its adapter and the history
//! of its codec; what a pass does with weights it does for all at once. So a sentence says the same in whatever company.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use rand::RngExt;
use rand::rngs::StdRng;

use super::codec::Decoder;
use super::model::{Manner, Memory, Model, READ_AT_ONCE, Reading, Step};
use super::turns::{self, Bounds, Standing};
use crate::StopFlag;
use crate::neural::{KvCache, LoraSet, Sampling};

/// Sessions in a pass. More take turns: beyond this a pass takes longer nearly in proportion.
pub(super) const BOUNDS: Bounds = Bounds {
    sessions: 16,
    steps: READ_AT_ONCE,
};

/// A sentence to be spoken.
pub(super) struct Sentence {
    /// What is remembered before it, with room for what is unread and for all but the last of `limit` frames.
    pub memory: Memory,
    /// What is to be read before its first frame, its own text at the end; not empty.
    pub unread: VecDeque<Step>,
    pub lora: Option<Arc<LoraSet>>,
    pub sampling: Sampling,
    pub random: StdRng,
    pub decoder: Decoder,
    /// Most frames, 1 at least.
    pub limit: usize,
}

/// What a pass makes of a sentence that is ready for a frame.
pub(super) struct Made {
    /// The frame; `None` where the model ended the sentence instead.
    pub frame: Option<Frame>,
    /// There will be no more of it: what is left of it.
    pub over: Option<Left>,
}

/// A frame of 80 ms.
pub(super) struct Frame {
    /// One a codebook.
    pub codes: Vec<u32>,
    /// At the codec's rate.
    pub sound: Vec<f32>,
}

/// What is left of a sentence that is over, for the next.
pub(super) struct Left {
    pub memory: Memory,
    pub random: StdRng,
    /// Its last frame, where that was not read.
    pub unread: Vec<Step>,
}

/// Somebody in the batch: a sentence, and `T`, which says whose.
pub(super) struct Row<T> {
    pub whose: T,
    /// Set when nobody waits for it any more.
    pub gone: StopFlag,
    sentence: Sentence,
    frames: usize,
    last_pass: u64,
    /// Steps it reads in the pass under way.
    share: usize,
}

/// The sentences that are spoken now.
pub(super) struct Batch<T> {
    model: Arc<Model>,
    rows: Vec<Row<T>>,
    passes: u64,
    /// For as many rows as had a frame last.
    depth: Option<KvCache>,
}

impl<T> Batch<T> {
    pub(super) fn new(model: Arc<Model>) -> Self {
        Batch {
            model,
            rows: Vec::new(),
            passes: 0,
            depth: None,
        }
    }

    /// Takes a sentence in, beside those with the same adapter.
    pub(super) fn join(&mut self, whose: T, gone: StopFlag, sentence: Sentence) {
        let adapter = |lora: &Option<Arc<LoraSet>>| lora.as_ref().map(Arc::as_ptr);
        let own = adapter(&sentence.lora);
        let behind = self
            .rows
            .iter()
            .rposition(|row| adapter(&row.sentence.lora) == own);
        let at = behind.map_or(self.rows.len(), |n| n + 1);
        let row = Row {
            whose,
            gone,
            sentence,
            frames: 0,
            last_pass: 0,
            share: 0,
        };
        self.rows.insert(at, row);
    }

    /// Lets those go of whom `stays` says no.
    pub(super) fn retain(&mut self, stays: impl FnMut(&mut Row<T>) -> bool) {
        self.rows.retain_mut(stays);
    }

    /// Says who is in the next pass, of those who `have_room`; false when nobody is.
    pub(super) fn choose(&mut self, has_room: impl Fn(&T) -> bool) -> bool {
        let standings: Vec<Standing> = self
            .rows
            .iter()
            .map(|row| Standing {
                unread: row.sentence.unread.len(),
                has_room: has_room(&row.whose),
                last_pass: row.last_pass,
            })
            .collect();
        let shares = turns::shares(&standings, BOUNDS);
        for (row, share) in self.rows.iter_mut().zip(&shares) {
            row.share = *share;
        }
        shares.iter().any(|share| *share > 0)
    }

    /// Makes the pass for those who were chosen, and gives `made` what comes of it: the pass waits for the device once.
    /// Gives those who left the batch because their sentence is over. Where it fails, [`Batch::fail`] is to follow.
    pub(super) fn pass(&mut self, mut made: impl FnMut(&mut T, Made)) -> Result<Vec<T>> {
        self.passes += 1;
        for row in self.rows.iter_mut().filter(|row| row.share > 0) {
            row.last_pass = self.passes;
        }
        self.read()?;
        let mut frames = self.frames()?.into_iter();
        let mut left = Vec::new();
        for mut row in std::mem::take(&mut self.rows) {
            let frame = if row.is_ready() { frames.next() } else { None };
            let Some(frame) = frame else {
                self.rows.push(row);
                continue;
            };
            let ended = self.model.is_end(&frame.codes);
            let frame = (!ended).then(|| {
                row.frames += 1;
                let read = Step::Frame(frame.codes.clone());
                row.sentence.unread.push_back(read);
                frame
            });
            if !ended && row.frames < row.sentence.limit {
                made(&mut row.whose, Made { frame, over: None });
                self.rows.push(row);
                continue;
            }
            let over = Some(Left {
                memory: row.sentence.memory,
                random: row.sentence.random,
                unread: row.sentence.unread.into(),
            });
            made(&mut row.whose, Made { frame, over });
            left.push(row.whose);
        }
        Ok(left)
    }

    /// Reads each one's share.
    fn read(&mut self) -> Result<()> {
        let mut steps = Vec::new();
        let mut readings = Vec::new();
        for row in self.rows.iter_mut().filter(|row| row.share > 0) {
            steps.extend(row.sentence.unread.drain(..row.share));
            readings.push(Reading {
                memory: &mut row.sentence.memory,
                steps: row.share,
                lora: row.sentence.lora.as_deref(),
            });
        }
        self.model.read(&steps, &mut readings)
    }

    /// Frames of all who are ready for one, in their order; none where there is nobody, or nobody any more.
    fn frames(&mut self) -> Result<Vec<Frame>> {
        let books = self.model.config().codebooks;
        let mut memories = Vec::new();
        let mut manners = Vec::new();
        let mut decoders = Vec::new();
        let mut gone = Vec::new();
        for row in self.rows.iter_mut().filter(|row| row.is_ready()) {
            let sentence = &mut row.sentence;
            let random = &mut sentence.random;
            manners.push(Manner {
                sampling: sentence.sampling,
                lora: sentence.lora.as_deref(),
                draws: (0..books).map(|_| random.random()).collect(),
            });
            memories.push(&sentence.memory);
            decoders.push(&mut sentence.decoder);
            gone.push(&row.gone);
        }
        if manners.is_empty() {
            return Ok(Vec::new());
        }
        let depth = match &mut self.depth {
            Some(depth) if depth.sessions() == manners.len() => depth,
            other => other.insert(self.model.depth_cache(manners.len())?),
        };
        let mut halt = || gone.iter().all(|gone| gone.is_set());
        let Some(codes) = self.model.frames(&memories, &manners, depth, &mut halt)? else {
            return Ok(Vec::new());
        };
        // The codec before the codes are looked at: so the device is waited for once, also where a frame turns out to
        // be the end and its sound is not wanted.
        let sounds = decoders
            .into_iter()
            .enumerate()
            .map(|(n, decoder)| decoder.step(&codes.get(n)?));
        let sounds = Tensor::stack(&sounds.collect::<Result<Vec<_>>>()?, 0)?;
        let sounds = sounds.to_vec2()?;
        let frames = codes.to_vec2()?.into_iter().zip(sounds);
        Ok(frames
            .map(|(codes, sound)| Frame { codes, sound })
            .collect())
    }

    /// Takes those out that were in the pass, which failed.
    pub(super) fn fail(&mut self) -> Vec<T> {
        let rows = std::mem::take(&mut self.rows);
        let (failed, others) = rows.into_iter().partition(|row| row.share > 0);
        self.rows = others;
        failed.into_iter().map(|row: Row<T>| row.whose).collect()
    }
}

impl<T> Row<T> {
    /// Whether it gets a frame from the pass under way.
    fn is_ready(&self) -> bool {
        self.share > 0 && self.sentence.unread.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;

    use super::super::parity::{MODEL, adapter, codes, prompt_after_recording, prompt_steps};
    use super::*;

    /// A session of the tests: what it reads first, with which adapter, and when it joins.
    struct Session {
        steps: Vec<Step>,
        lora: Option<Arc<LoraSet>>,
        joins: usize,
    }

    fn sentence(session: &Session, sampling: Sampling) -> Sentence {
        Sentence {
            memory: MODEL.memory(200).unwrap(),
            unread: session.steps.clone().into(),
            lora: session.lora.clone(),
            sampling,
            random: StdRng::seed_from_u64(7),
            decoder: MODEL.codec().decoder(),
            limit: 12,
        }
    }

    /// Codes and sound of each, and the most frames that one pass made.
    fn speak(sessions: &[&Session], sampling: Sampling) -> (Vec<Vec<Frame>>, usize) {
        let mut batch = Batch::new(Arc::clone(&MODEL));
        let mut said: Vec<Vec<Frame>> = sessions.iter().map(|_| Vec::new()).collect();
        let (mut over, mut company) = (0, 0);
        for pass in 0.. {
            for (n, session) in sessions.iter().enumerate() {
                if session.joins == pass {
                    batch.join(n, StopFlag::default(), sentence(session, sampling));
                }
            }
            if !batch.choose(|_| true) {
                continue;
            }
            let mut made = 0;
            let left = batch
                .pass(|n, one| {
                    made += 1;
                    said[*n].extend(one.frame);
                })
                .unwrap();
            company = company.max(made);
            over += left.len();
            if over == sessions.len() {
                break;
            }
        }
        (said, company)
    }

    fn sessions() -> [Session; 4] {
        let [a, b] = ["lora-a", "lora-b"].map(|name| Some(Arc::new(adapter(name))));
        let session = |steps, lora, joins| Session { steps, lora, joins };
        [
            session(prompt_steps(), None, 0),
            session(prompt_steps(), a.clone(), 2),
            session(prompt_after_recording(), b, 3),
            session(prompt_after_recording(), a, 7),
        ]
    }

    #[test]
    fn sessions_that_come_and_go_say_what_the_reference_says_of_each() {
        let sessions = sessions();
        let (said, company) = speak(&sessions.each_ref(), Sampling::Greedy);
        assert_eq!(company, 4, "they were not in one pass");
        let names = [
            "frames",
            "lora_a.frames",
            "lora_b.frames_with_reference",
            "lora_a.frames_with_reference",
        ];
        for (said, name) in said.iter().zip(names) {
            let said: Vec<Vec<u32>> = said.iter().map(|frame| frame.codes.clone()).collect();
            assert_eq!(said, codes(name), "{name}");
        }
    }

    #[test]
    fn a_session_in_company_draws_and_sounds_as_alone() {
        let sessions = sessions();
        let by_chance = Sampling::TopK {
            k: 50,
            temperature: 0.9,
        };
        let (together, company) = speak(&sessions.each_ref(), by_chance);
        assert_eq!(company, 4);
        for (n, session) in sessions.iter().enumerate() {
            let alone = Session {
                joins: 0,
                steps: session.steps.clone(),
                lora: session.lora.clone(),
            };
            let (alone, _) = speak(&[&alone], by_chance);
            for (one, other) in together[n].iter().zip(&alone[0]) {
                assert_eq!(one.codes, other.codes, "session {n}");
                assert!(one.sound == other.sound, "session {n}");
            }
            assert_eq!(together[n].len(), 12);
        }
    }

    #[test]
    fn what_a_session_remembers_in_company_is_what_it_remembers_alone() {
        // Numbers, and not only the codes that come of them.
        let sessions = sessions();
        let mut together: Vec<Memory> = Vec::new();
        let mut steps = Vec::new();
        for session in &sessions {
            together.push(MODEL.memory(200).unwrap());
            steps.extend(session.steps.clone());
        }
        let mut readings: Vec<Reading<'_>> = together
            .iter_mut()
            .zip(&sessions)
            .map(|(memory, session)| Reading {
                memory,
                steps: session.steps.len(),
                lora: session.lora.as_deref(),
            })
            .collect();
        MODEL.read(&steps, &mut readings).unwrap();
        for (session, company) in sessions.iter().zip(&together) {
            let mut alone = MODEL.memory(200).unwrap();
            let lora = session.lora.as_deref();
            let never = StopFlag::default();
            MODEL
                .read_alone(&session.steps, &mut alone, lora, &never)
                .unwrap();
            let far = company.difference(&alone);
            assert!(far < 1e-5, "{far:e}");
        }
    }

    #[test]
    fn a_session_that_nobody_waits_for_leaves_and_the_others_go_on() {
        let sessions = sessions();
        let (alone, _) = speak(&[&sessions[0]], Sampling::Greedy);
        let mut batch = Batch::new(Arc::clone(&MODEL));
        let gone = StopFlag::default();
        batch.join(
            0,
            StopFlag::default(),
            sentence(&sessions[0], Sampling::Greedy),
        );
        batch.join(1, gone.clone(), sentence(&sessions[1], Sampling::Greedy));
        let mut said: [Vec<Vec<u32>>; 2] = Default::default();
        for pass in 0..12 {
            if pass == 5 {
                gone.stop();
            }
            batch.retain(|row| !row.gone.is_set());
            assert!(batch.choose(|_| true));
            batch
                .pass(|n, made| said[*n].extend(made.frame.map(|frame| frame.codes)))
                .unwrap();
        }
        let alone: Vec<_> = alone[0].iter().map(|frame| frame.codes.clone()).collect();
        assert_eq!(said[0], alone);
        assert_eq!(said[1].len(), 5);
    }

    #[test]
    fn a_frame_that_nobody_waits_for_is_not_made_to_its_end() {
        let mut batch = Batch::new(Arc::clone(&MODEL));
        let gone = StopFlag::default();
        batch.join(0, gone.clone(), sentence(&sessions()[0], Sampling::Greedy));
        assert!(batch.choose(|_| true));
        gone.stop();
        let left = batch.pass(|_, _| panic!("a frame was made")).unwrap();
        assert!(left.is_empty());
    }
}
