//! What a SavedModel says about its signatures, read from its file.
//!
//! Never reads weights or nodes of the graph. Used by `tensorflow`. Field numbers: saved_model.proto, meta_graph.proto,
//! tensor_shape.proto and types.proto of TensorFlow, unchanged since version 1.

use std::collections::{BTreeMap, BTreeSet};

use motet_engine::failure::Failure;
use motet_engine::tensor::Datatype;
use motet_models::port::TensorSpec;
use prost::Message;

use super::invalid;

/// The tag of what is to be served.
const SERVE: &str = "serve";

/// The signature that is taken when none is named.
const DEFAULT: &str = "serving_default";

/// A signature that only prepares the others.
const INITIALISING: &str = "__saved_model_init_op";

#[derive(Clone, PartialEq, Message)]
struct SavedModelProto {
    #[prost(message, repeated, tag = "2")]
    meta_graphs: Vec<MetaGraph>,
}

#[derive(Clone, PartialEq, Message)]
struct MetaGraph {
    #[prost(message, optional, tag = "1")]
    meta_info: Option<MetaInfo>,
    #[prost(btree_map = "string, message", tag = "5")]
    signatures: BTreeMap<String, Signature>,
}

#[derive(Clone, PartialEq, Message)]
struct MetaInfo {
    #[prost(string, repeated, tag = "4")]
    tags: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Signature {
    #[prost(btree_map = "string, message", tag = "1")]
    inputs: BTreeMap<String, TensorInfo>,
    #[prost(btree_map = "string, message", tag = "2")]
    outputs: BTreeMap<String, TensorInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    dtype: i32,
    #[prost(message, optional, tag = "3")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dimension>,
    #[prost(bool, tag = "3")]
    unknown_rank: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, tag = "1")]
    size: i64,
}

/// Datatypes by their numbers in TensorFlow.
const DATATYPES: [(i32, Datatype); 14] = [
    (1, Datatype::Fp32),
    (2, Datatype::Fp64),
    (3, Datatype::Int32),
    (4, Datatype::Uint8),
    (5, Datatype::Int16),
    (6, Datatype::Int8),
    (7, Datatype::Bytes),
    (9, Datatype::Int64),
    (10, Datatype::Bool),
    (14, Datatype::Bf16),
    (17, Datatype::Uint16),
    (19, Datatype::Fp16),
    (22, Datatype::Uint32),
    (23, Datatype::Uint64),
];

/// The datatype of TensorFlow's number.
pub(super) fn datatype(number: i32) -> Option<Datatype> {
    DATATYPES.iter().find(|(known, _)| *known == number).map(|(_, datatype)| *datatype)
}

/// TensorFlow's number of a datatype.
pub(super) fn number(datatype: Datatype) -> i32 {
    DATATYPES.iter().find(|(_, known)| *known == datatype).map_or(0, |(number, _)| *number)
}

/// An input or output, and where it is in the graph.
pub(super) struct Port {
    pub(super) spec: TensorSpec,
    /// Operation that has it.
    pub(super) operation: String,
    /// Which of the operation's outputs it is.
    pub(super) index: i32,
}

/// One signature of a SavedModel.
pub(super) struct Declaration {
    /// Its name.
    pub(super) name: String,
    /// All signatures of the file.
    pub(super) others: Vec<String>,
    /// Tags under which the graph is found.
    pub(super) tags: Vec<String>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    /// How many rows a run takes, when the graph fixes that.
    pub(super) fixed_rows: Option<usize>,
}

impl Declaration {
    /// Reads the signature that is named, else `serving_default`, else the only one.
    pub(super) fn read(bytes: &[u8], wanted: Option<&str>) -> Result<Self, Failure> {
        let file = SavedModelProto::decode(bytes)
            .map_err(|error| invalid(format!("saved_model.pb is no SavedModel: {error}")))?;
        let tags = |graph: &MetaGraph| graph.meta_info.as_ref().map(|info| info.tags.clone()).unwrap_or_default();
        let graph = file.meta_graphs.iter().find(|graph| tags(graph) == [SERVE]).or_else(|| file.meta_graphs.first());
        let graph = graph.ok_or_else(|| invalid("saved_model.pb holds no graph"))?;
        let others: Vec<_> = graph.signatures.keys().filter(|name| *name != INITIALISING).cloned().collect();
        let name = match (wanted, &*others) {
            (Some(wanted), _) => wanted,
            (None, [only]) => only,
            (None, _) => DEFAULT,
        };
        let Some(signature) = graph.signatures.get(name) else {
            let words = format!("the SavedModel has no signature '{name}'; it has {}", others.join(", "));
            return Err(invalid(format!("{words}; name one in parameters.signature")));
        };
        let ports = |role: &str, infos: &BTreeMap<String, TensorInfo>| {
            infos.iter().map(|(name, info)| port(role, name, info)).collect::<Result<Vec<_>, _>>()
        };
        let (mut inputs, mut outputs) = (ports("input", &signature.inputs)?, ports("output", &signature.outputs)?);
        if inputs.is_empty() || outputs.is_empty() {
            return Err(invalid(format!("the signature '{name}' has no inputs or no outputs")));
        }
        let fixed_rows = fixed_rows(&inputs)?;
        // Callers may give any number of rows: runs of their own are made for as many as the graph takes.
        for port in inputs.iter_mut().chain(&mut outputs) {
            if let Some(row) = port.spec.shape.first_mut() {
                *row = None;
            }
        }
        Ok(Self { name: name.to_owned(), others: others.clone(), tags: tags(graph), inputs, outputs, fixed_rows })
    }
}

fn fixed_rows(inputs: &[Port]) -> Result<Option<usize>, Failure> {
    let rows: BTreeSet<_> = inputs.iter().map(|port| port.spec.shape.first().copied().flatten()).collect();
    match rows.into_iter().collect::<Vec<_>>()[..] {
        [rows] => Ok(rows),
        _ => Err(invalid("its inputs have different first dimensions, so that calls cannot be rows of a batch")),
    }
}

fn port(role: &str, name: &str, info: &TensorInfo) -> Result<Port, Failure> {
    let datatype = datatype(info.dtype).ok_or_else(|| {
        invalid(format!("its {role} '{name}' has TensorFlow's datatype {}, which cannot be exchanged", info.dtype))
    })?;
    let (operation, index) = info.name.split_once(':').unwrap_or((&info.name, "0"));
    let index = index.parse().map_err(|_| invalid(format!("its {role} '{name}' is no tensor: '{}'", info.name)))?;
    let known = info.shape.as_ref().filter(|shape| !shape.unknown_rank);
    let Some(shape) = known.map(|shape| &*shape.dim).filter(|dimensions| !dimensions.is_empty()) else {
        return Err(invalid(format!("its {role} '{name}' has no dimension for rows")));
    };
    let length = |dimension: &Dimension| usize::try_from(dimension.size).ok();
    let spec =
        TensorSpec { name: name.to_owned(), datatype, shape: shape.iter().map(length).collect(), optional: false };
    Ok(Port { spec, operation: operation.to_owned(), index })
}

#[cfg(test)]
mod tests {
    use motet_engine::failure::FailureClass;

    use super::*;

    fn info(name: &str, dtype: i32, sizes: &[i64]) -> TensorInfo {
        let dim = sizes.iter().map(|size| Dimension { size: *size }).collect();
        TensorInfo { name: name.to_owned(), dtype, shape: Some(Shape { dim, unknown_rank: false }) }
    }

    fn file(signatures: &[(&str, TensorInfo, TensorInfo)]) -> Vec<u8> {
        let signature = |input: &TensorInfo, output: &TensorInfo| Signature {
            inputs: BTreeMap::from([("in".to_owned(), input.clone())]),
            outputs: BTreeMap::from([("out".to_owned(), output.clone())]),
        };
        let signatures =
            signatures.iter().map(|(name, input, output)| ((*name).to_owned(), signature(input, output))).collect();
        let meta_info = Some(MetaInfo { tags: vec![SERVE.to_owned()] });
        SavedModelProto { meta_graphs: vec![MetaGraph { meta_info, signatures }] }.encode_to_vec()
    }

    #[test]
    fn the_signature_that_is_meant_is_read() {
        let (input, output) = (info("a:1", 1, &[-1, 3]), info("b", 7, &[-1]));
        let one = file(&[("only", input.clone(), output.clone()), (INITIALISING, input.clone(), output.clone())]);
        let read = Declaration::read(&one, None).unwrap();
        assert_eq!((&*read.name, &*read.inputs[0].operation, read.inputs[0].index), ("only", "a", 1));
        assert_eq!(read.inputs[0].spec.shape, [None, Some(3)]);
        assert_eq!((read.outputs[0].spec.datatype, read.fixed_rows), (Datatype::Bytes, None));
        let two = file(&[("a", input, output.clone()), (DEFAULT, info("c", 1, &[1, 3]), output)]);
        let read = Declaration::read(&two, None).unwrap();
        assert_eq!((&*read.name, read.fixed_rows), (DEFAULT, Some(1)));
        assert_eq!(Declaration::read(&two, Some("a")).unwrap().name, "a");
        let failure = Declaration::read(&two, Some("other")).err().unwrap();
        assert!(failure.message.contains("it has a, serving_default"), "{failure}");
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let output = info("b", 1, &[-1]);
        let resource = file(&[("a", info("a", 20, &[-1]), output.clone())]);
        let scalar = file(&[("a", info("a", 1, &[]), output)]);
        for (bytes, words) in
            [(resource, "datatype 20"), (scalar, "no dimension for rows"), (vec![0xff; 9], "no SavedModel")]
        {
            let failure = Declaration::read(&bytes, None).err().unwrap();
            assert_eq!(failure.class, FailureClass::Invalid);
            assert!(failure.message.contains(words), "{failure}");
        }
        assert!(Declaration::read(&[], None).err().unwrap().message.contains("no graph"));
    }

    #[test]
    fn every_datatype_has_a_number() {
        for (datatype, name) in Datatype::ALL {
            assert_eq!(super::datatype(number(datatype)), Some(datatype), "{name}");
        }
    }
}
