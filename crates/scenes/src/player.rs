//! The client's loudspeaker: what has come and is not played, and how far each message has been played.

use std::collections::VecDeque;

use crate::{BLOCK, RATE};

/// A stretch of one message's audio.
#[derive(Debug)]
struct Stretch {
    item: String,
    /// Position of its first sample.
    from: u64,
    samples: VecDeque<i16>,
}

/// What was played in a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// The sound; silence where there was nothing to play.
    pub samples: Vec<i16>,
    /// Of which message, from and to which of its samples; `None`: nothing was.
    pub part: Option<(String, u64, u64)>,
}

/// Plays what comes as it comes, or after it has gathered some of it.
#[derive(Debug, Default)]
pub struct Player {
    queue: VecDeque<Stretch>,
    /// Samples to gather before it begins to play.
    gather: usize,
    gathering: bool,
    /// Blocks for which it has been gathering.
    gathered_for: usize,
    held: bool,
    /// The message that was played last, and the furthest position of it.
    last: Option<(String, u64)>,
}

impl Player {
    /// A player that gathers so many milliseconds before it plays.
    #[must_use]
    pub fn new(buffer_ms: u64) -> Self {
        Self {
            gather: (buffer_ms * u64::from(RATE) / 1_000) as usize,
            gathering: true,
            ..Self::default()
        }
    }

    /// Takes sound of a message, which begins at that position of it.
    pub fn push(&mut self, item: &str, from: u64, samples: &[i16]) {
        match self.queue.back_mut() {
            Some(stretch)
                if stretch.item == item && stretch.from + stretch.samples.len() as u64 == from =>
            {
                stretch.samples.extend(samples);
            }
            _ => self.queue.push_back(Stretch {
                item: item.to_owned(),
                from,
                samples: samples.iter().copied().collect(),
            }),
        }
    }

    /// Stops, and keeps what it has.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Goes on; what it has of the message from that position on will come again.
    pub fn resume(&mut self, item: &str, at: u64) {
        self.held = false;
        for stretch in &mut self.queue {
            if stretch.item == item {
                let keep = at.saturating_sub(stretch.from) as usize;
                stretch.samples.truncate(keep);
            }
        }
        self.queue.retain(|stretch| !stretch.samples.is_empty());
    }

    /// Goes on with what it has.
    pub fn go_on(&mut self) {
        self.held = false;
    }

    /// Drops what it has.
    pub fn clear(&mut self) {
        self.held = false;
        self.queue.clear();
        self.gathering = true;
        self.gathered_for = 0;
    }

    /// Whether nothing waits to be played.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The message that was played last, and the milliseconds of it that were played.
    #[must_use]
    pub fn position(&self) -> Option<(&str, u64)> {
        let (item, samples) = self.last.as_ref()?;
        Some((item, samples * 1_000 / u64::from(RATE)))
    }

    /// Plays a block.
    pub fn block(&mut self) -> Played {
        let nothing = Played {
            samples: vec![0; BLOCK],
            part: None,
        };
        if self.held {
            return nothing;
        }
        let Some(stretch) = self.queue.front_mut() else {
            self.gathering = true;
            self.gathered_for = 0;
            return nothing;
        };
        if self.gathering {
            // What is shorter than the buffer is played all the same.
            self.gathered_for += 1;
            if stretch.samples.len() < self.gather && self.gathered_for * BLOCK <= 2 * self.gather {
                return nothing;
            }
            self.gathering = false;
        }
        let ready = stretch.samples.len().min(BLOCK);
        let mut samples: Vec<i16> = stretch.samples.drain(..ready).collect();
        samples.resize(BLOCK, 0);
        let (from, to) = (stretch.from, stretch.from + ready as u64);
        stretch.from = to;
        let item = stretch.item.clone();
        if stretch.samples.is_empty() {
            self.queue.pop_front();
        }
        self.last = match self.last.take() {
            Some((last, most)) if last == item => Some((last, most.max(to))),
            _ => Some((item.clone(), to)),
        };
        Played {
            samples,
            part: Some((item, from, to)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = BLOCK as u64;

    fn parts(player: &mut Player, blocks: usize) -> Vec<Option<(u64, u64)>> {
        (0..blocks)
            .map(|_| player.block().part.map(|(_, from, to)| (from, to)))
            .collect()
    }

    #[test]
    fn it_gathers_before_it_plays_and_plays_a_short_rest_all_the_same() {
        let mut player = Player::new(40);
        player.push("a", 0, &[1; BLOCK]);
        assert_eq!(parts(&mut player, 1), [None]);
        player.push("a", B, &[1; 2 * BLOCK]);
        assert_eq!(
            parts(&mut player, 4),
            [Some((0, B)), Some((B, 2 * B)), Some((2 * B, 3 * B)), None]
        );
        player.push("b", 0, &[1; 10]);
        assert!(parts(&mut player, 6).contains(&Some((0, 10))));
        assert_eq!(player.position(), Some(("b", 0)));
    }

    #[test]
    fn a_held_player_goes_on_where_it_is_told_to() {
        let mut player = Player::new(0);
        player.push("a", 0, &[1; 4 * BLOCK]);
        assert_eq!(parts(&mut player, 2), [Some((0, B)), Some((B, 2 * B))]);
        player.hold();
        assert_eq!(parts(&mut player, 1), [None]);
        // Half a block before where it stopped: that is said again, and the rest comes anew.
        player.resume("a", 3 * B / 2);
        player.push("a", 3 * B / 2, &[2; BLOCK]);
        assert_eq!(parts(&mut player, 2), [Some((3 * B / 2, 5 * B / 2)), None]);
        // Beyond where it stopped: what it has until there is played first.
        player.push("a", 5 * B / 2, &[3; 3 * BLOCK]);
        player.hold();
        player.resume("a", 7 * B / 2);
        player.push("a", 7 * B / 2, &[4; BLOCK]);
        assert_eq!(
            parts(&mut player, 3),
            [
                Some((5 * B / 2, 7 * B / 2)),
                Some((7 * B / 2, 9 * B / 2)),
                None
            ]
        );
        player.push("a", 9 * B / 2, &[5; BLOCK]);
        player.clear();
        assert!(player.is_empty());
        assert_eq!(
            player.position(),
            Some(("a", 9 * B / 2 * 1_000 / u64::from(RATE)))
        );
    }
}
