//! Which conversation's tokens lie in which part of the cache. Pure: the engine mirrors these decisions in
//! llama.cpp's memory.
//!
//! A slot is one sequence of the cache. A conversation keeps its slot between turns; when a new one comes and no
//! slot is empty, the one that was silent longest loses its own and is read anew when it speaks again.

/// The sequences of one cache.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    clock: u64,
}

/// One sequence.
#[derive(Debug)]
pub(super) struct Slot<T> {
    /// Whose it is; `None` when empty.
    pub(super) conversation: Option<String>,
    /// The tokens in the cache, from position 0.
    pub(super) tokens: Vec<T>,
    /// Turns left out of the prompt last time, so that the cut moves seldom.
    pub(super) dropped_turns: usize,
    busy: bool,
    used: u64,
}

impl<T: PartialEq + Copy> Slots<T> {
    pub(super) fn new(count: usize) -> Self {
        let empty = || Slot {
            conversation: None,
            tokens: Vec::new(),
            dropped_turns: 0,
            busy: false,
            used: 0,
        };
        Self {
            slots: (0..count).map(|_| empty()).collect(),
            clock: 0,
        }
    }

    pub(super) fn get(&mut self, index: usize) -> &mut Slot<T> {
        &mut self.slots[index]
    }

    /// Takes a slot for `conversation`: its own, else an empty one, else the one idle longest. `None` when its own
    /// is in use or all are. A slot that changes hands keeps its tokens: they may begin alike.
    pub(super) fn take(&mut self, conversation: &str) -> Option<usize> {
        let own = self
            .slots
            .iter()
            .position(|s| s.conversation.as_deref() == Some(conversation));
        let index = match own {
            Some(own) if self.slots[own].busy => return None,
            Some(own) => own,
            None => {
                let idle = self.slots.iter().enumerate().filter(|(_, slot)| !slot.busy);
                idle.min_by_key(|(_, slot)| (slot.conversation.is_some(), slot.used))?
                    .0
            }
        };
        let slot = &mut self.slots[index];
        if own.is_none() {
            slot.conversation = Some(conversation.to_owned());
            slot.dropped_turns = 0;
        }
        slot.busy = true;
        Some(index)
    }

    /// Gives a slot back; its tokens stay for the conversation's next turn.
    pub(super) fn give_back(&mut self, index: usize) {
        self.clock += 1;
        self.slots[index].busy = false;
        self.slots[index].used = self.clock;
    }

    /// Empties the slot of a conversation that has ended, unless it is in use; tells which it was.
    pub(super) fn forget(&mut self, conversation: &str) -> Option<usize> {
        let own = |slot: &Slot<T>| slot.conversation.as_deref() == Some(conversation) && !slot.busy;
        let index = self.slots.iter().position(own)?;
        self.slots[index].conversation = None;
        self.slots[index].tokens.clear();
        Some(index)
    }

    /// How many tokens of `prompt` the slot holds from its start.
    pub(super) fn common(&self, index: usize, prompt: &[T]) -> usize {
        let pairs = self.slots[index].tokens.iter().zip(prompt);
        pairs
            .take_while(|(cached, wanted)| cached == wanted)
            .count()
    }

    /// The slot that holds most of `prompt`'s beginning, and how much.
    pub(super) fn best(&self, prompt: &[T]) -> (usize, usize) {
        let common = (0..self.slots.len()).map(|index| (index, self.common(index, prompt)));
        common.max_by_key(|(_, common)| *common).unwrap_or((0, 0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_conversation_finds_its_own_slot_again() {
        let mut slots = Slots::<u32>::new(2);
        let a = slots.take("a").unwrap();
        slots.get(a).tokens = vec![1, 2, 3];
        slots.give_back(a);
        let b = slots.take("b").unwrap();
        assert_ne!(a, b);
        assert_eq!(slots.take("a"), Some(a));
        assert_eq!(slots.common(a, &[1, 2, 9]), 2);
    }

    #[test]
    fn the_conversation_silent_longest_makes_room() {
        let mut slots = Slots::<u32>::new(2);
        for name in ["a", "b", "a"] {
            let index = slots.take(name).unwrap();
            slots.give_back(index);
        }
        let b = slots.take("b").unwrap();
        slots.give_back(b);
        let a = slots.take("a").unwrap();
        assert_eq!(slots.take("c"), Some(b), "b is idle, a is speaking");
        assert_eq!(slots.take("d"), None, "both are in use");
        assert_eq!(
            slots.take("a"),
            None,
            "one request of a conversation at a time"
        );
        slots.give_back(a);
        assert_eq!(slots.take("d"), Some(a));
    }

    #[test]
    fn an_ended_conversation_leaves_an_empty_slot_that_is_taken_first() {
        let mut slots = Slots::<u32>::new(2);
        for name in ["a", "b"] {
            let index = slots.take(name).unwrap();
            slots.give_back(index);
        }
        let b = slots.forget("b").unwrap();
        assert_eq!(slots.take("c"), Some(b));
        assert_eq!(slots.forget("c"), None, "in use");
    }

    #[test]
    fn a_shared_beginning_is_found_in_any_slot() {
        let mut slots = Slots::<u32>::new(2);
        let a = slots.take("a").unwrap();
        slots.get(a).tokens = vec![1, 2, 3];
        assert_eq!(slots.best(&[1, 2, 4, 5]), (a, 2));
    }
}
