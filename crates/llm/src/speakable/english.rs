//! English as it is written, word by word into English as it is read aloud.
//!
//! Only what a phonemizer reads badly, or reads as more words than it was given, is spelt out: a number that is
//! words here has its word marks in the right place.

use super::numbers::{cardinal, digits};
use super::quantities::{money_after, month, say_number, unit_after};

/// Abbreviations with their dot. `Never`: a sentence never ends there. `Maybe`: it does if a capital follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Never,
    Maybe,
}

const ABBREVIATIONS: &[(&str, &str, Ends)] = &[
    ("mr.", "Mister", Ends::Never),
    ("mrs.", "Missus", Ends::Never),
    ("ms.", "Miss", Ends::Never),
    ("dr.", "Doctor", Ends::Never),
    ("prof.", "Professor", Ends::Never),
    ("st.", "Saint", Ends::Never),
    ("mt.", "Mount", Ends::Never),
    ("gen.", "General", Ends::Never),
    ("sen.", "Senator", Ends::Never),
    ("rev.", "Reverend", Ends::Never),
    ("capt.", "Captain", Ends::Never),
    ("lt.", "Lieutenant", Ends::Never),
    ("sgt.", "Sergeant", Ends::Never),
    ("gov.", "Governor", Ends::Never),
    ("hon.", "Honorable", Ends::Never),
    ("e.g.", "for example", Ends::Never),
    ("i.e.", "that is", Ends::Never),
    ("vs.", "versus", Ends::Never),
    ("cf.", "compare", Ends::Never),
    ("approx.", "approximately", Ends::Never),
    ("ca.", "circa", Ends::Never),
    ("fig.", "figure", Ends::Never),
    ("pp.", "pages", Ends::Never),
    ("dept.", "department", Ends::Maybe),
    ("est.", "established", Ends::Maybe),
    ("etc.", "et cetera", Ends::Maybe),
    ("jr.", "Junior", Ends::Maybe),
    ("sr.", "Senior", Ends::Maybe),
    ("inc.", "Incorporated", Ends::Maybe),
    ("ltd.", "Limited", Ends::Maybe),
    ("co.", "Company", Ends::Maybe),
    ("corp.", "Corporation", Ends::Maybe),
    ("ave.", "Avenue", Ends::Maybe),
    ("blvd.", "Boulevard", Ends::Maybe),
    ("rd.", "Road", Ends::Maybe),
    ("a.m.", "A M", Ends::Maybe),
    ("p.m.", "P M", Ends::Maybe),
    ("ph.d.", "P H D", Ends::Maybe),
    ("b.c.", "B C", Ends::Maybe),
    ("a.d.", "A D", Ends::Maybe),
    ("u.s.", "U S", Ends::Maybe),
    ("u.k.", "U K", Ends::Maybe),
    ("u.n.", "U N", Ends::Maybe),
    ("e.u.", "E U", Ends::Maybe),
    ("d.c.", "D C", Ends::Maybe),
    ("jan.", "January", Ends::Never),
    ("feb.", "February", Ends::Never),
    ("aug.", "August", Ends::Never),
    ("sept.", "September", Ends::Never),
    ("oct.", "October", Ends::Never),
    ("nov.", "November", Ends::Never),
    ("dec.", "December", Ends::Never),
];

/// Words before which a long first clause may be cut: a new phrase begins there.
const PHRASE_STARTS: &[&str] = &[
    "and", "but", "or", "so", "because", "which", "that", "who", "where", "when", "while", "if",
    "as", "to", "in", "on", "at", "for", "with", "from", "by", "about", "into", "than", "through",
    "after", "before", "since", "until",
];

/// Words after which a clause is never cut.
const CLINGING: &[&str] = &[
    "a", "an", "the", "of", "my", "your", "his", "her", "its", "our", "their", "very", "is", "are",
    "was", "to", "no",
];

pub(super) fn starts_phrase(word: &str) -> bool {
    PHRASE_STARTS.contains(&word.to_lowercase().as_str())
}

/// Whether a cut after `word` would tear something apart.
pub(super) fn clings(word: &str) -> bool {
    let bare = word
        .trim_matches(|c: char| !c.is_alphanumeric())
        .to_lowercase();
    word.ends_with(|c: char| !c.is_alphanumeric())
        || bare.chars().any(|c| c.is_ascii_digit())
        || CLINGING.contains(&bare.as_str())
        || PHRASE_STARTS.contains(&bare.as_str())
        || month(&bare).is_some()
}

/// What a dot at the end of `token` (opening marks removed) says, if it is an abbreviation.
pub(super) fn abbreviation(token: &str) -> Option<Ends> {
    let lower = token.to_lowercase();
    if lower == "no." {
        return Some(Ends::Maybe);
    }
    let known = ABBREVIATIONS
        .iter()
        .find(|(written, _, _)| *written == lower);
    known.map(|(_, _, ends)| *ends).or_else(|| {
        // An initial, as in "J. Smith"; "I." ends a sentence.
        let mut chars = token.chars();
        let initial = chars.next().is_some_and(char::is_uppercase) && chars.as_str() == ".";
        (initial && token != "I.").then_some(Ends::Never)
    })
}

/// What is said for one written word, with its neighbours in sight. `prev` and `next` are the words beside it.
pub(super) fn say(token: &str, prev: Option<&str>, next: Option<&str>) -> String {
    if let Some(said) = say_abbreviation(token, next) {
        return said;
    }
    let core = token.trim_end_matches(['.', ',', ';', ':', '!', '?']);
    let tail = &token[core.len()..];
    if core.is_empty() {
        return tail.to_owned();
    }
    let prev = prev.unwrap_or_default();
    let next_bare = if tail.is_empty() {
        next.map(bare).unwrap_or_default()
    } else {
        String::new()
    };
    format!("{}{tail}", say_core(core, prev, &next_bare).trim())
}

/// Lower case, without marks around it.
fn bare(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric() && c != '%')
        .to_lowercase()
}

fn say_abbreviation(token: &str, next: Option<&str>) -> Option<String> {
    let core = token.trim_end_matches([',', ';', ':', '!', '?']);
    let mut tail = token[core.len()..].to_owned();
    let lower = core.to_lowercase();
    if lower == "no." {
        let number = next.is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit()));
        return number.then(|| "number".to_owned());
    }
    let (_, said, ends) = ABBREVIATIONS
        .iter()
        .find(|(written, _, _)| *written == lower)?;
    let said = match (lower.as_str(), next) {
        // A street's name ends with it; a saint's begins.
        ("st.", next) if next.is_none_or(|n| !n.starts_with(char::is_uppercase)) => "Street",
        _ => said,
    };
    if *ends == Ends::Maybe && next.is_none() && tail.is_empty() {
        tail.push('.');
    }
    Some(format!("{said}{tail}"))
}

fn say_core(core: &str, prev: &str, next: &str) -> String {
    if let Some(said) = say_sign(core) {
        return said.to_owned();
    }
    if let Some(said) = say_number(core, &bare(prev), next) {
        return said;
    }
    if let Some(unit) = unit_after(&bare(prev), core) {
        return unit;
    }
    if let Some(money) = money_after(prev, core) {
        return money;
    }
    if let Some(said) = say_address(core) {
        return said;
    }
    match core.chars().next() {
        Some('#') => match core[1..].parse::<u64>() {
            Ok(n) => return format!("number {}", cardinal(n)),
            Err(_) => return say_core(&core[1..], prev, next),
        },
        Some('v' | 'V') if core[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            return format!("version {}", say_core(&core[1..], "", ""));
        }
        Some('@') if core.len() > 1 => return format!("at {}", say_core(&core[1..], prev, next)),
        _ => {}
    }
    match core.to_lowercase().as_str() {
        "w/" => return "with".to_owned(),
        "w/o" => return "without".to_owned(),
        _ => {}
    }
    say_mixed(core)
}

fn say_sign(core: &str) -> Option<&'static str> {
    Some(match core {
        "&" => "and",
        "+" => "plus",
        "=" => "equals",
        "×" | "*" => "times",
        "÷" => "divided by",
        "→" | "->" | "⇒" | "=>" => "to",
        "≈" | "~" => "about",
        "≤" | "<=" => "at most",
        "≥" | ">=" => "at least",
        "<" => "less than",
        ">" => "more than",
        "%" => "percent",
        "@" => "at",
        "/" => "or",
        "−" => "minus",
        _ => return None,
    })
}

/// E-mail and web addresses.
fn say_address(core: &str) -> Option<String> {
    let spell = |host: &str| -> Option<String> {
        let parts: Vec<&str> = host.split('.').collect();
        let top = parts.last().filter(|_| parts.len() > 1)?;
        let fits = |part: &&str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_alphanumeric() || c == '-' || c == '_')
        };
        let top = (2..=6).contains(&top.len()) && top.bytes().all(|b| b.is_ascii_lowercase());
        (top && parts.iter().all(fits)).then(|| {
            let parts: Vec<String> = parts.iter().map(|part| say_mixed(part)).collect();
            parts.join(" dot ")
        })
    };
    match core.split_once('@') {
        Some((user, host)) if !user.is_empty() => {
            let user: Vec<String> = user.split('.').map(say_mixed).collect();
            Some(format!("{} at {}", user.join(" dot "), spell(host)?))
        }
        Some(_) => None,
        None => spell(core),
    }
}

/// A word of letters, digits and marks: parts of one kind, numbers in words.
pub(super) fn say_mixed(core: &str) -> String {
    if core
        .chars()
        .all(|c| c.is_alphabetic() || c == '\'' || c == '-' || c == '.')
    {
        return core.to_owned();
    }
    let mut parts: Vec<String> = Vec::new();
    let mut rest = core;
    while let Some(c) = rest.chars().next() {
        let kind = |c: char| {
            (
                c.is_ascii_digit(),
                c.is_alphanumeric() || matches!(c, '\'' | '-' | '.' | ','),
            )
        };
        let end = rest
            .char_indices()
            .find(|(_, other)| kind(*other) != kind(c))
            .map_or(rest.len(), |(at, _)| at);
        let (part, more) = rest.split_at(end);
        rest = more;
        if c.is_ascii_digit() {
            let zeros = part.len() > 1 && part.starts_with('0');
            match part.parse::<u64>() {
                Ok(n) if !zeros && part.len() <= 4 => parts.push(cardinal(n)),
                _ => parts.push(digits(part)),
            }
        } else if kind(c).1 {
            let part = part.trim_matches(['-', '.', ',']);
            if !part.is_empty() {
                parts.push(part.to_owned());
            }
        } else {
            for mark in part.chars() {
                match mark {
                    '&' => parts.push("and".to_owned()),
                    '+' => parts.push("plus".to_owned()),
                    '=' => parts.push("equals".to_owned()),
                    '%' => parts.push("percent".to_owned()),
                    '@' => parts.push("at".to_owned()),
                    '#' => parts.push("sharp".to_owned()),
                    '°' => parts.push("degrees".to_owned()),
                    // Slashes, underscores and the like only part words.
                    _ => {}
                }
            }
        }
    }
    parts.join(" ")
}

#[cfg(test)]
#[path = "english_tests.rs"]
mod tests;
