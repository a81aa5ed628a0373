//! Which parts of a text are words.

use std::ops::Range;

/// The words of a text: runs without white space, less the punctuation around them; a run without a letter or
/// a digit is no word. Each with its byte range.
pub(crate) fn of(text: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let edge = |c: char| !c.is_alphanumeric();
    text.split_whitespace().filter_map(move |run| {
        let inner = run.trim_matches(edge);
        let start = inner.as_ptr() as usize - text.as_ptr() as usize;
        (!inner.is_empty()).then(|| (inner, start..start + inner.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn words_are_without_the_punctuation_around_them() {
        let text = " \"Don't\u{a0}go,\" — said Zoë… 🙂 (3.5%)";
        let words: Vec<_> = of(text).collect();
        let names: Vec<_> = words.iter().map(|w| w.0).collect();
        assert_eq!(names, ["Don't", "go", "said", "Zoë", "3.5"]);
        assert!(words.iter().all(|(w, r)| &text[r.clone()] == *w));
    }
}
