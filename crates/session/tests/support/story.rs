//! What came of it: what was done and told, and when.

use super::World;
use duologue_session::{Action, Item, ItemKind, Notice, ReplyOutcome, Role, State};
use std::time::Duration;

impl World {
    pub fn state(&self) -> State {
        self.session.state()
    }

    pub fn notices(&self) -> Vec<&Notice> {
        self.log
            .iter()
            .filter_map(|(_, action)| match action {
                Action::Emit(notice) => Some(notice),
                _ => None,
            })
            .collect()
    }

    pub fn when(&self, wanted: impl Fn(&Action) -> bool) -> Option<Duration> {
        self.log
            .iter()
            .find(|(_, action)| wanted(action))
            .map(|(at, _)| *at)
    }

    pub fn when_told(&self, wanted: impl Fn(&Notice) -> bool) -> Option<Duration> {
        self.when(|action| matches!(action, Action::Emit(notice) if wanted(notice)))
    }

    pub fn count(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|(_, action)| wanted(action)).count()
    }

    pub fn outcomes(&self) -> Vec<&ReplyOutcome> {
        self.notices()
            .into_iter()
            .filter_map(|notice| match notice {
                Notice::ReplyDone(outcome) => Some(&**outcome),
                _ => None,
            })
            .collect()
    }

    /// The conversation, a line an item.
    pub fn conversation(&self) -> Vec<String> {
        self.session.items().iter().map(line).collect()
    }

    /// What the model was given last.
    pub fn last_prompt(&self) -> Vec<String> {
        self.log
            .iter()
            .rev()
            .find_map(|(_, action)| match action {
                Action::Prompt { history, .. } => Some(history.iter().map(line).collect()),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// Everything that happened, for a failed test's message.
    pub fn story(&self) -> String {
        self.log
            .iter()
            .map(|(at, action)| format!("{:>7} {action:?}\n", at.as_millis()))
            .collect()
    }
}

fn line(item: &Item) -> String {
    match &item.kind {
        ItemKind::Message { role, .. } => {
            let who = match role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            format!("{who}: {}", item.text())
        }
        ItemKind::FunctionCall { name, .. } => format!("call: {name}"),
        ItemKind::FunctionCallOutput { output, .. } => format!("output: {output}"),
    }
}
