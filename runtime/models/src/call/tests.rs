//! Tests of the way between values and tensors.

use std::collections::BTreeMap;

use motet_engine::tensor::Datatype;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn spec(name: &str, datatype: Datatype, shape: &[Option<usize>], optional: bool) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec(), optional }
}

fn signature(inputs: Vec<TensorSpec>) -> ModelSignature {
    ModelSignature { inputs, outputs: vec![], memory_bytes: 0, facts: BTreeMap::new() }
}

fn text_and_weights() -> ModelSignature {
    signature(vec![
        spec("text", Datatype::Bytes, &[None], false),
        spec("weights", Datatype::Fp32, &[None, Some(2)], true),
    ])
}

#[test]
fn values_become_rows() {
    let vector = Value::Tensor(Tensor::from_f32(vec![2], &[1.0, 2.0]).unwrap());
    let matrix = Value::Tensor(Tensor::from_f32(vec![2, 2], &[1.0, 2.0, 1.0, 2.0]).unwrap());
    let with_weights = |weights: Value, text: Value| -> Value {
        Map::from([("text".into(), text), ("weights".into(), weights)]).into()
    };
    let pair: Value = json!(["a", "b"]).into();
    let cases: Vec<(Value, usize, bool)> = vec![
        (json!({"text": "a"}).into(), 1, true),
        (json!({"text": "a", "weights": null}).into(), 1, true),
        (json!({"text": ["a", "b"]}).into(), 2, false),
        (json!({"text": []}).into(), 0, false),
        (json!({"text": "a", "weights": [1, 2.5]}).into(), 1, true),
        (json!({"text": ["a", "b"], "weights": [[1, 2], [3, 4]]}).into(), 2, false),
        (with_weights(vector.clone(), "a".into()), 1, true),
        (with_weights(matrix, pair.clone()), 2, false),
        (with_weights(vec![vector.clone(), vector].into(), pair), 2, false),
    ];
    for (with, rows, single) in cases {
        let call = encode(&text_and_weights(), &with).unwrap();
        assert_eq!((call.rows, call.single), (rows, single), "{with:?}");
        check(&text_and_weights(), &call.inputs, rows).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_path() {
    let cases = [
        (json!("a"), "with: the inputs of a model are a map of names, not a string"),
        (json!({}), "with.text: this input of the model is missing"),
        (json!({"text": null}), "with.text: null where a string is expected"),
        (json!({"txet": "a"}), "with.txet: the model has no such input, did you mean 'text'? its"),
        (json!({"text": 1}), "with.text: an integer where a string is expected"),
        (json!({"text": ["a", ["b"]]}), "with.text[1]: a list where its neighbours are single values"),
        (json!({"text": [["a"]]}), "with.text: 2 dimensions"),
        (json!({"text": "a", "weights": [1, "x"]}), "with.weights[1]: a string where a number is expected"),
        (json!({"text": "a", "weights": [1, 2, 3]}), "with.weights: FP32[1, 3] where FP32[-1, 2] is expected"),
        (json!({"text": "a", "weights": [1, 1e300]}), "with.weights[1]: 1000"),
        (json!({"text": ["a"], "weights": [[1, 2], [3]]}), "with.weights[1]: 1 elements where its neighbours have 2"),
        (json!({"text": ["a"], "weights": [[1, 2], 3]}), "with.weights[1]: a single value where its neighbours"),
        (json!({"text": "a", "weights": [[1, 2]]}), "with.weights: a list of 1, but with.text is one item"),
        (
            json!({"text": ["a"], "weights": [[1, 2], [3, 4]]}),
            "with.weights: a list of 2, but with.text is a list of 1",
        ),
    ];
    for (with, expected) in cases {
        let failure = encode(&text_and_weights(), &with.clone().into()).unwrap_err();
        let expected = expected.replace("'? its", "'?");
        assert!(failure.message.starts_with(&expected), "{with}: {failure}");
    }
    let tensor = Value::Tensor(Tensor::from_f32(vec![1], &[1.0]).unwrap());
    let failure = encode(&text_and_weights(), &Map::from([("text".into(), tensor)]).into()).unwrap_err();
    assert_eq!(failure.message, "with.text: a tensor of FP32 where BYTES is expected");
}

#[test]
fn whole_numbers_keep_to_their_range() {
    for (datatype, value, fits) in [
        (Datatype::Uint8, json!(255), true),
        (Datatype::Uint8, json!(256), false),
        (Datatype::Int8, json!(-128), true),
        (Datatype::Int8, json!(-129), false),
        (Datatype::Int64, json!(i64::MIN), true),
        (Datatype::Uint64, json!(-1), false),
        (Datatype::Int32, json!(3.0), true),
        (Datatype::Int32, json!(3.5), false),
        (Datatype::Bool, json!(true), true),
        (Datatype::Bool, json!(1), false),
        (Datatype::Fp64, json!(1), true),
        (Datatype::Fp16, json!(1), false),
    ] {
        let signature = signature(vec![spec("x", datatype, &[None], false)]);
        let encoded = encode(&signature, &json!({"x": value}).into());
        assert_eq!(encoded.is_ok(), fits, "{datatype} {value}: {encoded:?}");
        if let Ok(call) = encoded {
            let back = decode(call.inputs, true).to_json();
            assert_eq!(back["x"].as_f64(), value.as_f64(), "{datatype} {value}");
        }
    }
}

#[test]
fn answers_of_single_calls_lose_their_row() {
    let outputs = Tensors::from([
        ("label".to_owned(), Tensor::from_strings(&["yes"])),
        ("binary".to_owned(), Tensor::from_strings(&[[0xFF_u8]])),
        ("score".to_owned(), Tensor::from_f32(vec![1], &[0.5]).unwrap()),
        ("vector".to_owned(), Tensor::from_f32(vec![1, 2], &[1.0, 2.0]).unwrap()),
    ]);
    let single = decode(outputs.clone(), true);
    assert_eq!(single.get("label"), Some(&"yes".into()));
    assert_eq!(single.get("score"), Some(&Value::Float(0.5)));
    assert_eq!(single.get("vector"), Some(&Value::Tensor(Tensor::from_f32(vec![2], &[1.0, 2.0]).unwrap())));
    assert!(matches!(single.get("binary"), Some(Value::Tensor(_))));
    assert_eq!(decode(outputs.clone(), false).get("vector"), Some(&Value::Tensor(outputs["vector"].clone())));
}

#[test]
fn calls_join_and_split() {
    let call = |texts: &[&str]| Tensors::from([("text".to_owned(), Tensor::from_strings(texts))]);
    let (one, two, none) = (call(&["a"]), call(&["b", "c"]), call(&[]));
    let joined = join(&[&one, &two, &none]).unwrap();
    assert_eq!(joined["text"], Tensor::from_strings(&["a", "b", "c"]));
    assert_eq!(split(&joined, &[1, 2, 0]).unwrap(), [one.clone(), two, none]);
    let message = split(&joined, &[1, 1]).unwrap_err().message;
    assert_eq!(message, "the backend answered BYTES[3] as 'text' for a batch of 2 rows");
    let other = Tensors::from([("prompt".to_owned(), Tensor::from_strings(&["a"]))]);
    assert!(join(&[&one, &other]).is_err());
    assert!(join(&[]).is_err());
    assert!(split(&one, &[usize::MAX, 2]).is_err());
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        ".{0,8}".prop_map(Value::from),
        (0usize..4, 0usize..4)
            .prop_map(|(a, b)| Value::Tensor(Tensor::from_f32(vec![a, b], &vec![0.5; a * b]).unwrap())),
        Just(Value::Tensor(Tensor::from_f32(vec![], &[1.0]).unwrap())),
        prop::collection::vec(".{0,4}", 0..3).prop_map(|texts| Value::Tensor(Tensor::from_strings(&texts))),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| map
                .into_iter()
                .map(|(key, value)| (key.into(), value))
                .collect::<Map>()
                .into()),
        ]
    })
}

fn any_signature() -> impl Strategy<Value = ModelSignature> {
    let datatype = prop::sample::select(Datatype::ALL.map(|(datatype, _)| datatype).to_vec());
    let shape = prop::collection::vec(prop::option::of(0usize..4), 0..4);
    prop::collection::btree_map("[a-c]", (datatype, shape, any::<bool>()), 0..4).prop_map(|specs| {
        signature(
            specs
                .into_iter()
                .map(|(name, (datatype, shape, optional))| spec(&name, datatype, &shape, optional))
                .collect(),
        )
    })
}

proptest! {
    /// Whatever stands under `with`, encoding answers, and what it accepts fits the signature.
    #[test]
    fn encoding_never_panics_and_what_it_accepts_fits(
        signature in any_signature(),
        with in prop::collection::btree_map("[a-c]", any_value(), 0..4),
    ) {
        let with: Value = with.into_iter().map(|(key, value)| (key.into(), value)).collect::<Map>().into();
        if let Ok(call) = encode(&signature, &with) {
            prop_assert!(check(&signature, &call.inputs, call.rows).is_ok());
            let joined = join(&[&call.inputs, &call.inputs]).unwrap();
            let pieces = split(&joined, &[call.rows, call.rows]).unwrap();
            prop_assert_eq!(&pieces[0], &call.inputs);
            prop_assert_eq!(&pieces[1], &call.inputs);
            prop_assert!(matches!(decode(call.inputs, call.single), Value::Map(_)));
        }
    }
}
