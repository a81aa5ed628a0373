//! Makes speech quicker or slower without changing its pitch: overlapping windows of it are laid closer together or
//! further apart, each taken from where it continues the one before best (WSOLA: Verhelst and Roelants, 1993).

/// Stretches sound piece by piece.
pub(crate) struct Stretcher {
    speed: f64,
    /// Samples between two windows as they are laid; a window is two of them.
    hop: usize,
    /// How far a window may be from its place, to either side.
    reach: usize,
    /// Input from sample `start` on.
    input: Vec<f32>,
    start: usize,
    /// Input samples seen.
    seen: usize,
    /// Windows laid.
    windows: usize,
    /// Where in the input the next window would begin if speed were 1.
    natural: usize,
    /// Second half of the last window, faded out.
    tail: Vec<f32>,
    given: usize,
}

impl Stretcher {
    /// For sound at `rate` Hz; `speed` 2.0 halves its length.
    pub(crate) fn new(rate: u32, speed: f64) -> Self {
        let hop = rate as usize * 15 / 1_000;
        Stretcher {
            speed,
            hop,
            reach: rate as usize * 7 / 1_000,
            input: Vec::new(),
            start: 0,
            seen: 0,
            windows: 0,
            natural: 0,
            tail: vec![0.0; hop],
            given: 0,
        }
    }

    /// Adds a piece of sound; what that completes.
    pub(crate) fn process(&mut self, piece: &[f32]) -> Vec<f32> {
        self.input.extend_from_slice(piece);
        self.seen += piece.len();
        let output = self.lay(self.seen);
        self.given += output.len();
        output
    }

    /// Ends the sound: what is left. All together is as long as the input divided by the speed.
    pub(crate) fn flush(&mut self) -> Vec<f32> {
        let length = self.at(self.seen) - self.given;
        // Silence behind the end lets the last windows be laid.
        let padding = (length as f64 * self.speed) as usize + 3 * self.hop + 2 * self.reach;
        self.input.extend(std::iter::repeat_n(0.0, padding));
        let mut rest = self.lay(self.seen + padding);
        rest.resize(length, 0.0);
        self.given += length;
        rest
    }

    /// Where a sample of the input comes in the output.
    fn at(&self, sample: usize) -> usize {
        (sample as f64 / self.speed).round() as usize
    }

    /// Lays all windows that the input up to `end` allows.
    fn lay(&mut self, end: usize) -> Vec<f32> {
        let mut output = Vec::new();
        loop {
            let place = (self.windows as f64 * self.hop as f64 * self.speed) as usize;
            let needed = place.max(self.natural) + self.reach + 2 * self.hop;
            if needed > end {
                break;
            }
            let from = if self.windows == 0 {
                0
            } else {
                self.best(place)
            };
            for n in 0..self.hop {
                // A raised cosine and its complement: together they are 1 everywhere.
                let rise = 0.5 - 0.5 * (std::f32::consts::PI * n as f32 / self.hop as f32).cos();
                let rise = if self.windows == 0 { 1.0 } else { rise };
                output.push(self.tail[n] + rise * self.sample(from + n));
                let fall = 0.5 + 0.5 * (std::f32::consts::PI * n as f32 / self.hop as f32).cos();
                self.tail[n] = fall * self.sample(from + self.hop + n);
            }
            self.windows += 1;
            self.natural = from + self.hop;
            let next = (self.windows as f64 * self.hop as f64 * self.speed) as usize;
            let keep = next.saturating_sub(self.reach).min(self.natural);
            self.input.drain(..keep - self.start);
            self.start = keep;
        }
        output
    }

    fn sample(&self, n: usize) -> f32 {
        self.input[n - self.start]
    }

    /// Where near `place` the input is most like what would have come next.
    fn best(&self, place: usize) -> usize {
        let next = &self.input[self.natural - self.start..][..self.hop];
        let likeness = |from: usize| {
            let there = &self.input[from - self.start..][..self.hop];
            let (mut product, mut energy) = (0.0f32, 1e-9f32);
            // Every second sample tells the same and takes half the time.
            for (a, b) in next.iter().zip(there).step_by(2) {
                product += a * b;
                energy += b * b;
            }
            product / energy.sqrt()
        };
        let first = place.saturating_sub(self.reach).max(self.start);
        let mut best = (place, f32::NEG_INFINITY);
        for from in (first..=place + self.reach).step_by(4) {
            let like = likeness(from);
            if like > best.1 {
                best = (from, like);
            }
        }
        let fine = best.0.saturating_sub(3).max(first)..=(best.0 + 3).min(place + self.reach);
        for from in fine {
            let like = likeness(from);
            if like > best.1 {
                best = (from, like);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 24_000;

    fn tone(seconds: f64) -> Vec<f32> {
        let n = (seconds * f64::from(RATE)) as usize;
        (0..n)
            .map(|i| 0.5 * (i as f32 * 220.0 * std::f32::consts::TAU / RATE as f32).sin())
            .collect()
    }

    fn stretch(sound: &[f32], speed: f64, piece: usize) -> Vec<f32> {
        let mut stretcher = Stretcher::new(RATE, speed);
        let mut out: Vec<f32> = sound
            .chunks(piece)
            .flat_map(|p| stretcher.process(p))
            .collect();
        out.extend(stretcher.flush());
        out
    }

    #[test]
    fn the_length_is_exact_and_the_pitch_is_kept() {
        let sound = tone(2.0);
        for speed in [0.5, 0.8, 1.3, 2.0] {
            let out = stretch(&sound, speed, 1_920);
            assert_eq!(out.len(), (sound.len() as f64 / speed).round() as usize);
            let middle = &out[2_400..out.len() - 2_400];
            let rises = middle.windows(2).filter(|w| w[0] <= 0.0 && w[1] > 0.0);
            let pitch = rises.count() as f64 * f64::from(RATE) / middle.len() as f64;
            assert!((pitch - 220.0).abs() < 4.0, "{pitch} Hz at speed {speed}");
            let energy: f32 = middle.iter().map(|s| s * s).sum();
            let level = (energy / middle.len() as f32).sqrt();
            assert!((0.3..0.4).contains(&level), "{level} at speed {speed}");
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        let sound = tone(0.7);
        let whole = stretch(&sound, 1.4, sound.len());
        for piece in [100, 333, 1_920] {
            assert_eq!(stretch(&sound, 1.4, piece), whole);
        }
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(stretch(&[], 2.0, 10).is_empty());
        assert_eq!(stretch(&[0.1; 10], 0.5, 10).len(), 20);
    }
}
