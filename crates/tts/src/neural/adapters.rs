//! Who in a batch has which adapter.

use candle_core::{Result, Tensor};

use super::LoraSet;

/// The adapters of a batch's rows, as runs of neighbours that have the same one or none: each run is one product with
/// the adapter's matrices, so it pays to let those who share an adapter stand together.
#[derive(Default)]
pub(crate) struct Adapters<'a>(Vec<Run<'a>>);

struct Run<'a> {
    rows: usize,
    lora: Option<&'a LoraSet>,
}

impl<'a> Adapters<'a> {
    /// Of so many rows each.
    pub(crate) fn new(each: impl IntoIterator<Item = (usize, Option<&'a LoraSet>)>) -> Self {
        let mut runs: Vec<Run<'a>> = Vec::new();
        for (rows, lora) in each {
            match runs.last_mut() {
                Some(last) if same(last.lora, lora) => last.rows += rows,
                _ => runs.push(Run { rows, lora }),
            }
        }
        Adapters(runs)
    }

    /// The same where each row is `times` rows.
    pub(crate) fn each(&self, times: usize) -> Self {
        Adapters::new(self.0.iter().map(|run| (run.rows * times, run.lora)))
    }

    /// Adds to `plain`, `[rows, outputs]`, what the adapters make of `x`, `[rows, inputs]`, in a module. `plain` is
    /// written into.
    pub(super) fn add(&self, module: &str, x: &Tensor, plain: Tensor) -> Result<Tensor> {
        let (all, known) = (x.dim(0)?, self.0.iter().map(|run| run.rows).sum::<usize>());
        if known != all {
            candle_core::bail!("a batch of {all} rows has adapters for {known}");
        }
        let mut from = 0;
        for run in &self.0 {
            if let Some(pair) = run.lora.and_then(|set| set.find(module)) {
                if run.rows == all {
                    return plain + pair.forward(x)?;
                }
                let change = pair.forward(&x.narrow(0, from, run.rows)?)?;
                let sum = (plain.narrow(0, from, run.rows)? + change)?;
                plain.slice_set(&sum, 0, from)?;
            }
            from += run.rows;
        }
        Ok(plain)
    }
}

fn same(a: Option<&LoraSet>, b: Option<&LoraSet>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        _ => false,
    }
}
