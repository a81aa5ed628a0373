//! Markup that models put into their text for programs to read: calls of tools and silent reasoning.
//!
//! Neither may reach the voice. A tag may arrive split over any number of deltas, so text that could still become
//! one is held back, and nothing else is. Small models often forget the tags and write the call's JSON alone, so
//! with tools at hand a reply that begins as JSON is held back too, until its end shows what it is.

use crate::chat::ToolCall;

const THINK: (&str, &str) = ("<think>", "</think>");
const CALL: (&str, &str) = ("<tool_call>", "</tool_call>");
const FENCE: &str = "```json";
/// A call longer than this is not one.
const MAX_CALL_BYTES: usize = 64 * 1024;

/// What was found in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// What stood between the tags of a call.
    Call(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// Nothing but white space has come.
    Start,
    Text,
    /// A reply that begins as JSON.
    Json,
    Thought,
    Call,
}

/// Takes the markup out of a stream of text.
#[derive(Debug)]
pub(crate) struct TagFilter {
    within: Within,
    held: String,
    calls: bool,
    /// Line breaks after a thought belong to it.
    trim: bool,
}

impl TagFilter {
    /// `calls`: whether `<tool_call>` is markup, or text like any other.
    pub(crate) fn new(calls: bool) -> Self {
        let within = if calls { Within::Start } else { Within::Text };
        Self {
            within,
            held: String::new(),
            calls,
            trim: false,
        }
    }

    /// Adds text; gives what is settled.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        pieces
    }

    /// The text has ended. A call that was not closed counts as one; an unclosed thought is dropped.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        match self.within {
            Within::Json if is_call(&held) => vec![Piece::Call(unfenced(&held).to_owned())],
            Within::Start | Within::Text | Within::Json if !held.is_empty() => {
                vec![Piece::Text(held)]
            }
            Within::Call => vec![Piece::Call(held)],
            _ => Vec::new(),
        }
    }

    /// Settles one stretch; false when more text is needed.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.within {
            Within::Start => {
                let begun = self.held.trim_start();
                let could_be = |mark: &str| !begun.is_empty() && mark.starts_with(begun);
                if begun.starts_with('{') || begun.starts_with(FENCE) {
                    self.within = Within::Json;
                } else if begun.is_empty() || could_be(FENCE) {
                    return false;
                } else {
                    self.within = Within::Text;
                }
                true
            }
            Within::Json => {
                if self.held.len() > MAX_CALL_BYTES {
                    self.within = Within::Text;
                    return true;
                }
                false
            }
            Within::Text => {
                if self.trim {
                    let rest = self.held.trim_start();
                    if rest.is_empty() {
                        self.held.clear();
                        return false;
                    }
                    self.held = rest.to_owned();
                    self.trim = false;
                }
                let thought = self
                    .held
                    .find(THINK.0)
                    .map(|at| (at, THINK.0, Within::Thought));
                let call = if self.calls {
                    self.held.find(CALL.0)
                } else {
                    None
                };
                let call = call.map(|at| (at, CALL.0, Within::Call));
                if let Some((at, tag, within)) =
                    thought.into_iter().chain(call).min_by_key(|found| found.0)
                {
                    let after = self.held.split_off(at + tag.len());
                    self.held.truncate(at);
                    self.emit(pieces);
                    self.held = after;
                    self.within = within;
                    return true;
                }
                let keep = [THINK.0, CALL.0]
                    .into_iter()
                    .filter(|tag| self.calls || *tag != CALL.0)
                    .map(|tag| overlap(&self.held, tag))
                    .max()
                    .unwrap_or(0);
                let kept = self.held.split_off(self.held.len() - keep);
                self.emit(pieces);
                self.held = kept;
                false
            }
            Within::Thought => {
                let Some(at) = self.held.find(THINK.1) else {
                    let keep = overlap(&self.held, THINK.1);
                    self.held = self.held.split_off(self.held.len() - keep);
                    return false;
                };
                self.held = self.held.split_off(at + THINK.1.len());
                self.within = Within::Text;
                self.trim = true;
                true
            }
            Within::Call => {
                let Some(at) = self.held.find(CALL.1) else {
                    if self.held.len() > MAX_CALL_BYTES {
                        // Told as a call: it will not parse, and that is said.
                        pieces.push(Piece::Call(std::mem::take(&mut self.held)));
                        self.within = Within::Text;
                    }
                    return false;
                };
                let after = self.held.split_off(at + CALL.1.len());
                self.held.truncate(at);
                pieces.push(Piece::Call(std::mem::replace(&mut self.held, after)));
                self.within = Within::Text;
                self.trim = true;
                true
            }
        }
    }

    fn emit(&mut self, pieces: &mut Vec<Piece>) {
        if !self.held.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut self.held)));
        }
    }
}

/// Length of the longest end of `text` that is a proper beginning of `tag`.
fn overlap(text: &str, tag: &str) -> usize {
    (1..tag.len())
        .rev()
        .find(|len| text.ends_with(&tag[..*len]))
        .unwrap_or(0)
}

/// Text without a code fence around it.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix(FENCE).unwrap_or(text);
    inner.strip_suffix("```").unwrap_or(inner).trim()
}

/// Whether a text without tags is a call all the same: JSON with a name and arguments.
fn is_call(text: &str) -> bool {
    let value = serde_json::from_str::<serde_json::Value>(unfenced(text));
    value.is_ok_and(|value| {
        value.get("name").is_some_and(serde_json::Value::is_string)
            && (value.get("arguments").is_some() || value.get("parameters").is_some())
    })
}

/// Reads a call as `{"name": .., "arguments": {..}}`; `None` if it is not that.
#[cfg_attr(
    not(feature = "llama"),
    allow(dead_code, reason = "servers send calls apart")
)]
pub(crate) fn parse_call(body: &str, id: String) -> Option<ToolCall> {
    let value: serde_json::Value = serde_json::from_str(body.trim()).ok()?;
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = match value.get("arguments").or_else(|| value.get("parameters")) {
        None | Some(serde_json::Value::Null) => "{}".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    Some(ToolCall {
        id,
        name,
        arguments,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Pieces with neighbouring texts joined.
    fn run<'a>(calls: bool, deltas: impl IntoIterator<Item = &'a str>) -> Vec<Piece> {
        let mut filter = TagFilter::new(calls);
        let mut all: Vec<Piece> = Vec::new();
        let mut take = |pieces: Vec<Piece>| {
            for piece in pieces {
                if let (Some(Piece::Text(last)), Piece::Text(more)) = (all.last_mut(), &piece) {
                    last.push_str(more);
                } else {
                    all.push(piece);
                }
            }
        };
        for delta in deltas {
            take(filter.push(delta));
        }
        take(filter.finish());
        all
    }

    #[test]
    fn a_call_is_taken_out_of_the_text() {
        let text =
            "Let me look.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
        let pieces = run(true, [text]);
        assert_eq!(pieces[0], Piece::Text("Let me look.".into()));
        let Piece::Call(body) = &pieces[1] else {
            panic!("{pieces:?}")
        };
        let call = parse_call(body, "c1".into()).unwrap();
        assert_eq!(
            (call.name.as_str(), call.arguments.as_str()),
            ("f", "{\"a\":1}")
        );
    }

    #[test]
    fn a_thought_is_never_text() {
        assert_eq!(
            run(false, ["<think>\nhm", "m\n</think>\n\nHello"]),
            [Piece::Text("Hello".into())]
        );
        assert_eq!(run(false, ["<think> never closed"]), []);
    }

    #[test]
    fn text_that_only_looks_like_a_tag_comes_through() {
        let text = "if a <b then <too> or <tool_call";
        assert_eq!(run(true, [text]), [Piece::Text(text.into())]);
    }

    #[test]
    fn text_that_cannot_be_a_tag_is_not_held_back() {
        let mut filter = TagFilter::new(true);
        assert_eq!(filter.push("Hello <"), [Piece::Text("Hello ".into())]);
        assert_eq!(filter.push("3"), [Piece::Text("<3".into())]);
    }

    #[test]
    fn a_call_without_tags_is_one_all_the_same() {
        let call = "{\"name\": \"f\", \"arguments\": {}}";
        assert_eq!(
            run(true, ["\n{\"name\": ", "\"f\", \"arguments\": {}}"]),
            [Piece::Call(call.into())]
        );
        let fenced = format!("```json\n{call}\n```");
        assert_eq!(run(true, [fenced.as_str()]), [Piece::Call(call.into())]);
        for other in ["{\"a\": 1}", "{oops", "``` code"] {
            assert_eq!(run(true, [other]), [Piece::Text(other.into())]);
        }
        assert_eq!(
            run(false, [call]),
            [Piece::Text(call.into())],
            "no tools, no calls"
        );
    }

    #[test]
    fn a_call_that_is_not_json_is_not_a_call() {
        assert_eq!(parse_call("get_weather(Paris)", "c".into()), None);
    }

    proptest! {
        #[test]
        fn how_the_text_was_split_does_not_matter(
            parts in prop::collection::vec(prop_oneof![
                Just("<think>"), Just("</think>"), Just("<tool_call>"), Just("</tool_call>"),
                Just("<"), Just("tool"), Just(" "), Just("é{\"name\":\"x\"}"), Just("\n")], 0..12),
            cuts in prop::collection::vec(0usize..200, 0..8),
        ) {
            let text = parts.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| text.is_char_boundary(*c)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let deltas = cuts.windows(2).map(|w| &text[w[0]..w[1]]);
            prop_assert_eq!(run(true, deltas), run(true, [text.as_str()]));
        }
    }
}
