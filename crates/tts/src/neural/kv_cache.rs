//! What a transformer remembers of the steps so far: keys and values in memory that is taken once.

use candle_core::{DType, Device, Result, Tensor};

/// Keys and values of all layers, for one session, or for several that go step by step together.
///
/// Room for all steps is taken at the start, so a step writes its own rows and copies nothing. A clone of the
/// tensors would share that memory, so there is none: [`KvCache::copy_from`] copies.
pub(crate) struct KvCache {
    /// Keys and values, each `[sessions, heads, capacity, head]`.
    layers: Vec<(Tensor, Tensor)>,
    sessions: usize,
    steps: usize,
    capacity: usize,
}

impl KvCache {
    pub(crate) fn new(
        sessions: usize,
        layers: usize,
        heads: usize,
        head: usize,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let room = || Tensor::zeros((sessions, heads, capacity, head), dtype, device);
        let layers = (0..layers)
            .map(|_| Ok((room()?, room()?)))
            .collect::<Result<_>>()?;
        Ok(KvCache {
            layers,
            sessions,
            steps: 0,
            capacity,
        })
    }

    /// Sessions that it is of.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions
    }

    /// Steps remembered, of each.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Steps there is room for yet.
    pub(crate) fn room(&self) -> usize {
        self.capacity - self.steps
    }

    /// Forgets all but the first `steps`.
    pub(crate) fn truncate(&mut self, steps: usize) {
        self.steps = self.steps.min(steps);
    }

    /// Memory taken, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let size = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
        self.layers.iter().map(|(k, v)| size(k) + size(v)).sum()
    }

    /// Writes a layer's new steps, `[sessions, heads, steps, head]`, behind those before and gives all there are now. The
    /// steps count only after [`KvCache::advance`], when every layer has written its own.
    pub(super) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let new = keys.dim(2)?;
        if new > self.room() {
            candle_core::bail!(
                "{new} steps do not fit behind {} of {}",
                self.steps,
                self.capacity
            );
        }
        let (all_keys, all_values) = &self.layers[layer];
        all_keys.slice_set(&keys.contiguous()?, 2, self.steps)?;
        all_values.slice_set(&values.contiguous()?, 2, self.steps)?;
        let until = self.steps + new;
        Ok((
            all_keys.narrow(2, 0, until)?,
            all_values.narrow(2, 0, until)?,
        ))
    }

    pub(super) fn advance(&mut self, steps: usize) {
        self.steps += steps;
    }

    /// Remembers what another cache of the same shape does, and nothing else.
    pub(crate) fn copy_from(&mut self, other: &KvCache) -> Result<()> {
        if other.steps > self.capacity {
            candle_core::bail!("{} steps do not fit into {}", other.steps, self.capacity);
        }
        if other.steps > 0 {
            for ((keys, values), (from_keys, from_values)) in self.layers.iter().zip(&other.layers)
            {
                let part = |t: &Tensor| t.narrow(2, 0, other.steps)?.contiguous();
                keys.slice_set(&part(from_keys)?, 2, 0)?;
                values.slice_set(&part(from_values)?, 2, 0)?;
            }
        }
        self.steps = other.steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cache(capacity: usize) -> KvCache {
        KvCache::new(1, 1, 1, 2, capacity, DType::F32, &Device::Cpu).unwrap()
    }

    fn rows(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (1, 1, values.len() / 2, 2), &Device::Cpu).unwrap()
    }

    fn append(cache: &mut KvCache, values: &[f32]) -> Vec<f32> {
        let rows = rows(values);
        let (keys, _) = cache.append(0, &rows, &rows).unwrap();
        cache.advance(values.len() / 2);
        keys.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn steps_follow_each_other_and_a_copy_goes_its_own_way() {
        let mut one = cache(4);
        append(&mut one, &[1.0, 2.0]);
        let mut other = cache(3);
        other.copy_from(&one).unwrap();
        assert_eq!(append(&mut one, &[3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(append(&mut other, &[5.0, 6.0]), [1.0, 2.0, 5.0, 6.0]);
        one.truncate(1);
        assert_eq!(append(&mut one, &[7.0, 8.0]), [1.0, 2.0, 7.0, 8.0]);
    }

    #[test]
    fn a_step_too_many_is_refused() {
        let mut cache = cache(2);
        append(&mut cache, &[0.0; 4]);
        let row = rows(&[0.0; 2]);
        assert!(cache.append(0, &row, &row).is_err());
        assert_eq!((cache.steps(), cache.room()), (2, 0));
    }
}
