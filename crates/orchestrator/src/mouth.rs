//! When each frame of a reply leaves.
//!
//! One mouth a session decides it, on absolute deadlines: a sample is heard as long after the reply's first as
//! its position says, and a frame leaves a small lead before it is heard, to cover the network's jitter. So an
//! error never adds up, and an interruption never has more than the lead to throw away. What was sent is kept
//! for a while, so that a held reply can go on at the start of a word. It holds no clock and sends nothing; the
//! driver asks what is due.

use std::collections::VecDeque;
use std::time::Duration;

use duologue_audio::{FRAME_SAMPLES, Frame, SAMPLE_RATE};
use duologue_session::ReplyId;

/// Loudness of a ducked reply: -14 dB.
const DUCKED: f32 = 0.2;
/// Length of the fade at a cut, samples: 5 ms.
const FADE: u64 = 240;

/// Paces one session's frames. All times are since the session's start.
#[derive(Debug)]
pub struct Mouth {
    lead: Duration,
    keep: u64,
    playing: Option<Playing>,
    /// The frames that left last follow no other.
    begins: bool,
}

#[derive(Debug)]
struct Playing {
    reply: ReplyId,
    /// Samples from `base` on.
    samples: VecDeque<i16>,
    base: u64,
    /// The next sample to leave.
    cursor: u64,
    /// When the listener hears sample 0, had there been no gap and no hold; `None`: with the next frame.
    anchor: Option<Duration>,
    /// No sample will be added.
    complete: bool,
    held: bool,
    /// Gain of the last frame that left, and of the next.
    gain: (f32, f32),
}

impl Mouth {
    /// A mouth that runs at most `lead` ahead of the listener and can go back by `rewind`.
    #[must_use]
    pub fn new(lead: Duration, rewind: Duration) -> Self {
        Self {
            lead,
            keep: samples_in(rewind),
            playing: None,
            begins: false,
        }
    }

    /// Begins a reply; what was left of another one is dropped.
    pub fn begin(&mut self, reply: ReplyId) {
        self.playing = Some(Playing {
            reply,
            samples: VecDeque::new(),
            base: 0,
            cursor: 0,
            anchor: None,
            complete: false,
            held: false,
            gain: (1.0, 1.0),
        });
    }

    /// Adds samples. `None`: they are stale and were dropped; else how many the reply has by now.
    pub fn push(&mut self, reply: ReplyId, samples: &[i16]) -> Option<u64> {
        let playing = self.current(reply)?;
        playing.samples.extend(samples);
        Some(playing.end())
    }

    /// Drops what has not left from a sample on. `None`: the reply is another one; else how many samples it has by
    /// now.
    pub fn cut(&mut self, reply: ReplyId, at_sample: u64) -> Option<u64> {
        let playing = self.current(reply)?;
        let end = at_sample.clamp(playing.cursor, playing.end());
        playing.samples.truncate((end - playing.base) as usize);
        // What is left ends softly rather than with a click.
        let unsent = (end - playing.cursor).min(FADE) as usize;
        for (at, sample) in playing.samples.iter_mut().rev().take(unsent).enumerate() {
            *sample = (i64::from(*sample) * at as i64 / FADE as i64) as i16;
        }
        Some(end)
    }

    /// No more samples will come.
    pub fn complete(&mut self, reply: ReplyId) {
        if let Some(playing) = self.current(reply) {
            playing.complete = true;
        }
    }

    /// Sends nothing until [`resume`](Self::resume).
    pub fn hold(&mut self, reply: ReplyId) {
        if let Some(playing) = self.current(reply) {
            playing.held = true;
        }
    }

    /// Sends on, but softly.
    pub fn duck(&mut self, reply: ReplyId) {
        if let Some(playing) = self.current(reply) {
            playing.gain.1 = DUCKED;
        }
    }

    /// Goes on at a sample, or at the earliest one that is still kept, with a fade-in. Gives the position.
    pub fn resume(&mut self, reply: ReplyId, at_sample: u64) -> Option<u64> {
        let playing = self.current(reply)?;
        let was_held = std::mem::take(&mut playing.held);
        let at = at_sample.clamp(playing.base, playing.end());
        if was_held || at != playing.cursor {
            playing.cursor = at;
            playing.anchor = None;
            playing.gain.0 = 0.0;
        }
        playing.gain.1 = 1.0;
        Some(playing.cursor)
    }

    /// Drops a reply and all its samples.
    pub fn stop(&mut self, reply: ReplyId) {
        if self.current(reply).is_some() {
            self.playing = None;
        }
    }

    /// The frames that are to leave now, in order.
    pub fn due(&mut self, now: Duration) -> Vec<Frame> {
        let Some(playing) = &mut self.playing else {
            return Vec::new();
        };
        let mut frames = Vec::new();
        while playing.ready() {
            let cursor_time = time_of(playing.cursor);
            self.begins |= playing.anchor.is_none();
            let anchor = *playing
                .anchor
                .get_or_insert_with(|| now.saturating_sub(cursor_time));
            let heard_at = anchor + cursor_time;
            if heard_at > now + self.lead {
                break;
            }
            if heard_at + time_of(FRAME_SAMPLES as u64) <= now {
                // The listener ran dry: what follows is heard from now on.
                playing.anchor = Some(now.saturating_sub(cursor_time));
            }
            frames.push(playing.next_frame());
            let unneeded = playing.cursor.saturating_sub(self.keep + playing.base);
            playing.samples.drain(..unneeded as usize);
            playing.base += unneeded;
        }
        frames
    }

    /// When [`due`](Self::due) has the next frame, if it has one.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let playing = self.playing.as_ref().filter(|playing| playing.ready())?;
        Some(match playing.anchor {
            None => Duration::ZERO,
            Some(anchor) => (anchor + time_of(playing.cursor)).saturating_sub(self.lead),
        })
    }

    /// The reply, and the position before which all has left.
    #[must_use]
    pub fn sent(&self) -> Option<(ReplyId, u64)> {
        self.playing
            .as_ref()
            .map(|playing| (playing.reply, playing.cursor))
    }

    /// When the listener will have heard all that has left; `None` while it is held.
    #[must_use]
    pub fn heard_until(&self) -> Option<Duration> {
        let playing = self.playing.as_ref().filter(|playing| !playing.held)?;
        Some(playing.anchor? + time_of(playing.cursor))
    }

    /// Sound that waits.
    #[must_use]
    pub fn waiting(&self) -> Duration {
        self.playing.as_ref().map_or(Duration::ZERO, |playing| {
            time_of(playing.end() - playing.cursor)
        })
    }

    /// Whether all of the reply has left.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.playing
            .as_ref()
            .is_some_and(|playing| playing.complete && playing.cursor == playing.end())
    }

    /// Whether the frames that have left since this was last asked began the reply, or went on with it after it was
    /// held.
    pub fn has_begun(&mut self) -> bool {
        std::mem::take(&mut self.begins)
    }

    fn current(&mut self, reply: ReplyId) -> Option<&mut Playing> {
        self.playing
            .as_mut()
            .filter(|playing| playing.reply == reply)
    }
}

impl Playing {
    fn end(&self) -> u64 {
        self.base + self.samples.len() as u64
    }

    fn ready(&self) -> bool {
        let left = self.end() - self.cursor;
        !self.held && (left >= FRAME_SAMPLES as u64 || (self.complete && left > 0))
    }

    fn next_frame(&mut self) -> Frame {
        let first = (self.cursor - self.base) as usize;
        let mut frame = [0; FRAME_SAMPLES];
        let mut taken = 0;
        for (place, sample) in frame.iter_mut().zip(self.samples.range(first..)) {
            *place = *sample;
            taken += 1;
        }
        self.cursor += taken;
        let mut frame = Frame(frame);
        if self.gain != (1.0, 1.0) {
            frame.ramp(self.gain.0, self.gain.1);
            self.gain.0 = self.gain.1;
        }
        frame
    }
}

/// Length of a stretch of 48 kHz samples.
#[must_use]
pub fn time_of(samples: u64) -> Duration {
    Duration::from_micros(samples * 1_000_000 / u64::from(SAMPLE_RATE))
}

/// Samples at 48 kHz in a stretch of time.
#[must_use]
pub fn samples_in(time: Duration) -> u64 {
    (time.as_micros() as u64 * u64::from(SAMPLE_RATE)).div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: ReplyId = ReplyId(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A mouth with a reply of `frames` frames; frame n is full of n + 1.
    fn filled(frames: i16) -> Mouth {
        let mut mouth = Mouth::new(ms(100), ms(400));
        mouth.begin(REPLY);
        for value in 1..=frames {
            assert!(mouth.push(REPLY, &[value; FRAME_SAMPLES]).is_some());
        }
        mouth
    }

    /// Runs the clock in steps of 5 ms and lists (time, frames that left).
    fn run(mouth: &mut Mouth, from: u64, to: u64) -> Vec<(u64, usize)> {
        (from..to)
            .step_by(5)
            .map(|at| (at, mouth.due(ms(at)).len()))
            .filter(|(_, frames)| *frames > 0)
            .collect()
    }

    #[test]
    fn the_lead_leaves_at_once_and_then_a_frame_every_20_ms() {
        let mut mouth = filled(20);
        let sent = run(&mut mouth, 1_000, 1_100);
        assert_eq!(
            sent,
            [(1_000, 6), (1_020, 1), (1_040, 1), (1_060, 1), (1_080, 1)]
        );
        assert_eq!(mouth.deadline(), Some(ms(1_100)));
        assert_eq!(mouth.heard_until(), Some(ms(1_200)));
        mouth.hold(REPLY);
        assert_eq!(mouth.heard_until(), None);
    }

    #[test]
    fn a_late_tick_does_not_shift_later_frames() {
        let mut mouth = filled(20);
        mouth.due(ms(0));
        assert_eq!(mouth.due(ms(47)).len(), 2);
        assert_eq!(mouth.deadline(), Some(ms(60)));
    }

    #[test]
    fn nothing_leaves_while_held_and_then_the_next_sample_follows_the_last() {
        let mut mouth = filled(20);
        let sent = mouth.due(ms(0)).len() as u64 * FRAME_SAMPLES as u64;
        mouth.hold(REPLY);
        assert_eq!(run(&mut mouth, 10, 500), []);
        assert_eq!(mouth.deadline(), None);
        assert_eq!(mouth.resume(REPLY, sent), Some(sent));
        let frames = mouth.due(ms(500));
        assert_eq!(frames.len(), 6);
        // Faded in, then as loud as before.
        assert_eq!(frames[0].0[0], 0);
        assert_eq!(frames[1].0, [8; FRAME_SAMPLES]);
        assert!(mouth.has_begun());
    }

    #[test]
    fn a_held_reply_goes_on_in_the_middle_of_what_was_sent() {
        let mut mouth = filled(20);
        run(&mut mouth, 0, 100);
        mouth.hold(REPLY);
        assert_eq!(mouth.resume(REPLY, 1_500), Some(1_500));
        assert_eq!(mouth.sent(), Some((REPLY, 1_500)));
        let frames = mouth.due(ms(200));
        assert_eq!(frames[1].0[0], 3);
        assert_eq!(mouth.sent(), Some((REPLY, 1_500 + 6 * 960)));
    }

    #[test]
    fn it_goes_back_no_further_than_what_is_kept() {
        let mut mouth = filled(100);
        run(&mut mouth, 0, 1_500);
        let (_, sent) = mouth.sent().unwrap_or((REPLY, 0));
        mouth.hold(REPLY);
        assert_eq!(mouth.resume(REPLY, 0), Some(sent - samples_in(ms(400))));
    }

    #[test]
    fn what_has_not_left_can_be_cut_off_and_what_has_left_cannot() {
        let mut mouth = filled(20);
        let left = mouth.due(ms(0)).len() as u64 * FRAME_SAMPLES as u64;
        assert_eq!(mouth.cut(REPLY, left + 1_000), Some(left + 1_000));
        assert_eq!(mouth.push(REPLY, &[9; 920]), Some(left + 1_920));
        let frames = run(&mut mouth, 5, 1_000);
        assert_eq!(frames.len(), 2);
        assert_eq!(mouth.cut(REPLY, 0), Some(left + 1_920));
        assert_eq!(mouth.cut(ReplyId(2), 0), None);
    }

    #[test]
    fn a_ducked_reply_goes_on_softly_until_it_is_resumed() {
        let mut mouth = Mouth::new(ms(0), ms(0));
        mouth.begin(REPLY);
        mouth.push(REPLY, &[1_000; 4 * FRAME_SAMPLES]);
        mouth.duck(REPLY);
        mouth.due(ms(0));
        assert_eq!(mouth.due(ms(20))[0].0, [200; FRAME_SAMPLES]);
        let at = mouth.sent().map_or(0, |(_, at)| at);
        mouth.resume(REPLY, at);
        mouth.due(ms(40));
        assert_eq!(mouth.due(ms(60))[0].0, [1_000; FRAME_SAMPLES]);
    }

    #[test]
    fn samples_of_another_generation_never_leave() {
        let mut mouth = filled(3);
        mouth.begin(ReplyId(2));
        assert_eq!(mouth.push(REPLY, &[9; 960]), None);
        assert_eq!(mouth.waiting(), ms(0));
        mouth.stop(REPLY);
        assert!(mouth.push(ReplyId(2), &[1; 960]).is_some());
        mouth.stop(ReplyId(2));
        assert!(mouth.due(ms(0)).is_empty());
    }

    #[test]
    fn after_running_dry_the_pace_starts_anew() {
        let mut mouth = filled(2);
        mouth.due(ms(0));
        assert!(mouth.has_begun());
        mouth.push(REPLY, &[1; 20 * FRAME_SAMPLES]);
        assert_eq!(mouth.due(ms(1_000)).len(), 6);
        assert!(!mouth.has_begun(), "it is still the same sound");
        assert_eq!(mouth.deadline(), Some(ms(1_020)));
    }

    #[test]
    fn the_last_frame_is_padded_once_no_more_can_come() {
        let mut mouth = Mouth::new(ms(100), ms(0));
        mouth.begin(REPLY);
        mouth.push(REPLY, &[5; 1_000]);
        assert_eq!(mouth.due(ms(0)).len(), 1);
        assert_eq!(mouth.deadline(), None);
        mouth.complete(REPLY);
        assert!(!mouth.finished());
        let last = mouth.due(ms(0));
        assert_eq!((last[0].0[39], last[0].0[40]), (5, 0));
        assert!(mouth.finished());
        assert_eq!(mouth.sent(), Some((REPLY, 1_000)));
    }
}
