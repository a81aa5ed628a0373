//! The likeliest token, again and again, until the model says that this was all.

use std::path::Path;

use super::decoder::Writing;
use super::engine::Decoded;
use crate::vocabulary::Vocabulary;
use crate::{AsrError, Cancel};

/// Which tokens may come.
#[derive(Debug)]
pub(super) struct Rules {
    /// Marks and noises that the model was told never to say; from the model's `config.json`.
    never: Vec<usize>,
    /// What a text must not begin with: a blank, the end.
    not_first: Vec<usize>,
    /// Ends the text; all tokens after it are commands and times.
    end: usize,
    no_speech: Option<usize>,
    languages: Vec<(usize, String)>,
}

/// The lists in `config.json`.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    suppress_ids: Vec<usize>,
    suppress_ids_begin: Vec<usize>,
}

impl Rules {
    pub(super) fn read(dir: &Path, vocabulary: &Vocabulary) -> Result<Self, String> {
        let file = dir.join("config.json");
        let config: Config = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| format!("config.json: {e}"))?,
            // The engine does without, so do we.
            Err(_) => Config::default(),
        };
        let id = |token: &str| vocabulary.id(token);
        Ok(Self {
            never: config.suppress_ids,
            not_first: config.suppress_ids_begin,
            end: id("<|endoftext|>").ok_or("no <|endoftext|>")?,
            no_speech: id("<|nospeech|>").or_else(|| id("<|nocaptions|>")),
            languages: vocabulary
                .languages()
                .into_iter()
                .filter_map(|language| Some((id(&format!("<|{language}|>"))?, language)))
                .collect(),
        })
    }

    /// The probability that nobody spoke, from the logits after `<|startoftranscript|>`.
    pub(super) fn no_speech_prob(&self, logits: &[f32]) -> f32 {
        self.no_speech
            .and_then(|id| logits.get(id))
            .map_or(0.0, |logit| (logit - log_sum_exp(logits)).exp())
    }

    /// The likeliest language and its share among languages, from the same logits.
    pub(super) fn language(&self, logits: &[f32]) -> Option<(String, f32)> {
        let all: Vec<f32> = self
            .languages
            .iter()
            .filter_map(|(id, _)| logits.get(*id).copied())
            .collect();
        let (best, logit) = all.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        Some((
            self.languages[best].1.clone(),
            (logit - log_sum_exp(&all)).exp(),
        ))
    }

    /// The likeliest token that may come, and the logarithm of its probability among those.
    fn choose(&self, logits: &mut Vec<f32>, first: bool) -> (usize, f32) {
        logits.truncate(self.end + 1);
        let end = logits.get(self.end).copied().unwrap_or(f32::NEG_INFINITY);
        for &id in &self.never {
            if let Some(logit) = logits.get_mut(id) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if let Some(logit) = logits.get_mut(self.end) {
            *logit = end;
        }
        if first {
            for &id in &self.not_first {
                if let Some(logit) = logits.get_mut(id) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or((self.end, 0.0), |(id, logit)| {
            (id, logit - log_sum_exp(logits))
        })
    }
}

/// Writes a text after a prompt, whose last `logits` are given.
pub(super) fn write(
    writing: &mut Writing<'_>,
    rules: &Rules,
    mut logits: Vec<f32>,
    most: usize,
    cancel: &Cancel,
) -> Result<Decoded, AsrError> {
    let mut out = Decoded::default();
    let mut sum = 0.0;
    loop {
        cancel.check()?;
        let (token, logprob) = rules.choose(&mut logits, out.ids.is_empty());
        if token == rules.end || out.ids.len() == most || !writing.has_room() {
            sum += logprob;
            break;
        }
        sum += logprob;
        out.ids.push(token);
        if goes_round(&out.ids) {
            break;
        }
        logits = writing.add(&[token], &[0]).pop().unwrap_or_default();
    }
    out.avg_logprob = sum / (out.ids.len() + 1) as f32;
    Ok(out)
}

/// Whether the text has got into a loop that it will not leave: its end is seven times the same.
///
/// That is enough for the guards, too, to see it for what it is.
fn goes_round(ids: &[usize]) -> bool {
    const ROUNDS: usize = 7;
    const LONGEST: usize = 16;
    (1..=LONGEST.min(ids.len() / ROUNDS)).any(|period| {
        let end = &ids[ids.len() - ROUNDS * period..];
        end.iter().zip(&end[period..]).all(|(a, b)| a == b)
    })
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    largest + logits.iter().map(|l| (l - largest).exp()).sum::<f32>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            never: vec![1],
            not_first: vec![2, 4],
            end: 4,
            no_speech: Some(5),
            languages: vec![(6, "en".into()), (7, "de".into())],
        }
    }

    #[test]
    fn what_may_not_come_does_not() {
        let logits = vec![0.0, 9.0, 3.0, 1.0, 5.0, 8.0, 8.0, 8.0];
        assert_eq!(rules().choose(&mut logits.clone(), true).0, 3);
        assert_eq!(rules().choose(&mut logits.clone(), false).0, 4);
    }

    #[test]
    fn probabilities_are_shares() {
        let ln = f32::ln;
        let logits = [0.0, 0.0, 0.0, 0.0, ln(2.0), ln(4.0), ln(9.0), ln(1.0)];
        assert!((rules().no_speech_prob(&logits) - 0.2).abs() < 1e-6);
        let (language, share) = rules().language(&logits).unwrap_or_default();
        assert_eq!(language, "en");
        assert!((share - 0.9).abs() < 1e-6);
        let (token, logprob) = rules().choose(&mut logits.to_vec(), false);
        assert_eq!(token, 4);
        // Of 1 (token 0), 1, 1 and 2: two fifths.
        assert!((logprob - ln(0.4)).abs() < 1e-6);
    }

    #[test]
    fn a_loop_is_left_and_a_repetition_is_not() {
        assert!(goes_round(&[[1, 2].as_slice(), &[7; 7]].concat()));
        assert!(goes_round(&[[9].as_slice(), &[4, 5, 6].repeat(7)].concat()));
        assert!(!goes_round(
            &[[9].as_slice(), &[4, 5, 6].repeat(5)].concat()
        ));
        assert!(!goes_round(&[]));
    }
}
