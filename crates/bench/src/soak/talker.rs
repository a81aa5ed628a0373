//! A client that converses: it asks recorded questions, listens, speaks over every third reply, and notes what it
//! hears and when. It holds no clock and no connection: it is told what came, and asked for a block every 20 ms.

use std::sync::Arc;

use duologue_audio::pcm;
use duologue_client::{BLOCK, Playout, RATE};
use serde_json::{Value, json};

/// Quieter than this a block is silence: -50 dBFS.
const AUDIBLE: u16 = 104;
/// Of a recording, what is so much softer than its loud fifth is not speech, dB.
const BELOW_LOUD: f32 = 20.0;
/// Seconds of a block.
const BLOCK_SECONDS: f64 = 0.02;
/// An answer that is not there by then does not come, seconds.
pub const PATIENCE: f64 = 30.0;
/// Every so many questions are asked over the reply to the one before.
const INTERRUPT_EVERY: usize = 3;
/// Such a reply is heard for so long before, in blocks.
const HEARD_BEFORE: usize = 75;
/// Silence by which a reply counts as held, in blocks.
const HELD: usize = 12;
/// A reply that goes on for so long is not held at all, seconds.
const SPOKEN_ON: f64 = 3.0;
/// Silence after a reply before the next question, seconds.
const REST: f64 = 1.0;
/// Blocks without sound in the midst of a reply that count as an underrun.
const DRY: usize = 2;
/// After a pause or a resumption nothing is called an underrun for so long, seconds.
const GRACE: f64 = 0.25;
/// From so much sound ahead of the listener on, it should come evenly, seconds.
const LEAD: f64 = 0.15;
/// More at once is sent to get ahead of the listener, seconds.
const MOST_AT_ONCE: f64 = 0.1;
/// A playout report every so many blocks.
const REPORT_EVERY: usize = 5;
/// Replies of which the sound is kept.
const KEPT: usize = 2;
/// Longest sound that is kept of a reply, samples.
const KEPT_SAMPLES: usize = 15 * RATE as usize;

/// A recorded question.
pub struct Question {
    /// Its sound, a block at a time.
    pub blocks: Vec<[i16; BLOCK]>,
    /// First and last block of speech. What a recording hisses before and after is none.
    pub speech: (usize, usize),
    /// What is said, in lower case.
    pub words: Vec<String>,
}

impl Question {
    /// From samples at [`RATE`]; `None`: it is silent.
    pub fn new(samples: &[i16], transcript: &str) -> Option<Self> {
        let mut blocks = samples.as_chunks::<BLOCK>().0.to_vec();
        blocks.truncate(blocks.iter().rposition(is_audible)? + 1);
        Some(Self {
            speech: speech(&blocks)?,
            blocks,
            words: words(transcript),
        })
    }

    /// Seconds of sound after the last of the speech.
    fn tail(&self) -> f64 {
        (self.blocks.len() - 1 - self.speech.1) as f64 * BLOCK_SECONDS
    }
}

/// First and last of the blocks in which somebody speaks: those within 20 dB of the loud fifth. A click is not speech,
/// so the one next to it must be as loud.
fn speech(blocks: &[[i16; BLOCK]]) -> Option<(usize, usize)> {
    let levels: Vec<f32> = blocks
        .iter()
        .map(|block| pcm::dbfs(pcm::rms(&pcm::i16_to_f32(block))))
        .collect();
    let mut sorted = levels.clone();
    sorted.sort_by(f32::total_cmp);
    let loud = *sorted.get(sorted.len() * 4 / 5)?;
    let spoken: Vec<bool> = levels
        .iter()
        .map(|level| *level > loud - BELOW_LOUD)
        .collect();
    let first = spoken.windows(2).position(|pair| pair == [true, true]);
    let last = spoken.windows(2).rposition(|pair| pair == [true, true]);
    Some(match (first, last) {
        (Some(first), Some(last)) => (first, last + 1),
        _ => (0, blocks.len() - 1),
    })
}

/// What a client noted. Times are seconds of its clock, figures milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// From the last sound of a question to the first of the answer.
    pub first_audio: Vec<(f64, f64)>,
    /// From the first sound over a reply to its last.
    pub barge_in: Vec<(f64, f64)>,
    /// By how much sound came less evenly than it is played.
    pub jitter: Vec<(f64, f64)>,
    /// Silence in the midst of a reply.
    pub underruns: Vec<(f64, f64)>,
    /// Replies that were spoken over and went on.
    pub spoken_on: usize,
    /// Questions that were answered.
    pub answered: usize,
    /// When questions had not been answered for too long.
    pub unanswered: Vec<f64>,
    /// What was heard or told that is another's.
    pub crossed: Vec<String>,
    /// Errors that the server told.
    pub errors: Vec<String>,
    /// The sound of the first replies.
    pub replies: Vec<Vec<i16>>,
    /// When the last answer began.
    pub last_answer: f64,
}

impl Notes {
    /// Only what is timed, and of that what was from then on. A question counts as answered if its answer was timed.
    #[must_use]
    pub fn since(mut self, from: f64) -> Self {
        for timed in [
            &mut self.first_audio,
            &mut self.barge_in,
            &mut self.jitter,
            &mut self.underruns,
        ] {
            timed.retain(|(at, _)| *at >= from);
        }
        self.unanswered.retain(|at| *at >= from);
        self.answered = self.first_audio.len();
        self
    }
}

enum Step {
    Rest { until: f64 },
    Ask { block: usize },
    Await { since: f64 },
    Listen { loud: usize, quiet: usize },
    Over { block: usize, since: f64, last: f64 },
}

/// One client.
pub struct Talker {
    number: usize,
    /// How many clients there are: each asks the questions in another order.
    questions: Arc<Vec<Question>>,
    /// The word that only this client is told, and everybody's.
    codeword: Option<(String, Arc<Vec<String>>)>,
    asked: usize,
    step: Step,
    playout: Playout,
    blocks: usize,
    /// A reply is being made; of one, sound is to come.
    replying: bool,
    sounding: bool,
    played: bool,
    dry: usize,
    grace_until: f64,
    arrival: Arrival,
    notes: Notes,
}

/// When the sound of an item came.
#[derive(Default)]
struct Arrival {
    item: String,
    begun: f64,
    last: f64,
    seconds: f64,
    last_seconds: f64,
    even: bool,
}

impl Talker {
    /// The client of that number, which begins to speak a little later than the one before it.
    pub fn new(
        number: usize,
        questions: Arc<Vec<Question>>,
        codeword: Option<(String, Arc<Vec<String>>)>,
    ) -> Self {
        Self {
            number,
            questions,
            codeword,
            asked: 0,
            step: Step::Rest {
                until: 0.3 + 0.37 * (number % 16) as f64,
            },
            playout: Playout::default(),
            blocks: 0,
            replying: false,
            sounding: false,
            played: false,
            dry: 0,
            grace_until: 0.0,
            arrival: Arrival::default(),
            notes: Notes::default(),
        }
    }

    /// The settings that its session begins with.
    pub fn session(&self, instructions: &str) -> Value {
        let format = json!({"type": "audio/pcm", "rate": RATE});
        json!({"type": "session.update", "session": {
            "type": "realtime",
            "instructions": instructions,
            "audio": {"input": {"format": format, "transcription": {"language": "en"}}, "output": {"format": format}},
            "duologue": {"events": true},
        }})
    }

    /// What it noted.
    pub fn into_notes(self) -> Notes {
        self.notes
    }

    /// The server said something.
    ///
    /// # Errors
    /// Sound that is not base64.
    pub fn told(&mut self, at: f64, event: &Value) -> anyhow::Result<()> {
        let before = self.playout.received();
        self.playout.event(event)?;
        match event["type"].as_str().unwrap_or_default() {
            "response.created" => self.replying = true,
            "response.output_audio.delta" => {
                let samples = self.playout.received() - before;
                let item = event["item_id"].as_str().unwrap_or_default();
                if self.arrival.item != item {
                    self.played = false;
                }
                self.sounding = true;
                if let Some(jitter) = self.arrival.came(at, item, samples) {
                    self.notes.jitter.push((at, jitter));
                }
            }
            "response.output_audio.done" => self.sounding = false,
            "response.output_audio_transcript.done" => self.said(event),
            "response.done" => {
                self.replying = false;
                self.sounding = false;
            }
            "conversation.item.input_audio_transcription.completed" => self.heard(event),
            "duologue.playout.pause" | "duologue.playout.resume" | "duologue.playout.clear" => {
                self.grace_until = at + GRACE;
                self.arrival = Arrival::default();
            }
            "error" => {
                let message = event["error"]["message"].as_str().unwrap_or_default();
                self.notes.errors.push(message.to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// The words of a reply: they must hold nobody else's codeword.
    fn said(&mut self, event: &Value) {
        let Some((own, all)) = &self.codeword else {
            return;
        };
        let said = words(event["transcript"].as_str().unwrap_or_default());
        let others = all.iter().filter(|word| *word != own);
        if let Some(other) = others.into_iter().find(|word| said.contains(word)) {
            let crossed = format!(
                "client {}, whose word is {own}, was told {other}",
                self.number
            );
            self.notes.crossed.push(crossed);
        }
    }

    /// What the server understood must be what this client said last, or the time before.
    fn heard(&mut self, event: &Value) {
        let understood = words(event["transcript"].as_str().unwrap_or_default());
        if understood.len() < 3 {
            return;
        }
        let asked = (0..2).map(|back| self.question(self.asked.saturating_sub(back)));
        let ours = asked.into_iter().any(|question| {
            let known = understood.iter().filter(|w| question.words.contains(w));
            known.count() * 3 >= understood.len()
        });
        if !ours {
            let crossed = format!(
                "client {} said something else than {:?}",
                self.number,
                understood.join(" ")
            );
            self.notes.crossed.push(crossed);
        }
    }

    fn question(&self, asked: usize) -> &Question {
        // Five has no factor in common with the usual numbers of clips, so each client goes through all of them.
        &self.questions[(self.number + 5 * asked) % self.questions.len()]
    }

    /// What is spoken in the next 20 ms, and a report of what was played, now and then.
    pub fn tick(&mut self, at: f64) -> ([i16; BLOCK], Option<Value>) {
        let was_silent = self.playout.is_silent();
        let played = self.playout.block();
        let loud = is_audible(&played);
        self.watch(at, was_silent);
        self.keep(&played);
        self.blocks += 1;
        let spoken = self.step(at, loud);
        let report = self
            .blocks
            .is_multiple_of(REPORT_EVERY)
            .then(|| self.playout.report())
            .flatten();
        (spoken, report)
    }

    /// Notes a reply that runs dry before its end.
    fn watch(&mut self, at: f64, silent: bool) {
        if !silent {
            self.played = true;
        }
        let dry = silent
            && self.sounding
            && self.played
            && !self.playout.is_held()
            && at >= self.grace_until;
        if dry {
            self.dry += 1;
            return;
        }
        if self.dry >= DRY {
            let gap = self.dry as f64 * BLOCK_SECONDS * 1_000.0;
            self.notes.underruns.push((at, gap));
        }
        self.dry = 0;
    }

    fn keep(&mut self, played: &[i16; BLOCK]) {
        let listening = matches!(self.step, Step::Listen { .. });
        let wanted = listening && self.notes.answered == self.notes.replies.len();
        if let Some(reply) = self.notes.replies.last_mut()
            && wanted
            && reply.len() < KEPT_SAMPLES
        {
            reply.extend_from_slice(played);
        }
    }

    fn step(&mut self, at: f64, loud: bool) -> [i16; BLOCK] {
        let mut spoken = [0; BLOCK];
        let say =
            |talker: &Self, block: usize| talker.question(talker.asked).blocks.get(block).copied();
        self.step = match self.step {
            Step::Rest { until } if at < until => Step::Rest { until },
            Step::Rest { .. } => Step::Ask { block: 0 },
            Step::Ask { block } => match say(self, block) {
                Some(samples) => {
                    spoken = samples;
                    Step::Ask { block: block + 1 }
                }
                None => Step::Await {
                    since: at - self.question(self.asked).tail(),
                },
            },
            Step::Await { since } if loud => {
                // A reply to a pause within the question may be there already.
                let waited = (at - since) * 1_000.0;
                if waited >= 2.0 * BLOCK_SECONDS * 1_000.0 {
                    self.notes.first_audio.push((at, waited));
                }
                self.notes.answered += 1;
                self.notes.last_answer = at;
                if self.notes.replies.len() < KEPT {
                    self.notes.replies.push(Vec::new());
                }
                Step::Listen { loud: 1, quiet: 0 }
            }
            Step::Await { since } if at > since + PATIENCE => {
                self.notes.unanswered.push(at);
                self.asked += 1;
                Step::Rest { until: at + REST }
            }
            Step::Await { since } => Step::Await { since },
            Step::Listen { loud: heard, .. } if heard >= HEARD_BEFORE && self.interrupts() => {
                self.asked += 1;
                let block = self.question(self.asked).speech.0;
                Step::Over {
                    block,
                    since: at,
                    last: at,
                }
            }
            Step::Listen { loud: heard, quiet } => {
                let quiet = if loud { 0 } else { quiet + 1 };
                let over = !self.replying && !self.sounding && self.playout.is_silent();
                if over && quiet >= HELD {
                    self.asked += 1;
                    Step::Rest { until: at + REST }
                } else {
                    Step::Listen {
                        loud: heard + usize::from(loud),
                        quiet,
                    }
                }
            }
            Step::Over { block, since, last } => {
                let last = if loud { at } else { last };
                let said = say(self, block);
                spoken = said.unwrap_or(spoken);
                let held = at - last >= HELD as f64 * BLOCK_SECONDS;
                if held {
                    let silenced = (last - since + BLOCK_SECONDS) * 1_000.0;
                    self.notes.barge_in.push((at, silenced));
                } else if at - since > SPOKEN_ON {
                    self.notes.spoken_on += 1;
                }
                match said {
                    _ if held || at - since > SPOKEN_ON => Step::Ask { block: block + 1 },
                    Some(_) => Step::Over {
                        block: block + 1,
                        since,
                        last,
                    },
                    None => Step::Await {
                        since: at - self.question(self.asked).tail(),
                    },
                }
            }
        };
        spoken
    }

    fn interrupts(&self) -> bool {
        (self.asked + self.number) % INTERRUPT_EVERY == INTERRUPT_EVERY - 1
    }
}

impl Arrival {
    /// Sound of an item came; how much less evenly than it is played, ms, once there is enough ahead.
    fn came(&mut self, at: f64, item: &str, samples: u64) -> Option<f64> {
        let seconds = samples as f64 / f64::from(RATE);
        if self.item != item {
            *self = Self {
                item: item.to_owned(),
                begun: at,
                ..Self::default()
            };
        }
        let jitter = (at - self.last - self.last_seconds).abs() * 1_000.0;
        let even = self.even && self.last_seconds <= MOST_AT_ONCE;
        self.seconds += seconds;
        self.even |= self.seconds - (at - self.begun) >= LEAD;
        (self.last, self.last_seconds) = (at, seconds);
        even.then_some(jitter)
    }
}

fn is_audible(block: &[i16; BLOCK]) -> bool {
    block.iter().any(|sample| sample.unsigned_abs() > AUDIBLE)
}

/// The words of a text, as they compare.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| {
            let letters = word.chars().filter(|c| c.is_alphanumeric());
            letters.flat_map(char::to_lowercase).collect::<String>()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn questions(blocks: usize) -> Arc<Vec<Question>> {
        let sound = vec![1_000; blocks * BLOCK];
        let one = |text: &str| Question::new(&sound, text).unwrap();
        Arc::new(vec![
            one("where is the harbour"),
            one("what time is it now"),
        ])
    }

    fn talker() -> Talker {
        let all = Arc::new(vec!["apple".to_owned(), "lemon".to_owned()]);
        Talker::new(0, questions(5), Some(("apple".to_owned(), all)))
    }

    fn delta(item: &str, blocks: usize) -> Value {
        let samples = vec![2_000; blocks * BLOCK];
        let delta = STANDARD.encode(duologue_audio::pcm::i16_to_le_bytes(&samples));
        json!({"type": "response.output_audio.delta", "item_id": item, "delta": delta})
    }

    /// Ticks until a time.
    fn run(talker: &mut Talker, now: &mut f64, until: f64) {
        while *now < until {
            talker.tick(*now);
            *now += BLOCK_SECONDS;
        }
    }

    #[test]
    fn the_hiss_and_clicks_of_a_recording_are_not_its_speech() {
        let mut sound = vec![300_i16; 20 * BLOCK];
        sound[2 * BLOCK..3 * BLOCK].fill(9_000);
        sound[8 * BLOCK..15 * BLOCK].fill(8_000);
        let question = Question::new(&sound, "go forward").unwrap();
        assert_eq!(question.speech, (8, 14));
        assert!((question.tail() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn the_wait_for_an_answer_and_a_gap_in_it_are_noted() {
        let (mut talker, mut now) = (talker(), 0.0);
        // It rests for 0.3 s, and asks for 0.1 s.
        run(&mut talker, &mut now, 1.0);
        assert!(matches!(talker.step, Step::Await { .. }));
        talker
            .told(now, &json!({"type": "response.created"}))
            .unwrap();
        talker.told(now, &delta("i", 10)).unwrap();
        run(&mut talker, &mut now, 1.4);
        talker.told(now, &delta("i", 10)).unwrap();
        talker
            .told(now, &json!({"type": "response.output_audio.done"}))
            .unwrap();
        talker.told(now, &json!({"type": "response.done"})).unwrap();
        run(&mut talker, &mut now, 2.5);
        let notes = talker.into_notes();
        assert_eq!((notes.answered, notes.unanswered.len()), (1, 0));
        assert!((notes.first_audio[0].1 - 580.0).abs() < 50.0, "{notes:?}");
        assert_eq!(notes.underruns.len(), 1, "{notes:?}");
        assert!((notes.underruns[0].1 - 200.0).abs() < 30.0, "{notes:?}");
        assert!(notes.replies[0].len() >= 15 * BLOCK);
    }

    #[test]
    fn what_never_comes_is_noted_once_and_the_next_question_is_asked() {
        let (mut talker, mut now) = (talker(), 0.0);
        run(&mut talker, &mut now, PATIENCE + 3.0);
        assert_eq!(talker.notes.unanswered.len(), 1);
        assert_eq!(talker.asked, 1);
    }

    #[test]
    fn a_reply_that_is_spoken_over_is_timed_until_it_is_silent() {
        let (mut talker, mut now) = (talker(), 0.0);
        talker.asked = 2;
        talker.questions = questions(40);
        run(&mut talker, &mut now, 1.3);
        talker
            .told(now, &json!({"type": "response.created"}))
            .unwrap();
        talker.told(now, &delta("i", 500)).unwrap();
        run(&mut talker, &mut now, 2.9);
        assert!(matches!(talker.step, Step::Over { .. }));
        let Step::Over { since, .. } = talker.step else {
            return;
        };
        run(&mut talker, &mut now, since + 0.09);
        talker
            .told(now, &json!({"type": "duologue.playout.pause"}))
            .unwrap();
        run(&mut talker, &mut now, since + 1.0);
        assert_eq!(talker.notes.barge_in.len(), 1);
        assert!(
            (talker.notes.barge_in[0].1 - 100.0).abs() < 30.0,
            "{:?}",
            talker.notes
        );
        assert!(talker.notes.underruns.is_empty(), "a held reply is no gap");
    }

    #[test]
    fn what_is_anothers_is_noticed() {
        let mut talker = talker();
        let said = |text: &str| json!({"type": "response.output_audio_transcript.done", "transcript": text});
        let understood = |text: &str| json!({"type": "conversation.item.input_audio_transcription.completed", "transcript": text});
        talker.told(1.0, &said("The word is apple.")).unwrap();
        talker
            .told(1.0, &understood("Where is the harbour?"))
            .unwrap();
        assert!(talker.notes.crossed.is_empty());
        talker.told(1.0, &said("The word is Lemon!")).unwrap();
        talker
            .told(
                1.0,
                &understood("Nobody of us ever asked anything like it."),
            )
            .unwrap();
        assert_eq!(talker.notes.crossed.len(), 2);
    }

    #[test]
    fn sound_that_comes_evenly_has_no_jitter() {
        let mut arrival = Arrival::default();
        let block = BLOCK as u64;
        assert_eq!(arrival.came(0.0, "i", 10 * block), None);
        assert_eq!(
            arrival.came(0.02, "i", block),
            None,
            "the first was much at once"
        );
        assert!(arrival.came(0.04, "i", block).unwrap() < 0.001);
        assert!((arrival.came(0.09, "i", block).unwrap() - 30.0).abs() < 0.001);
        assert_eq!(arrival.came(0.1, "j", block), None);
    }
}
