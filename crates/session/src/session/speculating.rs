//! A reply begun at a silence that may be the end of the turn.
//!
//! Deciding that a turn is over takes longer than writing down what was said. In between, the model may already
//! answer what it would be asked if the turn were over. If it is, the answer has a head start; if the user goes on,
//! or anything else of what the model was asked changes, it is thrown away. There is at most one, for one revision
//! of one turn; nothing of it reaches the client or the history, and no function is called, before it is used.

use super::Session;
use crate::{
    Action, Content, Item, ItemKind, ItemStatus, ReplyId, ReplyOptions, Role, Speculation, State,
    TurnId,
};

/// What the model was asked, and for which turn.
#[derive(Debug)]
pub(super) struct Speculated {
    turn: TurnId,
    revision: u32,
    reply: ReplyId,
    history: Vec<Item>,
    options: ReplyOptions,
}

impl Session {
    /// Begins a reply if the turn may be over, and drops one that was begun for a turn that is no more.
    pub(super) fn speculate(&mut self) {
        let turn = self.turn.as_ref().filter(|turn| {
            turn.ended.is_none() && turn.silent_since().is_some() && !turn.unanswered
        });
        let (Some(turn), State::Listening, None) = (turn, self.state, &self.reply) else {
            return self.drop_speculation();
        };
        let (id, revision) = (turn.id, turn.revision);
        if let Some(speculated) = &self.speculated {
            if (speculated.turn, speculated.revision) != (id, revision) {
                self.drop_speculation();
            }
            return;
        }
        let config = &self.next_config;
        let Some(Ok(words)) = turn.words.as_ref().filter(|words| {
            config.speculation == Speculation::On
                && self.creates_replies()
                && self.wanted.is_none()
                && self.ending.is_none()
                && self.awaited.iter().all(|awaited| awaited.due.is_none())
                && words.as_ref().is_ok_and(|words| !words.is_empty())
        }) else {
            return;
        };
        let before = self.conversation.get(&turn.item).map(Item::text);
        let text = match before.filter(|before| turn.continues && !before.is_empty()) {
            Some(before) => format!("{before} {words}"),
            None => words.clone(),
        };
        let message = Item {
            id: turn.item.clone(),
            status: ItemStatus::Completed,
            kind: ItemKind::Message {
                role: Role::User,
                content: vec![Content::Audio {
                    transcript: Some(text),
                }],
            },
        };
        let reply = ReplyId(self.last_reply.0 + 1);
        let history = self
            .conversation
            .history_with(message, config.limits.history_tokens);
        let options = config.reply.clone();
        self.counters.speculations += 1;
        self.act(Action::Speculate {
            reply,
            history: history.clone(),
            options: Box::new(options.clone()),
        });
        self.speculated = Some(Speculated {
            turn: id,
            revision,
            reply,
            history,
            options,
        });
    }

    /// Whether what the model is to be asked now is what it was asked before.
    pub(super) fn keep_speculation(
        &mut self,
        reply: ReplyId,
        history: &[Item],
        options: &ReplyOptions,
    ) -> bool {
        let same = self.speculated.take_if(|speculated| {
            speculated.reply == reply
                && speculated.history == history
                && speculated.options == *options
        });
        match same {
            Some(_) => self.counters.speculations_kept += 1,
            None => self.drop_speculation(),
        }
        same.is_some()
    }

    fn drop_speculation(&mut self) {
        if let Some(speculated) = self.speculated.take() {
            self.act(Action::CancelSpeculation {
                reply: speculated.reply,
            });
        }
    }
}
