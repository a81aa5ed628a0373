//! What is left out when a conversation outgrows the context.
//!
//! The rule: whole turns, oldest first, never the system messages at the start and never the last turn. A turn is
//! what a user says and all that follows until the user speaks again. Once something must go, turns go until the
//! rest takes three quarters of the room, so that the cut does not move, and the cache is not lost, at every turn.

use std::ops::Range;

use crate::chat::{Message, Role};

/// Where the turns of a conversation lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turns {
    /// System messages at the start.
    head: usize,
    starts: Vec<usize>,
}

impl Turns {
    pub(super) fn of(messages: &[Message]) -> Self {
        let head = messages
            .iter()
            .take_while(|m| m.role == Role::System)
            .count();
        let mut starts: Vec<usize> = (head..messages.len())
            .filter(|&at| {
                at == head
                    || (messages[at].role == Role::User && messages[at - 1].role != Role::User)
            })
            .collect();
        if starts.is_empty() {
            starts.push(head);
        }
        Self { head, starts }
    }

    /// Messages left out when the first `turns` turns are.
    pub(super) fn left_out(&self, turns: usize) -> Range<usize> {
        self.head..self.starts[turns.min(self.starts.len() - 1)]
    }

    /// How many turns to leave out so that `size(turns left out)` is at most `room`; `before` is how many were
    /// left out last time. `Err` has the least size that there is.
    pub(super) fn fit<E>(
        &self,
        room: usize,
        before: usize,
        mut size: impl FnMut(usize) -> Result<usize, E>,
    ) -> Result<Result<usize, usize>, E> {
        if size(0)? <= room {
            return Ok(Ok(0));
        }
        let most = self.starts.len() - 1;
        if (1..=most).contains(&before) && size(before)? <= room {
            return Ok(Ok(before));
        }
        // Sizes shrink as turns go: search the fewest that leave a quarter free.
        let (mut low, mut high) = (1, most.max(1));
        while low < high {
            let middle = (low + high) / 2;
            if size(middle)? <= room * 3 / 4 {
                high = middle
            } else {
                low = middle + 1
            }
        }
        let least = size(low.min(most))?;
        Ok(if least <= room {
            Ok(low.min(most))
        } else {
            Err(least)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::convert::Infallible;

    fn conversation(turns: usize) -> Vec<Message> {
        let mut messages = vec![Message::system("s")];
        for turn in 0..turns {
            messages.push(Message::user(format!("q{turn}")));
            messages.push(Message::assistant("a"));
        }
        messages.push(Message::user("last"));
        messages
    }

    /// Every message takes ten tokens.
    fn fit(messages: &[Message], room: usize, before: usize) -> Result<usize, usize> {
        let turns = Turns::of(messages);
        let size =
            |out: usize| Ok::<_, Infallible>(10 * (messages.len() - turns.left_out(out).len()));
        turns.fit(room, before, size).unwrap()
    }

    #[test]
    fn nothing_goes_while_all_fits() {
        assert_eq!(fit(&conversation(3), 80, 0), Ok(0));
    }

    #[test]
    fn oldest_turns_go_until_a_quarter_is_free() {
        // 1 system + 10 turns of 2 + 1 last = 22 messages, 220 tokens; three quarters of 200 are 150.
        assert_eq!(fit(&conversation(10), 200, 0), Ok(4));
        assert_eq!(Turns::of(&conversation(10)).left_out(4), 1..9);
    }

    #[test]
    fn the_cut_stays_where_it_was_while_that_fits() {
        assert_eq!(fit(&conversation(13), 200, 4), Ok(4));
        assert_eq!(
            fit(&conversation(14), 200, 4),
            Ok(8),
            "no longer fits: cut anew"
        );
    }

    #[test]
    fn the_system_prompt_and_the_last_turn_never_go() {
        assert_eq!(fit(&conversation(5), 20, 0), Ok(5));
        assert_eq!(fit(&conversation(5), 19, 0), Err(20));
        assert_eq!(fit(&[Message::user("only")], 5, 0), Err(10));
    }

    #[test]
    fn an_interrupted_question_and_its_second_half_are_one_turn() {
        let messages = [
            Message::user("a"),
            Message::user("b"),
            Message::assistant("c"),
            Message::user("d"),
        ];
        assert_eq!(Turns::of(&messages).starts, [0, 3]);
    }

    #[test]
    fn tool_results_stay_with_their_question() {
        let messages = [
            Message::user("a"),
            Message::assistant(""),
            Message::tool("1", "x"),
            Message::user("b"),
        ];
        assert_eq!(Turns::of(&messages).left_out(1), 0..3);
    }
}
