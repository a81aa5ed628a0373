//! Word error rate, as recognizers are compared by it.
//!
//! Two transcripts of the same words differ in how they are written: case, punctuation, digits. [`words`] takes
//! such differences away (the idea, not the code, of the normaliser that came with Whisper); [`compare`] then
//! counts the fewest edits that turn one into the other (Levenshtein's distance over words).

use std::iter::Sum;
use std::ops::Add;

/// Edits that turn a transcript into its reference. Sums over files are the rate of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Words that stand for another.
    pub substitutions: usize,
    /// Words that are missing.
    pub deletions: usize,
    /// Words too many.
    pub insertions: usize,
    /// Words of the reference.
    pub words: usize,
}

impl Errors {
    /// Edits for each word of the reference: 0 is perfect, and it can exceed 1. Without reference words, the
    /// number of insertions.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let edits = self.substitutions + self.deletions + self.insertions;
        edits as f64 / self.words.max(1) as f64
    }
}

impl Add for Errors {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            substitutions: self.substitutions + other.substitutions,
            deletions: self.deletions + other.deletions,
            insertions: self.insertions + other.insertions,
            words: self.words + other.words,
        }
    }
}

impl Sum for Errors {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

/// Compares a transcript with what was said, both normalised by [`words`].
#[must_use]
pub fn compare(reference: &str, transcript: &str) -> Errors {
    let (reference, heard) = (words(reference), words(transcript));
    let mut row: Vec<Errors> = (0..=heard.len())
        .map(|insertions| Errors {
            insertions,
            ..Errors::default()
        })
        .collect();
    let edits = |e: &Errors| e.substitutions + e.deletions + e.insertions;
    for (i, expected) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = Errors {
            deletions: i + 1,
            ..Errors::default()
        };
        for (j, word) in heard.iter().enumerate() {
            let above = row[j + 1];
            let kept = Errors {
                substitutions: diagonal.substitutions + usize::from(expected != word),
                ..diagonal
            };
            let dropped = Errors {
                deletions: above.deletions + 1,
                ..above
            };
            let added = Errors {
                insertions: row[j].insertions + 1,
                ..row[j]
            };
            row[j + 1] = [dropped, added].into_iter().fold(kept, |best, e| {
                if edits(&e) < edits(&best) { e } else { best }
            });
            diagonal = above;
        }
    }
    Errors {
        words: reference.len(),
        ..row[heard.len()]
    }
}

/// The words of a text, written one way: lower case, without punctuation, apostrophes or what stands in
/// brackets, numbers spelled out in English, a few common abbreviations opened.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let text = text
        .to_lowercase()
        .replace(['\u{2019}', '\u{2018}', '\''], "");
    let mut plain = String::with_capacity(text.len());
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            '%' => plain.push_str(" percent "),
            '&' => plain.push_str(" and "),
            '$' | '£' | '€' | '.' | ',' => plain.push(c),
            c if c.is_alphanumeric() => plain.push(c),
            _ => plain.push(' '),
        }
    }
    let mut out = Vec::new();
    for token in plain.split_whitespace() {
        spell(token, &mut out);
    }
    out
}

/// One blank-free token, which may hold digits, points, commas and a currency sign.
fn spell(token: &str, out: &mut Vec<String>) {
    let currency = token.chars().find_map(|c| match c {
        '$' => Some("dollars"),
        '£' => Some("pounds"),
        '€' => Some("euros"),
        _ => None,
    });
    let token = token.replace(['$', '£', '€'], "");
    let mut rest = token.trim_end_matches(['.', ',']);
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == ',' || c == '.')
                .len();
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            let (number, after) = rest.split_at(digits);
            let ordinal = ["st", "nd", "rd", "th"].into_iter().find(|s| after == *s);
            spell_number(number.trim_end_matches(['.', ',']), ordinal.is_some(), out);
            rest = ordinal.map_or(after, |s| &after[s.len()..]);
        } else {
            let word = rest.trim_start_matches(['.', ',']);
            let end = word
                .find(|c: char| c.is_ascii_digit() || c == '.' || c == ',')
                .unwrap_or(word.len());
            let (letters, after) = word.split_at(end);
            match letters {
                "" => {}
                "mr" => out.push("mister".into()),
                "mrs" => out.push("missus".into()),
                "dr" => out.push("doctor".into()),
                "okay" => out.push("ok".into()),
                letters => out.push(letters.into()),
            }
            rest = after;
        }
    }
    if let Some(currency) = currency {
        out.push(currency.into());
    }
}

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];

fn spell_number(number: &str, ordinal: bool, out: &mut Vec<String>) {
    let number = number.replace(',', "");
    let mut parts = number.split('.');
    let whole = parts.next().unwrap_or_default();
    match whole.parse::<u64>() {
        Ok(n) if whole.len() <= 12 && (whole.len() == 1 || !whole.starts_with('0')) => {
            cardinal(n, out)
        }
        // Telephone numbers, 007: digit by digit.
        _ => digits(whole, out),
    }
    for part in parts.filter(|p| !p.is_empty()) {
        out.push("point".into());
        digits(part, out);
    }
    if ordinal && let Some(last) = out.last_mut() {
        *last = ordinal_of(last);
    }
}

fn digits(number: &str, out: &mut Vec<String>) {
    out.extend(
        number
            .bytes()
            .filter(u8::is_ascii_digit)
            .map(|b| SMALL[usize::from(b - b'0')].to_owned()),
    );
}

fn cardinal(n: u64, out: &mut Vec<String>) {
    match n {
        0..=19 => out.push(SMALL[n as usize].into()),
        20..=99 => {
            out.push(TENS[n as usize / 10].into());
            if !n.is_multiple_of(10) {
                cardinal(n % 10, out);
            }
        }
        100..=999 => scaled(n, 100, "hundred", out),
        1_000..=999_999 => scaled(n, 1_000, "thousand", out),
        1_000_000..=999_999_999 => scaled(n, 1_000_000, "million", out),
        _ => scaled(n, 1_000_000_000, "billion", out),
    }
}

fn scaled(n: u64, unit: u64, name: &str, out: &mut Vec<String>) {
    cardinal(n / unit, out);
    out.push(name.into());
    if !n.is_multiple_of(unit) {
        cardinal(n % unit, out);
    }
}

fn ordinal_of(word: &str) -> String {
    match word {
        "one" => "first".into(),
        "two" => "second".into(),
        "three" => "third".into(),
        "five" => "fifth".into(),
        "eight" => "eighth".into(),
        "nine" => "ninth".into(),
        "twelve" => "twelfth".into(),
        w if w.ends_with('y') => format!("{}ieth", &w[..w.len() - 1]),
        w => format!("{w}th"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> String {
        words(text).join(" ")
    }

    #[test]
    fn case_punctuation_and_brackets_do_not_count() {
        assert_eq!(
            joined("How d'you know the GARDENER is a FAKE ?"),
            "how dyou know the gardener is a fake"
        );
        assert_eq!(
            joined("[music] Well... it\u{2019}s (sighs) over-priced."),
            "well its over priced"
        );
        assert_eq!(joined("Élan, naïve"), "élan naïve");
    }

    #[test]
    fn numbers_are_spelled_out() {
        assert_eq!(
            joined("21 or 3.5, 1,250 and 007."),
            "twenty one or three point five one thousand two hundred fifty and zero zero seven"
        );
        assert_eq!(
            joined("the 2nd, 20th and 12th of $5"),
            "the second twentieth and twelfth of five dollars"
        );
        assert_eq!(
            joined("50% of 100000"),
            "fifty percent of one hundred thousand"
        );
    }

    #[test]
    fn edits_are_told_apart() {
        let e = compare("the cat sat on the old mat", "the bat sat on old mat today");
        assert_eq!(
            e,
            Errors {
                substitutions: 1,
                deletions: 1,
                insertions: 1,
                words: 7
            }
        );
        assert!((e.rate() - 3.0 / 7.0).abs() < 1e-9);
        assert_eq!(compare("same here", "Same, here!").rate(), 0.0);
        assert_eq!(compare("", "one two").rate(), 2.0);
        assert_eq!(compare("one two", "").deletions, 2);
    }

    #[test]
    fn rates_of_files_add_up() {
        let all: Errors = [compare("a b", "a b"), compare("c d", "c x")]
            .into_iter()
            .sum();
        assert!((all.rate() - 0.25).abs() < 1e-9);
    }
}
