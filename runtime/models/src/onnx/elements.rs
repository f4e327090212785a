//! Between tensors with their declared types and the values that rten computes with.
//!
//! Never rounds and never wraps: a number that rten cannot hold is an error that names it. Used by `graph`.

use bytes::Bytes;
use motet_engine::failure::Failure;
use motet_engine::tensor::{Datatype, Tensor};
use rten::Value;
use rten_tensor::prelude::*;

use crate::failure::{internal, invalid};

/// An input as rten takes it.
///
/// # Errors
/// `Invalid` for a whole number beyond 32 bits, `Internal` for a type that a declaration does not allow.
pub(super) fn value(name: &str, tensor: &Tensor) -> Result<Value, Failure> {
    let (shape, data) = (tensor.shape(), tensor.data());
    let made = match tensor.datatype() {
        Datatype::Fp32 => shaped(shape, numbers(data, f32::from_le_bytes)),
        Datatype::Int32 => shaped(shape, numbers(data, i32::from_le_bytes)),
        Datatype::Int64 => {
            let narrow = |number: i64| {
                i32::try_from(number).map_err(|_| {
                    invalid(format!("with.{name}: {number} is too large for this engine, which computes with 32 bits"))
                })
            };
            let narrowed = numbers(data, i64::from_le_bytes).into_iter().map(narrow).collect::<Result<Vec<_>, _>>()?;
            shaped(shape, narrowed)
        }
        Datatype::Bool => shaped(shape, data.iter().map(|byte| i32::from(*byte != 0)).collect::<Vec<_>>()),
        Datatype::Uint8 => shaped(shape, data.to_vec()),
        Datatype::Int8 => shaped(shape, data.iter().map(|byte| byte.cast_signed()).collect::<Vec<_>>()),
        other => return Err(internal(format!("with.{name}: {other} cannot be given to this engine"))),
    };
    made.ok_or_else(|| internal(format!("with.{name}: {tensor:?} has not as many elements as its shape says")))
}

fn shaped<T>(shape: &[usize], elements: Vec<T>) -> Option<Value>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    rten_tensor::Tensor::try_from_data(shape, elements).ok().map(Value::from)
}

fn numbers<const SIZE: usize, T>(data: &[u8], read: fn([u8; SIZE]) -> T) -> Vec<T> {
    data.as_chunks::<SIZE>().0.iter().map(|bytes| read(*bytes)).collect()
}

/// An output with the type that the file declares.
///
/// # Errors
/// `Internal` when rten gives something else.
pub(super) fn tensor(name: &str, value: Value, declared: Datatype) -> Result<Tensor, Failure> {
    let shape = value.shape().to_vec();
    let given = value.dtype();
    let wrong = || internal(format!("the output '{name}' came as {given} where {declared} is declared"));
    let data: Bytes = match (declared, value) {
        (Datatype::Fp32, Value::FloatTensor(tensor)) => bytes(tensor.into_data(), f32::to_le_bytes),
        (Datatype::Int32, Value::Int32Tensor(tensor)) => bytes(tensor.into_data(), i32::to_le_bytes),
        (Datatype::Int64, Value::Int32Tensor(tensor)) => {
            bytes(tensor.into_data(), |number| i64::from(number).to_le_bytes())
        }
        (Datatype::Bool, Value::Int32Tensor(tensor)) => bytes(tensor.into_data(), |number| [u8::from(number != 0)]),
        (Datatype::Uint8, Value::UInt8Tensor(tensor)) => tensor.into_data().into(),
        (Datatype::Int8, Value::Int8Tensor(tensor)) => bytes(tensor.into_data(), i8::to_le_bytes),
        _ => return Err(wrong()),
    };
    Tensor::new(declared, shape, data).map_err(|error| internal(format!("the output '{name}': {error}")))
}

fn bytes<const SIZE: usize, T>(numbers: Vec<T>, write: fn(T) -> [u8; SIZE]) -> Bytes {
    numbers.into_iter().flat_map(write).collect::<Vec<u8>>().into()
}
