//! Which parts of a text are words.

use std::ops::Range;

/// A word of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Word<'a> {
    /// Without the punctuation around it.
    pub word: &'a str,
    /// Its byte range.
    pub range: Range<usize>,
    /// With all that stands up to the next white space: `$3.50,`.
    pub run: &'a str,
}

/// The words of a text: runs without white space, less the punctuation around them; a run without a letter or
/// a digit is no word.
pub(crate) fn runs(text: &str) -> impl Iterator<Item = Word<'_>> {
    let is_gap = |c: char| c.is_whitespace() || c.is_control();
    text.split(is_gap).filter_map(move |run| {
        let word = run.trim_matches(|c: char| !c.is_alphanumeric());
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        (!word.is_empty()).then(|| Word {
            word,
            range: start..start + word.len(),
            run,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn words_are_without_the_punctuation_around_them() {
        let text = " \"Don't\u{a0}go,\" — said\u{1}Zoë… 🙂 ($3.5%)";
        let words: Vec<_> = runs(text).collect();
        let names: Vec<_> = words.iter().map(|w| w.word).collect();
        assert_eq!(names, ["Don't", "go", "said", "Zoë", "3.5"]);
        assert!(words.iter().all(|w| &text[w.range.clone()] == w.word));
        assert_eq!(words.last().map(|w| w.run), Some("($3.5%)"));
    }
}
