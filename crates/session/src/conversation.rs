//! The items of a conversation, in order, and the part of them that a model is given.

use crate::{Content, Item, ItemId, ItemKind, ItemStatus, Place, Role};
use std::collections::HashSet;

/// Characters a token, for bounding the history.
const CHARS_PER_TOKEN: usize = 4;
/// What an item costs beside its text, tokens.
const ITEM_TOKENS: usize = 4;

#[derive(Clone, Debug, Default)]
pub(crate) struct Conversation {
    items: Vec<Item>,
}

/// Why an item was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddError {
    /// There is one of that name.
    Exists,
    /// The item to put it after is not there.
    NoPrevious,
}

impl Conversation {
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub fn get(&self, id: &ItemId) -> Option<&Item> {
        self.items.iter().find(|item| item.id == *id)
    }

    pub fn get_mut(&mut self, id: &ItemId) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == *id)
    }

    /// The item before this one.
    pub fn previous(&self, id: &ItemId) -> Option<ItemId> {
        let at = self.items.iter().position(|item| item.id == *id)?;
        Some(self.items.get(at.checked_sub(1)?)?.id.clone())
    }

    pub fn last_id(&self) -> Option<ItemId> {
        self.items.last().map(|item| item.id.clone())
    }

    pub fn add(&mut self, item: Item, place: &Place) -> Result<(), AddError> {
        if self.get(&item.id).is_some() {
            return Err(AddError::Exists);
        }
        let at = match place {
            Place::End => self.items.len(),
            Place::Start => 0,
            Place::After(id) => {
                1 + self
                    .items
                    .iter()
                    .position(|item| item.id == *id)
                    .ok_or(AddError::NoPrevious)?
            }
        };
        self.items.insert(at, item);
        Ok(())
    }

    pub fn remove(&mut self, id: &ItemId) -> bool {
        let before = self.items.len();
        self.items.retain(|item| item.id != *id);
        self.items.len() < before
    }

    /// Drops the oldest item, if there are more than `items` or they take more than `bytes`; its name. System messages
    /// go when nothing else is left; the newest item and one that is being made stay.
    pub fn drop_oldest(&mut self, items: usize, bytes: usize) -> Option<ItemId> {
        let taken: usize = self.items.iter().map(size).sum();
        if self.items.len() <= items.max(1) && taken <= bytes {
            return None;
        }
        let (_, older) = self.items.split_last()?;
        let whole = |item: &Item| item.status != ItemStatus::InProgress;
        let at = older
            .iter()
            .position(|item| whole(item) && item.role() != Some(Role::System))
            .or_else(|| older.iter().position(whole))?;
        Some(self.items.remove(at).id)
    }

    /// What a model is given: the newest items that fit into `budget` tokens, and all system messages. The newest
    /// message is given even if it alone is too long. Left out besides: messages without words, replies still being
    /// made, calls without an output and outputs without a call.
    pub fn history(&self, budget: usize) -> Vec<Item> {
        bounded(&self.items, budget)
    }

    /// The same, if `item` were there: in the place of the one of its name, or else at the end.
    pub fn history_with(&self, item: Item, budget: usize) -> Vec<Item> {
        let mut items = self.items.clone();
        match items.iter_mut().find(|known| known.id == item.id) {
            Some(known) => *known = item,
            None => items.push(item),
        }
        bounded(&items, budget)
    }
}

/// See [`Conversation::history`].
pub(crate) fn bounded(items: &[Item], budget: usize) -> Vec<Item> {
    let calls: HashSet<&str> = items.iter().filter_map(called).collect();
    let answered: HashSet<&str> = items
        .iter()
        .filter_map(answers)
        .filter(|id| calls.contains(id))
        .collect();
    let useful: Vec<&Item> = items
        .iter()
        .filter(|item| is_useful(item, &answered))
        .collect();
    let system: usize = useful
        .iter()
        .filter(|item| item.role() == Some(Role::System))
        .map(|i| tokens(i))
        .sum();
    let mut left = budget.saturating_sub(system);
    let mut kept = HashSet::new();
    let (mut full, mut any) = (false, false);
    for item in useful.iter().rev() {
        if item.role() == Some(Role::System) {
            kept.insert(&item.id);
            continue;
        }
        let cost = tokens(item);
        full |= any && cost > left;
        if full {
            continue;
        }
        any = true;
        left = left.saturating_sub(cost);
        kept.insert(&item.id);
    }
    // A call and its output stand or fall together.
    let kept_calls: HashSet<&str> = useful
        .iter()
        .filter(|i| kept.contains(&i.id))
        .filter_map(|i| called(i))
        .collect();
    useful
        .into_iter()
        .filter(|item| {
            kept.contains(&item.id) && answers(item).is_none_or(|id| kept_calls.contains(id))
        })
        .cloned()
        .collect()
}

fn called(item: &Item) -> Option<&str> {
    match &item.kind {
        ItemKind::FunctionCall { call_id, .. } => Some(call_id),
        _ => None,
    }
}

fn answers(item: &Item) -> Option<&str> {
    match &item.kind {
        ItemKind::FunctionCallOutput { call_id, .. } => Some(call_id),
        _ => None,
    }
}

fn is_useful(item: &Item, answered: &HashSet<&str>) -> bool {
    match &item.kind {
        ItemKind::Message { .. } => {
            item.status != ItemStatus::InProgress && !item.text().trim().is_empty()
        }
        ItemKind::FunctionCall { call_id, .. } | ItemKind::FunctionCallOutput { call_id, .. } => {
            answered.contains(call_id.as_str())
        }
    }
}

/// Bytes that an item takes.
fn size(item: &Item) -> usize {
    let text = match &item.kind {
        ItemKind::Message { content, .. } => content
            .iter()
            .map(|part| match part {
                Content::Text(text) => text.len(),
                Content::Audio { transcript } => transcript.as_ref().map_or(0, String::len),
            })
            .sum(),
        ItemKind::FunctionCall {
            call_id,
            name,
            arguments,
        } => call_id.len() + name.len() + arguments.len(),
        ItemKind::FunctionCallOutput { call_id, output } => call_id.len() + output.len(),
    };
    size_of::<Item>() + item.id.0.len() + text
}

fn tokens(item: &Item) -> usize {
    let chars = match &item.kind {
        ItemKind::Message { content, .. } => content
            .iter()
            .map(|part| match part {
                Content::Text(text) => text.chars().count(),
                Content::Audio { transcript } => {
                    transcript.as_deref().map_or(0, |text| text.chars().count())
                }
            })
            .sum(),
        ItemKind::FunctionCall {
            name, arguments, ..
        } => name.chars().count() + arguments.chars().count(),
        ItemKind::FunctionCallOutput { output, .. } => output.chars().count(),
    };
    ITEM_TOKENS + chars.div_ceil(CHARS_PER_TOKEN)
}
