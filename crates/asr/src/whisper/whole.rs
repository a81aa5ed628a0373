//! The transcripts of pieces, put together.

use crate::{Reason, Transcript};

/// Transcripts of pieces on their way to being one.
#[derive(Default)]
pub(super) struct Whole {
    out: Transcript,
    /// Characters of the accepted texts, by which their doubts are weighed.
    weight: f32,
}

impl Whole {
    /// Adds the next piece.
    pub(super) fn add(&mut self, piece: Transcript) {
        let out = &mut self.out;
        out.timings = out.timings.and(piece.timings);
        if piece.text.is_empty() {
            if self.weight == 0.0 {
                // The best account of nothing is the last that says more than "silence".
                let silent = matches!(&piece.rejected, Some(j) if j.reason == Reason::Silence);
                if out.rejected.is_none() || !silent {
                    (out.avg_logprob, out.no_speech_prob) =
                        (piece.avg_logprob, piece.no_speech_prob);
                    (out.language, out.language_probability) =
                        (piece.language, piece.language_probability);
                    out.rejected = piece.rejected;
                }
            }
            return;
        }
        let weight = piece.text.chars().count() as f32;
        let mean = |a: f32, b: f32| (a * self.weight + b * weight) / (self.weight + weight);
        if self.weight == 0.0 {
            (out.language, out.language_probability) = (piece.language, piece.language_probability);
            out.rejected = None;
        }
        out.avg_logprob = mean(out.avg_logprob, piece.avg_logprob);
        out.no_speech_prob = mean(out.no_speech_prob, piece.no_speech_prob);
        if !out.text.is_empty() {
            out.text.push(' ');
        }
        out.text.push_str(&piece.text);
        out.segments.extend(piece.segments);
        self.weight += weight;
    }

    /// The transcript of all pieces; `language` where none told its own.
    pub(super) fn finish(mut self, language: &str) -> Transcript {
        if self.out.language.is_empty() {
            language.clone_into(&mut self.out.language);
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Junk, Segment};

    fn piece(text: &str, avg_logprob: f32) -> Transcript {
        let segments = vec![Segment {
            text: text.into(),
            ..Segment::default()
        }];
        Transcript {
            text: text.into(),
            language: "de".into(),
            avg_logprob,
            segments,
            ..Transcript::default()
        }
    }

    fn junk(reason: Reason) -> Transcript {
        Transcript {
            rejected: Some(Junk {
                reason,
                text: String::new(),
            }),
            ..Transcript::default()
        }
    }

    #[test]
    fn texts_are_joined_and_doubts_weighed_by_length() {
        let mut whole = Whole::default();
        for p in [
            junk(Reason::Silence),
            piece("abcdef", -0.1),
            junk(Reason::NoSpeech),
            piece("gh", -0.9),
        ] {
            whole.add(p);
        }
        let out = whole.finish("en");
        assert_eq!(
            (out.text.as_str(), out.language.as_str(), out.segments.len()),
            ("abcdef gh", "de", 2)
        );
        assert!(out.rejected.is_none());
        assert!((out.avg_logprob + 0.3).abs() < 1e-6);
    }

    #[test]
    fn where_nothing_was_said_the_best_reason_stays() {
        let mut whole = Whole::default();
        [
            junk(Reason::Silence),
            junk(Reason::NoSpeech),
            junk(Reason::Silence),
        ]
        .into_iter()
        .for_each(|p| whole.add(p));
        let out = whole.finish("en");
        assert_eq!(out.rejected.map(|j| j.reason), Some(Reason::NoSpeech));
        assert_eq!(out.language, "en");
    }
}
