//! When something happens, as a scene says it: `2.5`, `reply + 0.3`, `word seven`, `last word of reply 2`,
//! `end of question - 0.2`.
//!
//! A moment is an anchor and a number of seconds. Anchors are things that come to pass, in the order in which the
//! client sees them, so a moment may be known only a little before it is there, or never.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::trace::Happening;

/// A point in a scene's time.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// What it is counted from.
    pub anchor: Anchor,
    /// Seconds after that, or before where negative.
    pub plus: f64,
}

/// What a moment is counted from.
#[derive(Clone, Debug, PartialEq)]
pub enum Anchor {
    /// The scene's start.
    Start,
    /// The nth time, from 1, that something happened.
    Happening(Happening, usize),
    /// A word of the nth reply is heard: when the client plays its middle.
    Word(String, usize),
    /// The last word of the nth reply is heard.
    LastWord(usize),
    /// The first sound of a step's speech.
    Onset(String),
    /// The last sound of a step's speech.
    End(String),
}

/// A moment that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no moment; write seconds (2.5), or one of `start`, `reply`, `reply 2`, `word seven`, `last word of reply 2`, \
     the name of a step, `end of NAME`, or what happens ({happenings}), with `+ 0.3` or `- 0.3` behind it",
    happenings = Happening::NAMES.map(|(name, _)| name).join(", ")
)]
pub struct MomentError(String);

impl Moment {
    /// A moment so many seconds after the start.
    #[must_use]
    pub fn at(seconds: f64) -> Self {
        Self {
            anchor: Anchor::Start,
            plus: seconds,
        }
    }

    /// The step it is counted from.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match &self.anchor {
            Anchor::Onset(name) | Anchor::End(name) => Some(name),
            _ => None,
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let wrong = || MomentError(text.to_owned());
        let trimmed = text.trim();
        if let Ok(seconds) = trimmed.parse::<f64>() {
            return if seconds.is_finite() && seconds >= 0.0 {
                Ok(Self::at(seconds))
            } else {
                Err(wrong())
            };
        }
        let (anchor, plus) = match trimmed.rsplit_once([' ']) {
            Some((before, number)) if before.ends_with(" +") || before.ends_with(" -") => {
                let (anchor, sign) = before.split_at(before.len() - 1);
                let seconds: f64 = number.parse().map_err(|_| wrong())?;
                if !(0.0..600.0).contains(&seconds) {
                    return Err(wrong());
                }
                (anchor.trim(), if sign == "-" { -seconds } else { seconds })
            }
            _ => (trimmed, 0.0),
        };
        Ok(Self {
            anchor: anchor_of(anchor).ok_or_else(wrong)?,
            plus,
        })
    }
}

fn anchor_of(text: &str) -> Option<Anchor> {
    if text == "start" {
        return Some(Anchor::Start);
    }
    if let Some(name) = text.strip_prefix("end of ") {
        return is_name(name).then(|| Anchor::End(name.to_owned()));
    }
    let (head, reply) = match text.rsplit_once(" of reply ") {
        Some((head, number)) => (head, number.parse().ok().filter(|number| *number > 0)?),
        None => (text, 1),
    };
    if head == "last word" {
        return Some(Anchor::LastWord(reply));
    }
    if let Some(word) = head.strip_prefix("word ") {
        let word = word.trim();
        return (!word.is_empty() && !word.contains(' '))
            .then(|| Anchor::Word(word.to_lowercase(), reply));
    }
    let (name, number) = match text.rsplit_once(' ') {
        Some((name, number)) => (name, number.parse().ok().filter(|number| *number > 0)?),
        None => (text, 1),
    };
    if let Some(what) = Happening::named(name) {
        return Some(Anchor::Happening(what, number));
    }
    is_name(text).then(|| Anchor::Onset(text.to_owned()))
}

/// Whether this can be the name of a step: letters, digits, `-` and `_`, not a number and not a happening.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && !["start", "word", "last"].contains(&text)
        && Happening::named(text).is_none()
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nth = |number: &usize| match number {
            1 => String::new(),
            _ => format!(" {number}"),
        };
        let of = |reply: &usize| match reply {
            1 => String::new(),
            _ => format!(" of reply {reply}"),
        };
        match &self.anchor {
            Anchor::Start => return write!(f, "{} s", self.plus),
            Anchor::Happening(what, number) => write!(f, "{}{}", what.name(), nth(number))?,
            Anchor::Word(word, reply) => write!(f, "word {word}{}", of(reply))?,
            Anchor::LastWord(reply) => write!(f, "last word{}", of(reply))?,
            Anchor::Onset(name) => write!(f, "{name}")?,
            Anchor::End(name) => write!(f, "end of {name}")?,
        }
        match self.plus {
            0.0 => Ok(()),
            plus if plus < 0.0 => write!(f, " - {}", -plus),
            plus => write!(f, " + {plus}"),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Moment;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a moment, such as 2.5 or \"reply + 0.3\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Moment, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Moment, E> {
                self.visit_str(&seconds.to_string())
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Moment, E> {
                self.visit_str(&seconds.to_string())
            }
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Moment, E> {
                self.visit_str(&seconds.to_string())
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        for (text, anchor, plus) in [
            ("2.5", Anchor::Start, 2.5),
            ("start + 1", Anchor::Start, 1.0),
            ("reply", Anchor::Happening(Happening::Reply, 1), 0.0),
            ("reply + 0.3", Anchor::Happening(Happening::Reply, 1), 0.3),
            ("reply 2 + 0.3", Anchor::Happening(Happening::Reply, 2), 0.3),
            ("word Seven", Anchor::Word("seven".into(), 1), 0.0),
            (
                "word seven of reply 2 - 0.1",
                Anchor::Word("seven".into(), 2),
                -0.1,
            ),
            ("last word", Anchor::LastWord(1), 0.0),
            ("last word of reply 3", Anchor::LastWord(3), 0.0),
            ("cut-in + 0.2", Anchor::Onset("cut-in".into()), 0.2),
            ("end of question", Anchor::End("question".into()), 0.0),
            (
                "interruption",
                Anchor::Happening(Happening::Interruption, 1),
                0.0,
            ),
        ] {
            assert_eq!(text.parse(), Ok(Moment { anchor, plus }), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_with_what_would_be() {
        for text in [
            "",
            "-1",
            "nan",
            "reply 0",
            "word",
            "end of",
            "two words here",
            "reply + -1",
            "reply +",
        ] {
            let error = text.parse::<Moment>().unwrap_err().to_string();
            assert!(error.contains("`word seven`"), "{text}: {error}");
        }
    }
}
