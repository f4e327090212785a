//! Tests of the backend `onnx` over small files that are written here, field by field.

use motet_engine::definition::ModelSource;
use motet_engine::failure::FailureClass;
use motet_engine::tensor::{Datatype, Tensor};
use prost::Message;
use serde_json::json;

use super::*;
use crate::contract::{asking, check_backend, definition};
use crate::port::Tensors;

use super::declaration::{DimensionProto, OperatorSetIdProto, ShapeProto, TensorTypeProto, TypeProto, ValueInfoProto};

const FLOAT: i32 = 1;
const INT64: i32 = 7;
const DOUBLE: i32 = 11;

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Weight>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct Weight {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
}

/// Dimensions below zero are open.
fn declared(name: &str, elem_type: i32, shape: &[i64]) -> ValueInfoProto {
    let dim = |length: &i64| match length {
        0.. => DimensionProto { dim_value: Some(*length), dim_param: None },
        _ => DimensionProto { dim_value: None, dim_param: Some(format!("n{}", -length)) },
    };
    let shape = Some(ShapeProto { dim: shape.iter().map(dim).collect() });
    let r#type = Some(TypeProto { tensor_type: Some(TensorTypeProto { elem_type, shape }) });
    ValueInfoProto { name: name.to_owned(), r#type }
}

fn node(op_type: &str, input: &[&str], output: &str) -> Node {
    let input = input.iter().map(|name| (*name).to_owned()).collect();
    Node { input, output: vec![output.to_owned()], op_type: op_type.to_owned() }
}

fn weight(name: &str, dims: &[i64], float_data: &[f32]) -> Weight {
    let (name, float_data) = (name.to_owned(), float_data.to_vec());
    Weight { dims: dims.to_vec(), data_type: FLOAT, float_data, int64_data: vec![], name }
}

/// `y = x · W + b` with three numbers in and two out.
fn linear(rows: i64, elem_type: i32) -> Graph {
    Graph {
        node: vec![node("MatMul", &["x", "W"], "product"), node("Add", &["product", "b"], "y")],
        initializer: vec![weight("W", &[3, 2], &[1., 10., 2., 20., 3., 30.]), weight("b", &[2], &[0.5, -0.5])],
        input: vec![declared("x", elem_type, &[rows, 3])],
        output: vec![declared("y", FLOAT, &[rows, 2])],
    }
}

/// Adds one to whole numbers, of which a row may have any number.
fn counting() -> Graph {
    let one = Weight { data_type: INT64, int64_data: vec![1], name: "one".to_owned(), ..Weight::default() };
    Graph {
        node: vec![node("Add", &["ids", "one"], "next")],
        initializer: vec![one],
        input: vec![declared("ids", INT64, &[-1, -2])],
        output: vec![declared("next", INT64, &[-1, -2])],
    }
}

fn write(folder: &Path, name: &str, graph: Graph) {
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    let file = File { ir_version: 8, producer_name: "by hand".to_owned(), graph: Some(graph), opset_import };
    std::fs::write(folder.join(name), file.encode_to_vec()).unwrap();
}

fn sourced(parameters: &serde_json::Value) -> ModelDefinition {
    let source = ModelSource {
        uri: "file:/models".to_owned(),
        sha256: std::collections::BTreeMap::default(),
        mirrors: vec![],
        license: None,
    };
    ModelDefinition { source: Some(source), ..definition("onnx", parameters) }
}

async fn load(folder: &Path, parameters: &serde_json::Value) -> Result<Box<dyn LoadedModel>, Failure> {
    OnnxBackend::new(2).load(&sourced(parameters), Some(folder.to_owned())).await
}

fn ids(shape: &[usize], ids: &[i64]) -> Tensor {
    let data: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Tensor::new(Datatype::Int64, shape.to_vec(), data.into()).unwrap()
}

#[tokio::test]
async fn the_backend_keeps_the_contract_whether_rows_are_open_or_one() {
    for rows in [-1, 1] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "linear.onnx", linear(rows, FLOAT));
        let x = Tensor::from_f32(vec![3, 3], &[1., 0., 0., 0., 1., 0., 1., 1., 1.]).unwrap();
        let inputs = Tensors::from([("x".to_owned(), x)]);
        let artefact = Some(folder.path().to_owned());
        check_backend(&OnnxBackend::default(), &sourced(&json!({"threads": 1})), artefact, &inputs, 3).await;
        let model = load(folder.path(), &json!({})).await.unwrap();
        let y = model.infer(asking(inputs, 3)).await.unwrap()["y"].to_f32().unwrap();
        assert_eq!(y, [1.5, 9.5, 2.5, 19.5, 6.5, 59.5]);
    }
}

#[tokio::test]
async fn whole_numbers_keep_the_type_of_the_file_and_are_never_cut() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "counting.onnx", counting());
    let model = load(folder.path(), &json!({})).await.unwrap();
    let signature = model.signature();
    assert_eq!((signature.inputs[0].datatype, &*signature.inputs[0].shape), (Datatype::Int64, &[None, None][..]));
    assert_eq!((signature.facts["opset"].clone(), signature.facts["producer"].clone()), (json!(17), json!("by hand")));
    assert!(signature.memory_bytes > 0);
    let asked = |ids: Tensor| asking(Tensors::from([("ids".to_owned(), ids)]), 2);
    let given = asked(ids(&[2, 3], &[1, 2, 3, -5, 0, 40]));
    assert_eq!(model.length(&given.inputs), 3);
    assert_eq!(model.infer(given).await.unwrap()["next"], ids(&[2, 3], &[2, 3, 4, -4, 1, 41]));
    let failure = model.infer(asked(ids(&[2, 1], &[1, i64::MAX]))).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Invalid);
    assert!(failure.message.contains("with.ids: 9223372036854775807"), "{failure}");
}

#[tokio::test]
async fn files_that_cannot_be_served_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let refused = async |file: &str| load(path, &json!({"file": file})).await.err().expect("refused");
    std::fs::write(path.join("text.onnx"), "no model at all").unwrap();
    write(path, "three.onnx", linear(3, FLOAT));
    write(path, "double.onnx", linear(-1, DOUBLE));
    let scalar = Graph { input: vec![declared("x", FLOAT, &[])], ..linear(-1, FLOAT) };
    write(path, "scalar.onnx", scalar);
    let unknown = Graph { node: vec![node("NoSuchOperator", &["x"], "y")], ..linear(-1, FLOAT) };
    write(path, "unknown.onnx", unknown);
    for (file, words) in [
        ("text.onnx", "text.onnx: it is no ONNX file"),
        ("three.onnx", "exactly 3 rows"),
        ("double.onnx", "input 'x' has ONNX element type 11"),
        ("scalar.onnx", "input 'x' has no dimension for rows"),
        ("unknown.onnx", "NoSuchOperator"),
        ("absent.onnx", "absent.onnx: it cannot be read"),
    ] {
        let failure = refused(file).await;
        assert_eq!(failure.class, FailureClass::Invalid, "{file}: {failure}");
        assert!(failure.message.contains(words), "{file}: {failure}");
    }
    let several = load(path, &json!({})).await.err().expect("refused");
    assert!(several.message.contains("double.onnx, scalar.onnx"), "{several}");
}

#[test]
fn definitions_are_checked_before_anything_is_loaded() {
    let backend = OnnxBackend::default();
    for (parameters, words) in [
        (json!({"file": "/etc/model.onnx"}), "within the source"),
        (json!({"file": "../model.onnx"}), "within the source"),
        (json!({"file": 3}), "must be a string"),
        (json!({"thread": 3}), "threads"),
        (json!({"threads": 0}), "from 1 to 256"),
    ] {
        let failure = backend.check(&sourced(&parameters)).unwrap_err();
        assert!(failure.message.contains(words), "{parameters}: {failure}");
    }
    let failure = backend.check(&definition("onnx", &json!({}))).unwrap_err();
    assert!(failure.message.contains("needs a source"), "{failure}");
}
