//! The paced writer, and where the listener is.

use crate::ReplyId;
use crate::playout::{duration, samples};
use std::time::Duration;

/// Samples of a frame.
const FRAME: u64 = 960;

/// Sends a reply's frames when they are due: a sample is heard as long after the first as its position says, and
/// leaves `lead` before.
pub(super) struct Mouth {
    lead: Duration,
    playing: Option<Playing>,
    /// A wake-up is on its way.
    waking: bool,
}

struct Playing {
    reply: ReplyId,
    made: u64,
    complete: bool,
    cursor: u64,
    furthest: u64,
    /// When sample 0 would be heard.
    anchor: Option<Duration>,
    held: bool,
}

impl Playing {
    fn ready(&self) -> bool {
        let left = self.made - self.cursor;
        !self.held && (left >= FRAME || (self.complete && left > 0))
    }
}

impl Mouth {
    pub fn new(lead: Duration) -> Self {
        Self {
            lead,
            playing: None,
            waking: false,
        }
    }

    pub fn begin(&mut self, reply: ReplyId) {
        self.playing = Some(Playing {
            reply,
            made: 0,
            complete: false,
            cursor: 0,
            furthest: 0,
            anchor: None,
            held: false,
        });
    }

    fn current(&mut self, reply: ReplyId) -> Option<&mut Playing> {
        self.playing
            .as_mut()
            .filter(|playing| playing.reply == reply)
    }

    pub fn made(&mut self, reply: ReplyId, samples: u64) {
        if let Some(playing) = self.current(reply) {
            playing.made = playing.made.max(samples);
        }
    }

    pub fn ended(&mut self, reply: ReplyId) {
        if let Some(playing) = self.current(reply) {
            playing.complete = true;
        }
    }

    pub fn hold(&mut self, reply: ReplyId) {
        if let Some(playing) = self.current(reply) {
            playing.held = true;
        }
    }

    /// Goes on there; gives the position.
    pub fn resume(&mut self, reply: ReplyId, at_sample: u64) -> Option<u64> {
        let playing = self.current(reply)?;
        let was_held = std::mem::take(&mut playing.held);
        let at = at_sample.min(playing.made);
        if was_held || at != playing.cursor {
            playing.cursor = at;
            playing.anchor = None;
        }
        Some(playing.cursor)
    }

    pub fn stop(&mut self, reply: ReplyId) {
        if self.current(reply).is_some() {
            self.playing = None;
        }
    }

    /// Sends what is due; the position then, if there was something.
    pub fn due(&mut self, now: Duration) -> Option<(ReplyId, u64)> {
        let lead = self.lead;
        let playing = self.playing.as_mut()?;
        let before = playing.cursor;
        while playing.ready() {
            let at = duration(playing.cursor);
            let mut anchor = *playing.anchor.get_or_insert_with(|| now.saturating_sub(at));
            if anchor + at > now + lead {
                break;
            }
            if anchor + at + duration(FRAME) <= now {
                // The listener ran dry.
                anchor = now.saturating_sub(at);
                playing.anchor = Some(anchor);
            }
            playing.cursor += FRAME.min(playing.made - playing.cursor);
        }
        playing.furthest = playing.furthest.max(playing.cursor);
        (playing.cursor > before).then_some((playing.reply, playing.cursor))
    }

    /// When it wants to be woken; once.
    pub fn wants_waking(&mut self) -> Option<Duration> {
        if self.waking {
            return None;
        }
        let lead = self.lead;
        let playing = self.playing.as_ref().filter(|playing| playing.ready())?;
        let at = (playing.anchor? + duration(playing.cursor)).saturating_sub(lead);
        self.waking = true;
        Some(at)
    }

    pub fn woken(&mut self) {
        self.waking = false;
    }

    /// How far the listener had come by then, and whether there is more to come.
    pub fn played(&self, then: Duration) -> Option<(ReplyId, u64, bool)> {
        let playing = self.playing.as_ref()?;
        let position = playing
            .anchor
            .map_or(0, |anchor| samples(then.saturating_sub(anchor)))
            .min(playing.furthest);
        let more = position < playing.made || !playing.complete;
        (position > 0).then_some((playing.reply, position, more))
    }
}
