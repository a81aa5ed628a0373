//! Which spoken words are which words of the text: an alignment of two sequences that were never made to fit.
//!
//! Dynamic programming over edit distances (Needleman and Wunsch 1970; Levenshtein 1966), where a word of the text may
//! take several spoken words, and a few words of the text may take one together.

/// Shares out spoken words, in order, to the words of the text: how many each gets. Two or three words that are
/// spoken as one are given it together: the first gets it, the others none. Among all ways to do so, the sum of
/// the edit distances to what is expected is least (dynamic programming, in a band around the expected course).
pub(super) fn share_out(spoken: &[&str], expected: &[Vec<String>]) -> Vec<usize> {
    let total: usize = expected.iter().map(Vec::len).sum();
    if total == spoken.len() {
        return expected.iter().map(Vec::len).collect();
    }
    let joined: Vec<Vec<char>> = expected.iter().map(|e| sounds(&e.concat())).collect();
    let spoken: Vec<Vec<char>> = spoken.iter().map(|w| sounds(w)).collect();
    let slack = (8 + total.abs_diff(spoken.len())).min(MOST_SLACK);
    let mut rows = vec![Row {
        first: 0,
        cells: vec![Cell {
            cost: 0,
            words: 0,
            share: 0,
        }],
    }];
    let mut due = 0;
    for (i, alone) in expected.iter().enumerate() {
        due += alone.len();
        let first = due.saturating_sub(slack).min(spoken.len());
        let last = (due + slack).min(spoken.len());
        let mut row = Row {
            first,
            cells: vec![UNREACHED; last - first + 1],
        };
        for j in first..=last {
            let mut best = UNREACHED;
            let mut consider = |words: usize, share: usize, reference: &[char], sound: &[char]| {
                let before = rows[i + 1 - words].cost(j - share);
                if before < UNREACHED.cost {
                    let cost = before + edit_distance(reference, sound);
                    if cost < best.cost {
                        best = Cell { cost, words, share };
                    }
                }
            };
            let mut sound: Vec<char> = Vec::new();
            for share in 0..=(alone.len() + 3).min(j) {
                if share > 0 {
                    sound.splice(0..0, spoken[j - share].iter().copied());
                }
                consider(1, share, &joined[i], &sound);
            }
            for words in 2..=(i + 1).min(3) {
                if j > 0 {
                    consider(
                        words,
                        1,
                        &joined[i + 1 - words..=i].concat(),
                        &spoken[j - 1],
                    );
                }
            }
            row.cells[j - first] = best;
        }
        rows.push(row);
    }
    // Where no way leads to the end, the last word takes what is left.
    let mut j = (0..=spoken.len())
        .rev()
        .find(|j| rows.last().is_some_and(|r| r.cost(*j) < UNREACHED.cost))
        .unwrap_or(0);
    let mut shares = vec![0; expected.len()];
    if let Some(last) = shares.last_mut() {
        *last = spoken.len() - j;
    }
    let mut i = expected.len();
    while let Some(cell) = rows[i].get(j).filter(|c| c.words > 0) {
        i -= cell.words;
        shares[i] += cell.share;
        j -= cell.share;
    }
    shares
}

/// How far from the expected course a sharing out may stray, spoken words.
const MOST_SLACK: usize = 200;

/// The best ways to share out some spoken words among the first words of the text.
struct Row {
    /// Spoken words that the first cell is about.
    first: usize,
    cells: Vec<Cell>,
}

/// The last step of such a way.
#[derive(Clone, Copy)]
struct Cell {
    /// Of the whole way.
    cost: u32,
    /// Words of the text that the step took, and spoken words that they got.
    words: usize,
    share: usize,
}

const UNREACHED: Cell = Cell {
    cost: u32::MAX / 2,
    words: 0,
    share: 0,
};

impl Row {
    fn get(&self, spoken: usize) -> Option<Cell> {
        self.cells.get(spoken.checked_sub(self.first)?).copied()
    }

    fn cost(&self, spoken: usize) -> u32 {
        self.get(spoken).unwrap_or(UNREACHED).cost
    }
}

/// IPA without stress and length, which depend on the neighbours.
fn sounds(ipa: &str) -> Vec<char> {
    ipa.chars()
        .filter(|c| !matches!(c, 'ˈ' | 'ˌ' | 'ː'))
        .collect()
}

/// Levenshtein's.
fn edit_distance(a: &[char], b: &[char]) -> u32 {
    let mut row: Vec<u32> = (0..=b.len() as u32).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i as u32;
        row[0] = i as u32 + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + u32::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(spoken: &str, expected: &[&str]) -> Vec<usize> {
        let spoken: Vec<&str> = spoken.split_whitespace().collect();
        let expected: Vec<Vec<String>> = expected
            .iter()
            .map(|words| words.split_whitespace().map(str::to_owned).collect())
            .collect();
        share_out(&spoken, &expected)
    }

    #[test]
    fn as_many_words_as_expected_go_where_they_are_expected() {
        assert_eq!(shares("a b c", &["x y", "z"]), [2, 1]);
    }

    #[test]
    fn a_word_more_or_less_goes_where_it_sounds_right() {
        assert_eq!(
            shares("pei sri dolars nau", &["pei", "sridolar", "nau"]),
            [1, 2, 1]
        );
        assert_eq!(
            shares("aut ofthe boks", &["aut", "of", "the", "boks"]),
            [1, 1, 0, 1]
        );
    }

    #[test]
    fn all_that_is_spoken_is_shared_out_even_where_nothing_fits() {
        let spoken = vec!["q"; 900];
        for expected in [1, 3, 300] {
            let shares = share_out(&spoken, &vec![vec!["zzz".to_owned()]; expected]);
            assert_eq!(shares.iter().sum::<usize>(), spoken.len());
        }
    }

    #[test]
    fn distances_are_levenshteins() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (one, other, distance) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0)]
        {
            assert_eq!(edit_distance(&chars(one), &chars(other)), distance);
            assert_eq!(edit_distance(&chars(other), &chars(one)), distance);
        }
    }
}
