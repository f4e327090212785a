//! Calls of models by the Open Inference Protocol v2 (KServe, Triton), whatever they travelled in.
//!
//! Computes nothing: every call goes through the router, so that it shares batches with the calls of runs. Knows neither
//! HTTP nor gRPC. Used by the routes below `/v2` and by the gRPC service.

pub(crate) mod calling;
mod classes;
pub(crate) mod config;
mod elements;
pub(crate) mod message;
pub(crate) mod repository;
pub(crate) mod served;
pub(crate) mod statistics;

use std::time::Duration;

use bytes::Bytes;
use motet_engine::tensor::{Datatype, Tensor};

use crate::http::problem::Problem;

/// The messages of the protocol, which both surfaces answer.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/open_inference.proto, which explains the fields"
)]
pub(crate) mod proto {
    tonic::include_proto!("inference");
}

/// What the server says it can do beyond the protocol's core.
pub(crate) const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"];

/// Dimensions that a tensor may have: more is no tensor but an attack.
const MAX_DIMENSIONS: usize = 16;

/// One call of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// Name of the model.
    pub(crate) model: String,
    /// Its version; the newest when empty.
    pub(crate) version: String,
    /// The client's name of the call, handed back.
    pub(crate) id: String,
    /// Inputs by name, in the order in which they came.
    pub(crate) inputs: Vec<(String, Tensor)>,
    /// The outputs that are wanted; all when empty.
    pub(crate) outputs: Vec<Wanted>,
    /// Whether outputs that nothing else is said of come as bytes.
    pub(crate) binary: bool,
    /// Longest time for the answer.
    pub(crate) timeout: Option<Duration>,
}

/// An output that a call asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) name: String,
    /// Whether it comes as bytes.
    pub(crate) binary: bool,
    /// So many of the highest elements of each row, as texts; 0 for the elements themselves.
    pub(crate) classes: usize,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answered {
    /// Name of the model.
    pub(crate) model: String,
    /// The version that answered.
    pub(crate) version: String,
    /// The client's name of the call.
    pub(crate) id: String,
    /// The outputs that were asked for, in that order.
    pub(crate) outputs: Vec<Output>,
}

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    /// Its name.
    pub(crate) name: String,
    /// What the model gave.
    pub(crate) tensor: Tensor,
    /// Whether it goes out as bytes.
    pub(crate) binary: bool,
}

/// A call that cannot be understood or does not fit its model.
pub(crate) fn invalid(words: impl Into<String>) -> Problem {
    Problem::new(400, "invalid", words.into())
}

/// A datatype by its name.
fn datatype(input: &str, name: &str) -> Result<Datatype, Problem> {
    let known = Datatype::ALL.iter().find(|(_, known)| *known == name);
    known.map(|(datatype, _)| *datatype).ok_or_else(|| {
        let names: Vec<_> = Datatype::ALL.iter().map(|(_, name)| *name).collect();
        invalid(format!("input '{input}': '{name}' is no datatype; there are {}", names.join(", ")))
    })
}

/// A shape whose number of elements can be counted.
fn shape(input: &str, shape: &[i64]) -> Result<Vec<usize>, Problem> {
    if shape.len() > MAX_DIMENSIONS {
        let most = format!("input '{input}': {} dimensions; {MAX_DIMENSIONS} are the most", shape.len());
        return Err(invalid(most));
    }
    let lengths: Option<Vec<usize>> = shape.iter().map(|&length| usize::try_from(length).ok()).collect();
    let Some(lengths) = lengths else {
        return Err(invalid(format!("input '{input}': shape {shape:?} has a length below 0")));
    };
    // As if nothing were empty: pieces of the tensor are counted without their first dimension, too.
    let bytes = lengths.iter().try_fold(8usize, |product, &length| product.checked_mul(length.max(1)));
    if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(invalid(format!("input '{input}': shape {shape:?} has more elements than can be counted")));
    }
    Ok(lengths)
}

/// The number of elements of a shape that [`shape`] took.
fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// A tensor from its raw bytes.
pub(crate) fn tensor(input: &str, datatype_name: &str, lengths: &[i64], data: Bytes) -> Result<Tensor, Problem> {
    let (datatype, lengths) = (datatype(input, datatype_name)?, shape(input, lengths)?);
    if datatype == Datatype::Bool && data.iter().any(|byte| *byte > 1) {
        return Err(invalid(format!("input '{input}': an element of BOOL is neither 0 nor 1")));
    }
    Tensor::new(datatype, lengths, data).map_err(|error| invalid(format!("input '{input}': {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_are_counted_without_overflow() {
        let huge = i64::MAX;
        let cases: [(&str, &[i64], usize, bool); 12] = [
            ("FP32", &[2, 3], 24, true),
            ("FP32", &[2, 3], 20, false),
            ("FP32", &[0, 3], 0, true),
            ("FP32", &[-1], 4, false),
            ("FP32", &[huge, huge], 0, false),
            ("FP32", &[0, huge, huge], 0, false),
            ("UINT8", &[huge, 0], 0, false),
            ("UINT8", &[0, 1 << 40, 1 << 40], 0, false),
            ("BYTES", &[1], 4, true),
            ("BYTES", &[2], 4, false),
            ("FP31", &[1], 4, false),
            ("UINT8", &[1; 17], 1, false),
        ];
        for (name, lengths, bytes, fits) in cases {
            let made = tensor("x", name, lengths, vec![0; bytes].into());
            assert_eq!(made.is_ok(), fits, "{name} {lengths:?} {bytes}: {made:?}");
        }
        assert!(tensor("x", "BOOL", &[2], Bytes::from_static(&[0, 1])).is_ok());
        assert!(tensor("x", "BOOL", &[2], Bytes::from_static(&[0, 2])).is_err());
    }

    proptest! {
        /// Whatever is claimed of whatever bytes, the answer is a tensor that holds together or a refusal.
        #[test]
        fn claims_about_bytes_never_panic(
            name in prop::sample::select(Datatype::ALL.map(|(_, name)| name).to_vec()),
            lengths in prop::collection::vec(prop_oneof![-2i64..6, any::<i64>()], 0..5),
            data in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Ok(tensor) = tensor("x", name, &lengths, data.into()) {
                let rows = vec![1; tensor.rows()];
                if !tensor.shape().is_empty() {
                    prop_assert_eq!(tensor.split(&rows).unwrap().len(), rows.len());
                }
            }
        }
    }
}
