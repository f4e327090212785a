//! Walks one input's value, nested lists and tensors in any mixture, into one tensor.
//!
//! Used by `call::encode`.

use motet_engine::failure::Failure;
use motet_engine::tensor::Tensor;
use motet_engine::value::Value;

use super::{check_tensor, element, shape_words};
use crate::failure::invalid;
use crate::port::TensorSpec;

/// Dimensions that a value may have: more is no tensor but an attack on the stack.
const MAX_DIMENSIONS: usize = 16;

/// What is known so far about the tensor being built.
pub(super) struct Encoder<'a> {
    spec: &'a TensorSpec,
    /// Lengths by dimension as first seen.
    lengths: Vec<usize>,
    /// Dimensions of the value, known from the first leaf on.
    depth: Option<usize>,
    data: Vec<u8>,
    /// Place of the value being looked at.
    place: Vec<usize>,
}

impl<'a> Encoder<'a> {
    /// The tensor of an input with its dimension of rows, and whether the value was a single row.
    pub(super) fn encode(spec: &'a TensorSpec, value: &Value) -> Result<(Tensor, bool), Failure> {
        let mut encoder = Self { spec, lengths: vec![], depth: None, data: vec![], place: vec![] };
        if spec.shape.is_empty() {
            return Err(encoder.refused("the model describes this input without a dimension of rows".to_owned()));
        }
        // The common case: a tensor from another step passes with its bytes as they are.
        let (tensor, depth) = if let Value::Tensor(tensor) = value {
            encoder.check_type(tensor)?;
            (tensor.clone(), tensor.shape().len())
        } else {
            encoder.walk(value)?;
            let shape = std::mem::take(&mut encoder.lengths);
            let depth = shape.len();
            let data = std::mem::take(&mut encoder.data);
            (Tensor::new(spec.datatype, shape, data.into()).map_err(|error| encoder.refused(error.to_string()))?, depth)
        };
        let single = depth + 1 == spec.shape.len();
        if !single && depth != spec.shape.len() {
            let wanted = shape_words(spec.shape.get(1..).unwrap_or_default());
            return Err(encoder.refused(format!(
                "{depth} dimensions; one item has the shape {wanted}, many have one dimension more"
            )));
        }
        let tensor = if single {
            let shape: Vec<usize> = std::iter::once(1).chain(tensor.shape().iter().copied()).collect();
            tensor.reshaped(shape).map_err(|error| encoder.refused(error.to_string()))?
        } else {
            tensor
        };
        check_tensor(spec, &tensor)?;
        Ok((tensor, single))
    }

    fn walk(&mut self, value: &Value) -> Result<(), Failure> {
        let dimension = self.place.len();
        match value {
            Value::List(items) => {
                self.dimension(dimension, items.len())?;
                for (index, item) in items.iter().enumerate() {
                    self.place.push(index);
                    self.walk(item)?;
                    self.place.pop();
                }
                Ok(())
            }
            Value::Tensor(tensor) => {
                self.check_type(tensor)?;
                for (inner, &length) in tensor.shape().iter().enumerate() {
                    self.dimension(dimension + inner, length)?;
                }
                self.leaf(dimension + tensor.shape().len())?;
                self.data.extend_from_slice(tensor.data());
                Ok(())
            }
            scalar => {
                self.leaf(dimension)?;
                element::append(self.spec.datatype, scalar, &mut self.data).map_err(|what| self.refused(what))
            }
        }
    }

    fn check_type(&self, tensor: &Tensor) -> Result<(), Failure> {
        if tensor.datatype() == self.spec.datatype {
            return Ok(());
        }
        Err(self.refused(format!("a tensor of {} where {} is expected", tensor.datatype(), self.spec.datatype)))
    }

    /// Notes or compares the length of a dimension.
    fn dimension(&mut self, dimension: usize, length: usize) -> Result<(), Failure> {
        match self.lengths.get(dimension) {
            Some(&first) if first == length => Ok(()),
            Some(first) => Err(self.refused(format!("{length} elements where its neighbours have {first}"))),
            None if self.depth.is_some_and(|depth| dimension >= depth) => {
                Err(self.refused("a list where its neighbours are single values".to_owned()))
            }
            None if dimension >= MAX_DIMENSIONS => {
                Err(self.refused(format!("lists nested deeper than {MAX_DIMENSIONS}")))
            }
            None => {
                self.lengths.push(length);
                Ok(())
            }
        }
    }

    /// Notes or compares the depth at which single values stand.
    fn leaf(&mut self, depth: usize) -> Result<(), Failure> {
        if *self.depth.get_or_insert(depth) == depth && self.lengths.len() == depth {
            return Ok(());
        }
        Err(self.refused("a single value where its neighbours are lists".to_owned()))
    }

    /// A failure that names the value's path.
    fn refused(&self, what: String) -> Failure {
        let place: String = self.place.iter().map(|index| format!("[{index}]")).collect();
        invalid(format!("with.{}{place}: {what}", self.spec.name))
    }
}
