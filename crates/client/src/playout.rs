//! The loudspeaker: what has come and is not played, and how far each reply has been played.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{BLOCK, ClientError, RATE};

/// A loudspeaker: what has come and is not played, and how far each item has been played.
#[derive(Default)]
pub struct Playout {
    queue: VecDeque<i16>,
    item: Option<String>,
    played: u64,
    received: u64,
    held: bool,
}

impl Playout {
    /// Takes an event; the sound in it waits to be played.
    ///
    /// # Errors
    /// Sound that is not base64.
    pub fn event(&mut self, event: &Value) -> Result<(), ClientError> {
        match event["type"].as_str().unwrap_or_default() {
            "response.output_audio.delta" => {
                let item = event["item_id"].as_str().unwrap_or_default();
                if self.item.as_deref() != Some(item) {
                    self.item = Some(item.to_owned());
                    self.played = 0;
                    self.held = false;
                }
                let bytes = STANDARD
                    .decode(event["delta"].as_str().unwrap_or_default())
                    .map_err(ClientError::NotBase64)?;
                let samples = duologue_audio::pcm::le_bytes_to_i16(&bytes);
                self.received += samples.len() as u64;
                self.queue.extend(samples);
            }
            "duologue.playout.pause" => self.held = true,
            "duologue.playout.resume" => {
                // What follows starts there; what was held is sent again.
                self.held = false;
                self.queue.clear();
                if let Some(ms) = event["audio_start_ms"].as_u64() {
                    self.played = ms * u64::from(RATE) / 1_000;
                }
            }
            "duologue.playout.clear" => {
                self.held = false;
                self.queue.clear();
            }
            _ => {}
        }
        Ok(())
    }

    /// The next block; silence where there is nothing to play.
    pub fn block(&mut self) -> [i16; BLOCK] {
        let mut block = [0; BLOCK];
        if !self.held {
            let ready = self.queue.len().min(BLOCK);
            for (place, sample) in block.iter_mut().zip(self.queue.drain(..ready)) {
                *place = sample;
            }
            self.played += ready as u64;
        }
        block
    }

    /// Whether there is nothing to play.
    pub fn is_silent(&self) -> bool {
        self.held || self.queue.is_empty()
    }

    /// Samples that have come so far, of all items.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the server has asked for silence.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// A `duologue.playout` report.
    pub fn report(&self) -> Option<Value> {
        let item = self.item.as_ref()?;
        let ms = self.played as f64 * 1_000.0 / f64::from(RATE);
        Some(
            json!({"type": "duologue.playout", "item_id": item, "content_index": 0, "audio_end_ms": ms}),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_loudspeaker_is_silent_and_goes_on_with_what_is_sent_again() -> Result<(), ClientError>
    {
        let sound = |value: i16, blocks: usize| {
            let samples = vec![value; blocks * BLOCK];
            let delta = STANDARD.encode(duologue_audio::pcm::i16_to_le_bytes(&samples));
            json!({"type": "response.output_audio.delta", "item_id": "i", "delta": delta})
        };
        let mut playout = Playout::default();
        playout.event(&sound(1, 3))?;
        assert_eq!(playout.block(), [1; BLOCK]);
        playout.event(&json!({"type": "duologue.playout.pause"}))?;
        assert_eq!(playout.block(), [0; BLOCK]);
        playout.event(&json!({"type": "duologue.playout.resume", "audio_start_ms": 10}))?;
        playout.event(&sound(2, 1))?;
        assert_eq!(playout.block(), [2; BLOCK]);
        assert_eq!(
            playout
                .report()
                .map(|report| report["audio_end_ms"].clone()),
            Some(json!(30.0))
        );
        playout.event(&sound(3, 1))?;
        playout.event(&json!({"type": "duologue.playout.clear"}))?;
        assert!(playout.is_silent());
        Ok(())
    }
}
