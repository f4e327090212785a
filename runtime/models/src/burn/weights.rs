//! Reads tensors out of a safetensors file strictly: every one that is asked for must be there with the right shape,
//! and every one that is there must have been asked for.
//!
//! A file that does not fit its architecture is refused instead of giving wrong numbers. Used by the architectures.

use std::collections::BTreeSet;
use std::path::Path;

use motet_engine::failure::{Failure, FailureClass};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::failure::invalid;
use crate::suggestion::suggestion;

/// Names listed in a message before it says how many more there are.
const NAMES_SHOWN: usize = 3;

/// The tensors of one file, with a memory of which were taken.
pub(super) struct Weights<'data> {
    file: SafeTensors<'data>,
    prefix: &'static str,
    taken: BTreeSet<String>,
}

impl<'data> Weights<'data> {
    /// Reads the header. The bytes stay where they are.
    pub(super) fn new(bytes: &'data [u8]) -> Result<Self, Failure> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| invalid(format!("the weights are no valid safetensors file: {error}")))?;
        Ok(Self { file, prefix: "", taken: BTreeSet::new() })
    }

    /// Puts `prefix` before every name from now on if the file has tensors of that prefix.
    pub(super) fn enter(&mut self, prefix: &'static str) {
        if self.file.iter().any(|(name, _)| name.starts_with(prefix)) {
            self.prefix = prefix;
        }
    }

    /// The elements of a tensor that must have this shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Failure> {
        let name = format!("{}{name}", self.prefix);
        let view = self.file.tensor(&name).map_err(|_| {
            let hint = suggestion(&name, self.file.names());
            invalid(format!("the weights lack the tensor '{name}' of shape {shape:?}{hint}"))
        })?;
        if view.shape() != shape {
            return Err(invalid(format!("the tensor '{name}' has the shape {:?}, not {shape:?}", view.shape())));
        }
        let elements = to_f32(&name, &view)?;
        self.taken.insert(name);
        Ok(elements)
    }

    /// Refuses a file with tensors that were not taken, but for those whose name ends with one of `unneeded`.
    pub(super) fn finish(self, unneeded: &[&str]) -> Result<(), Failure> {
        let mut unused: Vec<&str> = self.file.names();
        unused.retain(|name| !self.taken.contains(*name) && !unneeded.iter().any(|end| name.ends_with(end)));
        unused.sort_unstable();
        if unused.is_empty() {
            return Ok(());
        }
        let shown = unused.iter().take(NAMES_SHOWN).map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let more = unused.len().saturating_sub(NAMES_SHOWN);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        Err(invalid(format!("the weights hold tensors that the architecture has no place for: {shown}{more}")))
    }
}

fn to_f32(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, Failure> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::BF16 => Ok(bytes
            .chunks_exact(2)
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))
            .collect()),
        other => Err(invalid(format!("the tensor '{name}' has the type {other:?}; F32 and BF16 can be read"))),
    }
}

/// Columns and rows exchanged: weights are stored as [output, input], products want [input, output].
pub(super) fn transposed(elements: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = vec![0.0; elements.len()];
    for (row, line) in elements.chunks_exact(columns.max(1)).enumerate() {
        for (column, &element) in line.iter().enumerate() {
            turned[column * rows + row] = element;
        }
    }
    turned
}

/// A file of the artefact, with a failure that names it.
pub(super) fn read(folder: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let path = folder.join(name);
    std::fs::read(&path).map_err(|error| {
        let class = match error.kind() {
            std::io::ErrorKind::NotFound => FailureClass::NotFound,
            _ => FailureClass::Internal,
        };
        Failure::new(class, format!("{} cannot be read: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::serialize;

    use super::*;

    fn file() -> Vec<u8> {
        let data: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|f| f.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2, 3], &data).unwrap();
        let ids = TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
        serialize([("bert.linear.weight", view), ("bert.position_ids", ids)], None).unwrap()
    }

    #[test]
    fn what_is_missing_misshapen_or_unused_is_refused() {
        let bytes = file();
        let mut weights = Weights::new(&bytes).unwrap();
        weights.enter("bert.");
        let message = weights.take("linear.wieght", &[2, 3]).unwrap_err().message;
        assert!(message.contains("did you mean 'bert.linear.weight'?"), "{message}");
        let message = weights.take("linear.weight", &[3, 2]).unwrap_err().message;
        assert!(message.contains("has the shape [2, 3], not [3, 2]"), "{message}");
        let message = weights.take("position_ids", &[1]).unwrap_err().message;
        assert!(message.contains("I64"), "{message}");
        let message = Weights::new(&bytes).unwrap().finish(&["position_ids"]).unwrap_err().message;
        assert!(message.contains("'bert.linear.weight'"), "{message}");
        assert_eq!(weights.take("linear.weight", &[2, 3]).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        weights.finish(&["position_ids"]).unwrap();
        assert!(Weights::new(b"not a file").is_err());
    }

    #[test]
    fn transposing_exchanges_rows_and_columns() {
        assert_eq!(transposed(&[1., 2., 3., 4., 5., 6.], 2, 3), [1., 4., 2., 5., 3., 6.]);
    }
}
