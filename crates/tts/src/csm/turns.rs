//! Who is in the next pass, and how much each reads in it.
//!
//! A pass goes through the backbone once, over some steps of some sessions. Whoever has read all that stands before
//! their next frame gets that frame from it. Everybody who is in the pass reads one step at least, so that nobody's
//! frame waits for the end of somebody else's long text; what room is left goes to those who waited longest.
//!
//! Pure: it knows numbers, and runs nothing.

/// Where a session stands between two passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    /// Steps to be read before its next frame, 1 at least.
    pub unread: usize,
    /// Whether there is room for what the pass would make of it.
    pub has_room: bool,
    /// The number of the last pass it was in; 0 for one that was in none.
    pub last_pass: u64,
}

/// What passes are bounded by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    /// Sessions in a pass, 1 at least.
    pub sessions: usize,
    /// Steps in a pass, `sessions` at least.
    pub steps: usize,
}

/// How many steps each reads in the next pass, in the order that they were given; 0: it is not in it. All 0: nobody
/// can go on.
pub(super) fn shares(all: &[Standing], bounds: Bounds) -> Vec<usize> {
    let mut order: Vec<usize> = (0..all.len()).filter(|n| all[*n].has_room).collect();
    // The sort is stable: of those who waited equally long the one who came first.
    order.sort_by_key(|n| all[*n].last_pass);
    order.truncate(bounds.sessions);
    let mut shares = vec![0; all.len()];
    let mut left = bounds.steps.saturating_sub(order.len());
    for n in order {
        let more = (all[n].unread - 1).min(left);
        left -= more;
        shares[n] = 1 + more;
    }
    shares
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const BOUNDS: Bounds = Bounds {
        sessions: 3,
        steps: 10,
    };

    fn standing(unread: usize, has_room: bool, last_pass: u64) -> Standing {
        Standing {
            unread,
            has_room,
            last_pass,
        }
    }

    #[test]
    fn a_long_text_is_read_in_parts_while_others_speak() {
        let all = [
            standing(1, true, 4),
            standing(100, true, 0),
            standing(1, true, 4),
        ];
        assert_eq!(shares(&all, BOUNDS), [1, 8, 1]);
    }

    #[test]
    fn who_has_no_room_sits_out_and_of_too_many_those_who_waited_longest_go() {
        let all = [
            standing(1, true, 7),
            standing(1, false, 0),
            standing(1, true, 6),
            standing(2, true, 7),
            standing(1, true, 7),
        ];
        assert_eq!(shares(&all, BOUNDS), [1, 0, 1, 2, 0]);
        assert_eq!(shares(&[standing(1, false, 0)], BOUNDS), [0]);
        assert_eq!(shares(&[], BOUNDS), [0; 0]);
    }

    #[test]
    fn nobody_waits_longer_than_all_others_take_a_turn_each() {
        let mut random = StdRng::seed_from_u64(5);
        for sessions in 1..12_usize {
            let mut all = vec![standing(1, true, 0); sessions];
            let mut waited = vec![0; sessions];
            for pass in 1..200 {
                let given = shares(&all, BOUNDS);
                assert!(given.iter().sum::<usize>() <= BOUNDS.steps);
                assert!(given.iter().filter(|n| **n > 0).count() == sessions.min(3));
                for (n, share) in given.into_iter().enumerate() {
                    if share == 0 {
                        waited[n] += 1;
                        assert!(
                            waited[n] <= sessions.div_ceil(3),
                            "session {n} of {sessions}"
                        );
                        continue;
                    }
                    waited[n] = 0;
                    all[n].last_pass = pass;
                    all[n].unread -= share;
                    if all[n].unread == 0 {
                        all[n].unread = 1 + random.random::<u32>() as usize % 40;
                    }
                }
            }
        }
    }
}
