//! What an ONNX file says about its inputs and outputs, read from the file itself.
//!
//! rten narrows types (whole numbers to 32 bits, truth values to numbers), so what callers are told cannot come from it.
//! Never reads weights. Used by `graph`. Field numbers: onnx.proto, IR version 3 and later.

use std::collections::BTreeSet;

use motet_engine::failure::Failure;
use motet_engine::tensor::Datatype;
use prost::Message;

use crate::failure::invalid;
use crate::port::TensorSpec;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelProto {
    #[prost(string, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, tag = "3")]
    pub(super) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GraphProto {
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<InitializerProto>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfoProto>,
}

/// Only its name: the weights are skipped.
#[derive(Clone, PartialEq, Message)]
pub(super) struct InitializerProto {
    #[prost(string, tag = "8")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    pub(super) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) dim_param: Option<String>,
}

/// The element types that rten computes with, by their numbers in ONNX.
const DATATYPES: [(i32, Datatype); 6] = [
    (1, Datatype::Fp32),
    (2, Datatype::Uint8),
    (3, Datatype::Int8),
    (6, Datatype::Int32),
    (7, Datatype::Int64),
    (9, Datatype::Bool),
];

/// What a file declares.
pub(super) struct Declaration {
    /// Inputs that callers give; weights that are inputs too are left out.
    pub(super) inputs: Vec<TensorSpec>,
    /// Outputs.
    pub(super) outputs: Vec<TensorSpec>,
    /// Who wrote the file.
    pub(super) producer: String,
    /// Version of the standard operators.
    pub(super) opset: i64,
    /// How many rows a run takes, when the file fixes that.
    pub(super) fixed_rows: Option<usize>,
}

impl Declaration {
    /// Reads it from the bytes of a file.
    ///
    /// # Errors
    /// `Invalid` when they are no ONNX, or when an input or output cannot be served.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Failure> {
        let model = ModelProto::decode(bytes).map_err(|error| invalid(format!("it is no ONNX file: {error}")))?;
        let graph = model.graph.ok_or_else(|| invalid("it is no ONNX file: it has no graph"))?;
        let weights: BTreeSet<&str> = graph.initializer.iter().map(|weight| &*weight.name).collect();
        let given = graph.input.iter().filter(|input| !weights.contains(&*input.name));
        let inputs: Vec<_> = given.map(|input| spec("input", input)).collect::<Result<_, _>>()?;
        let outputs: Vec<_> = graph.output.iter().map(|output| spec("output", output)).collect::<Result<_, _>>()?;
        if inputs.is_empty() || outputs.is_empty() {
            return Err(invalid("it has no inputs or no outputs"));
        }
        let fixed_rows = fixed_rows(&inputs)?;
        let opset = model.opset_import.iter().find(|set| matches!(&*set.domain, "" | "ai.onnx"));
        let producer = format!("{} {}", model.producer_name, model.producer_version).trim().to_owned();
        let mut declared = Self { inputs, outputs, producer, opset: opset.map_or(0, |set| set.version), fixed_rows };
        // Callers may give any number of rows: a run of its own is made for as many as the file takes.
        for spec in declared.inputs.iter_mut().chain(&mut declared.outputs) {
            if let Some(row) = spec.shape.first_mut() {
                *row = None;
            }
        }
        Ok(declared)
    }
}

fn fixed_rows(inputs: &[TensorSpec]) -> Result<Option<usize>, Failure> {
    let rows: BTreeSet<Option<usize>> = inputs.iter().map(|input| input.shape.first().copied().flatten()).collect();
    match rows.iter().copied().collect::<Vec<_>>()[..] {
        [rows] => Ok(rows),
        _ => Err(invalid("its inputs have different first dimensions, so that calls cannot be rows of a batch")),
    }
}

fn spec(role: &str, value: &ValueInfoProto) -> Result<TensorSpec, Failure> {
    let name = &value.name;
    let declared = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let tensor = declared.ok_or_else(|| invalid(format!("its {role} '{name}' is no tensor")))?;
    let datatype = DATATYPES.iter().find(|(number, _)| *number == tensor.elem_type).map(|(_, datatype)| *datatype);
    let datatype = datatype.ok_or_else(|| {
        let known: Vec<_> = DATATYPES.iter().map(|(_, datatype)| datatype.as_str()).collect();
        let words = format!("its {role} '{name}' has ONNX element type {}", tensor.elem_type);
        invalid(format!("{words}; this engine takes {}", known.join(", ")))
    })?;
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).unwrap_or_default();
    if shape.is_empty() {
        return Err(invalid(format!("its {role} '{name}' has no dimension for rows")));
    }
    let length = |dimension: &DimensionProto| dimension.dim_value.and_then(|length| usize::try_from(length).ok());
    let shape = shape.iter().map(|dimension| length(dimension).filter(|length| *length > 0)).collect();
    Ok(TensorSpec { name: name.clone(), datatype, shape, optional: false })
}
