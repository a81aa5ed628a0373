//! Markup out, text in: what a reader would see of a piece of markdown, character by character, each with the
//! place in the original that it stands for.
//!
//! A clause may begin or end within an emphasis, so marks are judged by their neighbours and not in pairs. Not
//! handled: formulas in LaTeX and HTML beyond single tags, which come out as their text.

use std::ops::Range;

/// A character of the visible text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) ch: char,
    /// Bytes of the original that it stands for; empty for one that was put in.
    pub(super) at: Range<usize>,
}

/// What is known from the clauses before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Within a code fence.
    pub(super) in_fence: bool,
    /// The clause goes on in the middle of a line.
    pub(super) mid_line: bool,
}

/// A line that opens or closes a code fence.
pub(super) fn is_fence(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("```") || line.starts_with("~~~")
}

/// A line of a table.
pub(super) fn is_table(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

/// The visible text of a clause, and where the next one begins.
pub(super) fn visible(display: &str, mut place: Place) -> (Vec<Cell>, Place) {
    let mut out = Writer { cells: Vec::new() };
    let mut at = 0;
    for line in display.split_inclusive('\n') {
        let whole = line.ends_with('\n');
        let text = line.trim_end_matches(['\n', '\r']);
        if !place.mid_line && is_fence(text) {
            // The mark counts when its line is whole; a piece of it is silent all the same.
            place.in_fence ^= whole;
        } else if !place.in_fence {
            write_line(&mut out, text, at, place.mid_line, whole);
        }
        place.mid_line = !whole;
        at += line.len();
    }
    (out.cells, place)
}

struct Writer {
    cells: Vec<Cell>,
}

impl Writer {
    fn put(&mut self, ch: char, at: Range<usize>) {
        self.cells.push(Cell { ch, at });
    }

    fn last(&self) -> Option<char> {
        self.cells
            .iter()
            .rev()
            .map(|cell| cell.ch)
            .find(|ch| !ch.is_whitespace())
    }

    /// A pause where a mark stood, unless one is there already; a full stop takes a comma's place.
    fn pause(&mut self, mark: char, at: usize) {
        while mark == '.'
            && self
                .cells
                .last()
                .is_some_and(|c| c.at.is_empty() && matches!(c.ch, ',' | ' '))
        {
            self.cells.pop();
        }
        if self
            .last()
            .is_some_and(|ch| ch.is_alphanumeric() || matches!(ch, '%' | '°' | '$' | '€' | '\''))
        {
            while self
                .cells
                .last()
                .is_some_and(|cell| cell.ch.is_whitespace())
            {
                self.cells.pop();
            }
            self.put(mark, at..at);
        }
        self.put(' ', at..at);
    }
}

fn write_line(out: &mut Writer, line: &str, at: usize, mid_line: bool, whole: bool) {
    let before = out.cells.len();
    let mut text = line;
    let skip = |text: &mut &str, bytes: usize| *text = &text[bytes..];
    let start = |text: &str| at + line.len() - text.len();
    if !mid_line {
        let indent = text.len() - text.trim_start().len();
        skip(&mut text, indent);
        let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let rule = bare.len() >= 3
            && ["-", "*", "_", "="]
                .iter()
                .any(|mark| bare.replace(mark, "").is_empty());
        let divider = is_table(text) && bare.chars().all(|c| matches!(c, '|' | '-' | ':'));
        if rule || divider {
            return;
        }
        while text.starts_with('>') {
            let bytes = 1 + usize::from(text[1..].starts_with(' '));
            skip(&mut text, bytes);
        }
        let marks = text.bytes().take_while(|b| *b == b'#').count();
        if (1..=6).contains(&marks) && text[marks..].starts_with(' ') {
            skip(&mut text, marks + 1);
        }
        if let Some(bullet) = ["- ", "* ", "+ ", "• ", "– "]
            .into_iter()
            .find(|b| text.starts_with(b))
        {
            skip(&mut text, bullet.len());
            if ["[ ] ", "[x] ", "[X] "]
                .iter()
                .any(|check| text.starts_with(check))
            {
                skip(&mut text, 4);
            }
        }
        let number = text.bytes().take_while(u8::is_ascii_digit).count();
        if (1..=3).contains(&number)
            && (text[number..].starts_with(". ") || text[number..].starts_with(") "))
        {
            let from = start(text);
            for (offset, ch) in text[..number].char_indices() {
                out.put(ch, from + offset..from + offset + 1);
            }
            out.put(',', from + number..from + number + 1);
            skip(&mut text, number + 1);
        }
    }
    write_inline(out, text, start(text));
    if whole && out.cells.len() > before {
        // The line's end is heard.
        let end = at + line.len();
        out.pause('.', end);
    }
}

fn write_inline(out: &mut Writer, text: &str, start: usize) {
    let mut at = 0;
    let mut prev: Option<char> = None;
    while let Some(ch) = text[at..].chars().next() {
        let rest = &text[at..];
        let here = start + at..start + at + ch.len_utf8();
        let next = rest[ch.len_utf8()..].chars().next();
        let mut used = ch.len_utf8();
        match ch {
            '\\' if next.is_some_and(|c| c.is_ascii_punctuation()) => {
                // Escaped: the next character as it is.
                let c = next.unwrap_or(' ');
                out.put(c, here.start..here.end + c.len_utf8());
                used += c.len_utf8();
            }
            '!' if next == Some('[') && link(&rest[1..]).is_some() => {}
            '[' => match link(rest) {
                Some((label, bytes)) => {
                    let silent =
                        label.starts_with('^') || label.bytes().all(|b| b.is_ascii_digit());
                    if !silent {
                        write_inline(out, label, start + at + 1);
                    }
                    used = bytes;
                }
                None => out.pause(',', here.start),
            },
            '<' => match tag(rest) {
                Some((address, bytes)) => {
                    if let Some(address) = address {
                        write_address(out, address, start + at..start + at + bytes);
                    }
                    used = bytes;
                }
                None => out.put(ch, here),
            },
            _ if prev.is_none_or(|c| !c.is_alphanumeric()) && address(rest).is_some() => {
                if let Some(host_and_length) = address(rest) {
                    let (host, bytes) = host_and_length;
                    write_address(out, host, start + at..start + at + bytes);
                    used = bytes;
                }
            }
            '*' | '~' if next == Some(ch) || prev == Some(ch) => {}
            '*' | '_' if emphasises(prev, next) => {}
            '`' | '"' | '“' | '”' | '«' | '»' | '„' => {}
            '\'' | '‘' | '’' => {
                // An apostrophe within or after a word, but no quotation mark.
                if prev.is_some_and(char::is_alphanumeric)
                    && (next.is_some_and(char::is_alphanumeric) || prev == Some('s'))
                {
                    out.put('\'', here);
                }
            }
            '(' | '{' if prev.is_none_or(char::is_whitespace) => out.pause(',', here.start),
            ')' | ']' | '}' => {
                // "(so), and" and "f(x)" need no pause after them.
                if next == Some(' ')
                    && out.last().is_some_and(|c| c.is_alphanumeric())
                    && text[..at].contains(" (")
                {
                    out.put(',', here);
                }
            }
            '(' | '{' => out.put(' ', here.start..here.start),
            '—' => out.pause(',', here.start),
            '–' | '-' if prev == Some(' ') && next == Some(' ') => {
                let digits = out.last().is_some_and(|c| c.is_ascii_digit())
                    && rest[ch.len_utf8()..]
                        .trim_start()
                        .starts_with(|c: char| c.is_ascii_digit());
                if digits {
                    out.put('–', here)
                } else {
                    out.pause(',', here.start)
                }
            }
            '-' if next == Some('-') || prev == Some('-') => {
                if next == Some('-') {
                    out.pause(',', here.start);
                }
            }
            '|' => out.pause(',', here.start),
            '…' => {
                for _ in 0..3 {
                    out.put('.', here.clone());
                }
            }
            _ if is_silent(ch) => {}
            _ => out.put(ch, here),
        }
        prev = text[..at + used].chars().next_back();
        at += used;
    }
}

/// Whether `*` or `_` between these is a mark: it touches a word on one side at most.
fn emphasises(prev: Option<char>, next: Option<char>) -> bool {
    let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let space = |c: Option<char>| c.is_none_or(char::is_whitespace);
    let within_word = word(prev) && word(next);
    let alone = space(prev) && space(next) && prev.is_some();
    !within_word && !alone
}

/// `[label](target)`, `[label][reference]`, `[1]`, `[^note]`: the label, and the bytes of the whole.
fn link(text: &str) -> Option<(&str, usize)> {
    let mut depth = 0;
    let mut close = None;
    for (at, ch) in text.char_indices() {
        match ch {
            '[' => depth += 1,
            ']' => {
                depth -= 1;
                if depth == 0 {
                    close = Some(at);
                    break;
                }
            }
            _ => {}
        }
    }
    let close = close?;
    let label = &text[1..close];
    let after = &text[close + 1..];
    let bytes = match after.chars().next() {
        Some('(') => {
            let mut depth = 0;
            let end = after.char_indices().find(|(_, ch)| {
                depth += i32::from(*ch == '(') - i32::from(*ch == ')');
                depth == 0
            });
            end?.0 + 1
        }
        Some('[') => after.find(']')? + 1,
        _ if label.starts_with('^')
            || (!label.is_empty() && label.bytes().all(|b| b.is_ascii_digit())) =>
        {
            0
        }
        _ => return None,
    };
    Some((label, close + 1 + bytes))
}

/// A tag such as `<br>`, or an address as `<https://...>`.
fn tag(text: &str) -> Option<(Option<&str>, usize)> {
    let end = text.char_indices().take(200).find(|(_, c)| *c == '>')?.0;
    let inner = &text[1..end];
    if let Some((host, _)) = address(inner) {
        return Some((Some(host), end + 1));
    }
    let name = inner.strip_prefix('/').unwrap_or(inner);
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        .then_some((None, end + 1))
}

/// A web address at the start of `text`: its host, and the bytes of the whole.
fn address(text: &str) -> Option<(&str, usize)> {
    let scheme = ["https://", "http://", "www."]
        .into_iter()
        .find(|scheme| text.starts_with(scheme))?;
    let end = text
        .find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | ')' | ']' | '*'))
        .unwrap_or(text.len());
    let whole = text[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '_']);
    let host = whole.get(scheme.len()..)?;
    let host = host.strip_prefix("www.").unwrap_or(host);
    let host = &host[..host.find(['/', '?', '#', ':']).unwrap_or(host.len())];
    (!host.is_empty()).then_some((host, whole.len()))
}

/// An address is read as its host; every character stands for the whole.
fn write_address(out: &mut Writer, host: &str, at: Range<usize>) {
    for ch in host.chars() {
        out.put(ch, at.clone());
    }
}

/// Emoji, their joiners and selectors, marks of direction, control characters.
fn is_silent(ch: char) -> bool {
    matches!(u32::from(ch),
        0x00..=0x08 | 0x0e..=0x1f | 0x7f..=0x9f | 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x2064
        | 0xfe00..=0xfe0f | 0xfeff | 0x20e3 | 0x2122 | 0xae | 0xa9
        | 0x2300..=0x23ff | 0x2460..=0x24ff | 0x2500..=0x27bf | 0x2900..=0x297f | 0x2b00..=0x2bff | 0x3030 | 0x303d | 0x3297 | 0x3299
        | 0x1f000..=0x1faff | 0xe0000..=0xe007f)
}
