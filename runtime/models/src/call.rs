//! Between the values of steps and the tensors of models: one call in, one call out, many calls in one batch.
//!
//! Never runs a model and never retries. Used by the model actor (joining and splitting) and by whatever turns a step's
//! evaluated `with` into a call; `check` is used by the backends.

mod element;
mod encoder;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use motet_engine::failure::Failure;
use motet_engine::tensor::Tensor;
use motet_engine::value::{Map, Value};

use self::encoder::Encoder;
use crate::failure::{internal, invalid};
use crate::port::{ModelSignature, TensorSpec, Tensors};
use crate::suggestion::suggestion;

/// A call as a model takes it.
#[derive(Clone, PartialEq, Debug)]
pub struct EncodedCall {
    /// Inputs by name, all with `rows` rows.
    pub inputs: Tensors,
    /// Rows of the call.
    pub rows: usize,
    /// Whether the call was written for one item, so that its answer has no dimension for rows.
    pub single: bool,
}

/// Turns a step's evaluated `with` into tensors. For every input a value of the shape of one row makes a single call,
/// a list of such values or a tensor with one dimension more a call of many rows. `null` leaves an optional input out.
///
/// # Errors
/// `Invalid` with the path of the value: a missing or unknown input, a wrong type or shape, inputs of different rows.
pub fn encode(signature: &ModelSignature, with: &Value) -> Result<EncodedCall, Failure> {
    let Value::Map(with) = with else {
        return Err(invalid(format!("with: the inputs of a model are a map of names, not {}", with.kind())));
    };
    for name in with.keys() {
        if !signature.inputs.iter().any(|spec| *spec.name == **name) {
            return Err(unknown_input(signature, name));
        }
    }
    let mut inputs = Tensors::new();
    let mut agreed: Option<(&str, usize, bool)> = None;
    for spec in &signature.inputs {
        let value = match with.get(spec.name.as_str()) {
            None | Some(Value::Null) if spec.optional => continue,
            None => return Err(invalid(format!("with.{}: this input of the model is missing", spec.name))),
            Some(value) => value,
        };
        let (tensor, single) = Encoder::encode(spec, value)?;
        let rows = tensor.rows();
        match agreed {
            None => agreed = Some((&spec.name, rows, single)),
            Some((_, first_rows, first_single)) if (first_rows, first_single) == (rows, single) => {}
            Some((first, first_rows, first_single)) => {
                let (here, there) = (row_words(rows, single), row_words(first_rows, first_single));
                return Err(invalid(format!("with.{}: {here}, but with.{first} is {there}", spec.name)));
            }
        }
        inputs.insert(spec.name.clone(), tensor);
    }
    let (_, rows, single) = agreed.ok_or_else(|| invalid("with: a call of a model needs at least one input"))?;
    Ok(EncodedCall { inputs, rows, single })
}

fn row_words(rows: usize, single: bool) -> String {
    if single { "one item".to_owned() } else { format!("a list of {rows}") }
}

fn unknown_input(signature: &ModelSignature, name: &str) -> Failure {
    let known: Vec<&str> = signature.inputs.iter().map(|spec| spec.name.as_str()).collect();
    let hint = suggestion(name, known.iter().copied());
    invalid(format!("with.{name}: the model has no such input{hint}; its inputs are: {}", known.join(", ")))
}

/// A model's answer as a step's output: a map by name. For a single call the dimension of rows goes away, and a lone
/// element becomes a string, number or boolean.
#[must_use]
pub fn decode(outputs: Tensors, single: bool) -> Value {
    let decoded: Map = outputs
        .into_iter()
        .map(|(name, tensor)| (Arc::from(name), if single { without_row(tensor) } else { Value::Tensor(tensor) }))
        .collect();
    decoded.into()
}

fn without_row(tensor: Tensor) -> Value {
    let row = match tensor.shape().split_first() {
        Some((1, row)) => row.to_vec(),
        _ => return Value::Tensor(tensor),
    };
    match tensor.reshaped(row) {
        Ok(element) if element.shape().is_empty() => element::scalar(element),
        Ok(element) => Value::Tensor(element),
        Err(_) => Value::Tensor(tensor),
    }
}

/// Checks a request against a signature: known inputs, all that are needed, right types, shapes and rows.
///
/// # Errors
/// `Invalid` with the name of the input.
pub fn check(signature: &ModelSignature, inputs: &Tensors, rows: usize) -> Result<(), Failure> {
    if let Some(name) = inputs.keys().find(|name| signature.inputs.iter().all(|spec| spec.name != **name)) {
        return Err(unknown_input(signature, name));
    }
    for spec in &signature.inputs {
        match inputs.get(&spec.name) {
            None if spec.optional => {}
            None => return Err(invalid(format!("with.{}: this input of the model is missing", spec.name))),
            Some(tensor) => {
                check_tensor(spec, tensor)?;
                if tensor.rows() != rows {
                    let actual = tensor.rows();
                    return Err(invalid(format!("with.{}: {actual} rows in a batch of {rows}", spec.name)));
                }
            }
        }
    }
    Ok(())
}

fn check_tensor(spec: &TensorSpec, tensor: &Tensor) -> Result<(), Failure> {
    let fits = tensor.shape().len() == spec.shape.len()
        && tensor.shape().iter().zip(&spec.shape).all(|(&length, wanted)| wanted.is_none_or(|wanted| wanted == length));
    if tensor.datatype() == spec.datatype && fits {
        return Ok(());
    }
    let wanted = shape_words(&spec.shape);
    Err(invalid(format!("with.{}: {tensor:?} where {}{wanted} is expected", spec.name, spec.datatype)))
}

/// A shape as people write it: `[-1, 384]`.
fn shape_words(shape: &[Option<usize>]) -> String {
    let lengths: Vec<String> = shape.iter().map(|length| length.map_or("-1".to_owned(), |n| n.to_string())).collect();
    format!("[{}]", lengths.join(", "))
}

/// A digest of what must be equal for calls to be [`joinable`]. Two different forms may, once in very many, be taken for
/// one: then the batch fails and its calls are tried alone.
#[must_use]
pub fn form(inputs: &Tensors) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (name, tensor) in inputs {
        name.hash(&mut hasher);
        tensor.datatype().hash(&mut hasher);
        tensor.shape().get(1..).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether calls can share a batch: the same inputs, each of the same type and shape of a row.
#[must_use]
pub fn joinable(left: &Tensors, right: &Tensors) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|((left_name, left), (right_name, right))| {
            left_name == right_name
                && left.datatype() == right.datatype()
                && !left.shape().is_empty()
                && left.shape().get(1..) == right.shape().get(1..)
        })
}

/// Joins the inputs of several calls into those of one batch, in order.
///
/// # Errors
/// `Internal` when the calls are not [`joinable`] or there is none: the batcher must not have put them together.
pub fn join(calls: &[&Tensors]) -> Result<Tensors, Failure> {
    let Some((first, others)) = calls.split_first() else { return Err(internal("a batch without calls")) };
    if others.iter().any(|other| !joinable(first, other)) {
        return Err(internal("calls with different inputs cannot share a batch"));
    }
    let mut joined = Tensors::new();
    for name in first.keys() {
        let parts: Vec<Tensor> = calls.iter().filter_map(|call| call.get(name).cloned()).collect();
        let tensor = Tensor::concat(&parts).map_err(|error| internal(format!("the input '{name}': {error}")))?;
        joined.insert(name.clone(), tensor);
    }
    Ok(joined)
}

/// Cuts a batch's outputs into those of its calls, which have `rows` rows each. The pieces share the batch's bytes.
///
/// # Errors
/// `Internal` when the backend did not answer exactly one row per row asked.
pub fn split(outputs: &Tensors, rows: &[usize]) -> Result<Vec<Tensors>, Failure> {
    let asked = rows.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    let asked = asked.ok_or_else(|| internal("a batch has more rows than can be counted"))?;
    let mut calls = vec![Tensors::new(); rows.len()];
    for (name, tensor) in outputs {
        if tensor.shape().first() != Some(&asked) {
            return Err(internal(format!("the backend answered {tensor:?} as '{name}' for a batch of {asked} rows")));
        }
        let pieces = tensor.split(rows).map_err(|error| internal(format!("the output '{name}': {error}")))?;
        for (call, piece) in calls.iter_mut().zip(pieces) {
            call.insert(name.clone(), piece);
        }
    }
    Ok(calls)
}
