#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn clauses(text: &str) -> Vec<Clause> {
    let mut speakable = Speakable::new("en-US", ClauseRules::default());
    let mut clauses = speakable.push(text);
    clauses.extend(speakable.finish());
    clauses
}

fn displays(text: &str) -> Vec<String> {
    clauses(text)
        .into_iter()
        .map(|clause| clause.display)
        .collect()
}

fn spoken(text: &str) -> Vec<String> {
    clauses(text)
        .into_iter()
        .map(|clause| clause.spoken)
        .filter(|spoken| !spoken.is_empty())
        .collect()
}

#[test]
fn the_first_clause_may_end_at_a_comma_later_ones_at_sentence_ends() {
    let text = "Well, of course, I can help you. First, open the door, then close it. Done";
    assert_eq!(
        displays(text),
        [
            "Well, of course, ",
            "I can help you. ",
            "First, open the door, then close it. ",
            "Done"
        ]
    );
}

#[test]
fn a_long_first_clause_ends_before_a_new_phrase() {
    let text = "The river runs slowly through the old green valley and reaches the sea at night. Then it rests.";
    assert_eq!(
        displays(text),
        [
            "The river runs slowly through the old green valley ",
            "and reaches the sea at night. ",
            "Then it rests."
        ]
    );
}

#[test]
fn a_short_answer_is_spoken_at_once() {
    let mut speakable = Speakable::new("en", ClauseRules::default());
    assert_eq!(speakable.push("Yes.").len(), 0, "could still be Yes.com");
    assert_eq!(speakable.push(" ")[0].spoken, "Yes.");
}

#[test]
fn nothing_is_cut_within_numbers_and_abbreviations() {
    for text in [
        "It is 3.14 or 1,000 or 1, 2 for Dr. Smith vs. J. Doe, i.e. me",
        "On May 5, 2025 at 3:30 p.m. we met",
        "See No. 5 here",
        "We sell apples, etc. and more",
        "Wait... what",
    ] {
        let after_first = format!("Ok. {text}");
        assert_eq!(displays(&after_first), ["Ok. ", text]);
    }
}

#[test]
fn an_ambiguous_dot_ends_the_sentence_before_a_capital() {
    assert_eq!(
        displays("We sell apples, etc. They sell none."),
        ["We sell apples, ", "etc. ", "They sell none."]
    );
    assert_eq!(displays("Ok. At 100 °C. He"), ["Ok. ", "At 100 °C. ", "He"]);
    assert_eq!(
        displays("Is it? No. It is not."),
        ["Is it? ", "No. ", "It is not."]
    );
    assert_eq!(
        displays("Ok. \"Stop.\" he said. \"Go.\" She went."),
        ["Ok. ", "\"Stop.\" he said. ", "\"Go.\" ", "She went."]
    );
}

#[test]
fn markdown_is_not_spoken() {
    assert_eq!(
        spoken("Ok. This is **very *important*** and `simple_code` ~~not~~."),
        ["Ok.", "This is very important and simple code not."]
    );
    assert_eq!(
        spoken("# A title\n\n- one\n- two\n1. first\n> quoted"),
        ["A title.", "one.", "two.", "one, first.", "quoted"]
    );
    assert_eq!(
        spoken("Ok. See [the *docs*](https://a.b/c d) and ![a cat](x.png)[1]."),
        ["Ok.", "See the docs and a cat."]
    );
    assert_eq!(
        spoken("| a | b |\n|---|---|\n| 1 | 2 |\n"),
        ["a, b.", "one, two."]
    );
    assert_eq!(spoken("---\nHi<br>there <b>you</b>"), ["Hithere you"]);
    assert_eq!(spoken("2 * 3 and a*b"), ["two times three and a b"]);
}

#[test]
fn code_blocks_are_shown_and_not_spoken() {
    let text = "Here:\n```rust\nlet x = 1. Or two.\n```\nThat is all.";
    assert_eq!(spoken(text), ["Here:", "That is all."]);
    assert_eq!(displays(text).concat(), text);
}

#[test]
fn addresses_are_read_as_their_host() {
    assert_eq!(
        spoken("Ok. Go to https://www.example.com/a/b?c=1. Now."),
        ["Ok.", "Go to example dot com.", "Now."]
    );
    assert_eq!(spoken("Mail <https://x.org> now"), ["Mail x dot org now"]);
}

#[test]
fn emoji_are_dropped_and_dashes_pause() {
    assert_eq!(
        spoken("Great job 🎉👩‍💻! Thanks 👍🏽"),
        ["Great job!", "Thanks"]
    );
    assert_eq!(
        spoken("Ok. One—two – three (and four) “five”…"),
        ["Ok.", "One, two, three, and four, five..."]
    );
    assert_eq!(
        clauses("🎉")[0],
        Clause {
            display: "🎉".into(),
            ..Clause::default()
        }
    );
}

#[test]
fn other_languages_keep_their_numbers_and_are_cut_at_their_own_marks() {
    let mut speakable = Speakable::new("zh", ClauseRules::default());
    let mut all = speakable.push("你好，我是一个很有用的助手，今天是3月。**再见**！");
    all.extend(speakable.finish());
    let spoken: Vec<_> = all.iter().map(|clause| clause.spoken.as_str()).collect();
    assert_eq!(
        spoken,
        ["你好，我是一个很有用的助手，", "今天是3月。", "再见！"]
    );
    let mut german = Speakable::new("de-DE", ClauseRules::default());
    assert_eq!(
        german.push("Es kostet 5 Euro. ")[0].spoken,
        "Es kostet 5 Euro."
    );
}

#[test]
fn spoken_words_lead_back_to_the_text() {
    let clause = &clauses("It costs **$5.50**, Dr. Lee!")[0..1][0];
    assert_eq!(clause.spoken, "It costs five dollars and fifty cents,");
    let pairs: Vec<_> = clause
        .words
        .iter()
        .map(|w| {
            (
                &clause.spoken[w.spoken.clone()],
                &clause.display[w.display.clone()],
            )
        })
        .collect();
    assert_eq!(
        pairs,
        [
            ("It", "It"),
            ("costs", "costs"),
            ("five dollars and fifty cents", "$5.50**,")
        ]
    );
    // Heard up to "dollars": the price was not heard whole.
    let heard = clause.spoken.find(" and").unwrap();
    assert_eq!(&clause.display[..clause.display_heard(heard)], "It costs");
    assert_eq!(clause.display_heard(0), 0);
    assert_eq!(
        clause.display_heard(clause.words[2].spoken.end),
        clause.display.len()
    );
}

#[test]
fn a_text_without_an_end_does_not_grow_for_ever() {
    let text = "word".repeat(5_000);
    assert!(
        displays(&text)
            .iter()
            .all(|display| display.len() <= 4 * 220)
    );
    let sentence = "and so on ".repeat(500);
    assert!(
        displays(&sentence)
            .iter()
            .all(|display| display.len() <= 300),
        "{:?}",
        displays(&sentence)
    );
}

/// Text that is likely to meet the rules.
fn prose() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z]{1,8}",
        Just(" ".to_owned()),
        Just("\n".to_owned()),
        Just(". ".to_owned()),
        Just(", ".to_owned()),
        Just("```\n".to_owned()),
        Just("**".to_owned()),
        Just("[a](b)".to_owned()),
        Just("[".to_owned()),
        Just("`".to_owned()),
        Just("| ".to_owned()),
        Just("- ".to_owned()),
        Just("1. ".to_owned()),
        Just("# ".to_owned()),
        Just("Dr. ".to_owned()),
        Just("etc. ".to_owned()),
        Just("https://a.b/c".to_owned()),
        "[$€-]?[0-9]{1,5}([.,:/-][0-9]{1,4}){0,2}(km|%|th|s|pm)?",
        Just("🎉".to_owned()),
        Just("é。".to_owned()),
        Just("…\u{200d}—".to_owned()),
        "\\PC{0,3}",
        any::<String>(),
    ];
    prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_text_is_given_back_to_the_byte_and_its_words_are_in_order(text in prose()) {
        let clauses = clauses(&text);
        let joined: String = clauses.iter().map(|clause| clause.display.as_str()).collect();
        prop_assert_eq!(joined, text);
        for clause in &clauses {
            prop_assert_eq!(clause.spoken.trim(), clause.spoken.as_str());
            prop_assert_eq!(clause.spoken.is_empty(), clause.words.is_empty());
            let (mut spoken, mut display) = (0, 0);
            for word in &clause.words {
                prop_assert!(word.spoken.start >= spoken && word.display.start >= display, "{:?}", clause);
                prop_assert!(word.spoken.end > word.spoken.start && word.display.end > word.display.start);
                prop_assert!(clause.spoken.get(word.spoken.clone()).is_some(), "{:?}", clause);
                prop_assert!(clause.display.get(word.display.clone()).is_some(), "{:?}", clause);
                (spoken, display) = (word.spoken.end, word.display.end);
            }
            // Nothing is said that no word accounts for.
            let outside = (0..clause.spoken.len()).filter(|at| !clause.words.iter().any(|w| w.spoken.contains(at)));
            for at in outside {
                let said = clause.spoken[at..].chars().next().filter(|_| clause.spoken.is_char_boundary(at));
                prop_assert!(said.is_none_or(|c| !c.is_alphanumeric()), "{:?}", clause);
            }
        }
    }

    #[test]
    fn how_the_text_was_split_into_deltas_does_not_matter(text in prose(), step in 1usize..9) {
        let mut speakable = Speakable::new("en", ClauseRules::default());
        let chars: Vec<char> = text.chars().collect();
        let mut split = Vec::new();
        for delta in chars.chunks(step) {
            split.extend(speakable.push(&delta.iter().collect::<String>()));
        }
        split.extend(speakable.finish());
        prop_assert_eq!(split, clauses(&text));
    }

    #[test]
    fn other_languages_hold_the_same(text in prose()) {
        let mut speakable = Speakable::new("fr", ClauseRules::default());
        let mut clauses = speakable.push(&text);
        clauses.extend(speakable.finish());
        let joined: String = clauses.iter().map(|clause| clause.display.as_str()).collect();
        prop_assert_eq!(joined, text);
    }
}
