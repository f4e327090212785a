//! What a loaded model takes and gives, in a form that can cross nodes.
//!
//! Says nothing of how the model does. Used by the models, which tell it, and by the router, which hands it out.

use std::collections::BTreeMap;

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::tensor::Datatype;
use motet_engine::value::Value;
use motet_models::port::{ModelSignature, TensorSpec};
use serde::{Deserialize, Serialize};

/// A version of a model that is loaded somewhere. Versions never change, so this may be kept.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelDescription {
    /// The version.
    pub version: String,
    /// What it takes and gives.
    pub signature: ModelSignature,
}

#[derive(Serialize, Deserialize)]
struct Travelling {
    version: String,
    inputs: Vec<TravellingSpec>,
    outputs: Vec<TravellingSpec>,
    memory_bytes: u64,
    facts: BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct TravellingSpec {
    name: String,
    datatype: Datatype,
    shape: Vec<Option<usize>>,
    optional: bool,
}

impl From<&TensorSpec> for TravellingSpec {
    fn from(TensorSpec { name, datatype, shape, optional }: &TensorSpec) -> Self {
        Self { name: name.clone(), datatype: *datatype, shape: shape.clone(), optional: *optional }
    }
}

impl From<TravellingSpec> for TensorSpec {
    fn from(TravellingSpec { name, datatype, shape, optional }: TravellingSpec) -> Self {
        Self { name, datatype, shape, optional }
    }
}

/// A description as an answer.
pub(crate) fn described(version: &str, signature: &ModelSignature) -> Result<Value, Failure> {
    let specs = |specs: &[TensorSpec]| specs.iter().map(TravellingSpec::from).collect();
    let travelling = Travelling {
        version: version.to_owned(),
        inputs: specs(&signature.inputs),
        outputs: specs(&signature.outputs),
        memory_bytes: signature.memory_bytes,
        facts: signature.facts.clone(),
    };
    serde_json::to_value(travelling).map(Value::from).map_err(|error| unreadable(&error))
}

impl ModelDescription {
    /// Reads what [`described`] made.
    pub(crate) fn read(answer: &Value) -> Result<Self, Failure> {
        let came: Travelling = serde_json::from_value(answer.to_json()).map_err(|error| unreadable(&error))?;
        let specs = |specs: Vec<TravellingSpec>| specs.into_iter().map(TensorSpec::from).collect();
        let signature = ModelSignature {
            inputs: specs(came.inputs),
            outputs: specs(came.outputs),
            memory_bytes: came.memory_bytes,
            facts: came.facts,
        };
        Ok(Self { version: came.version, signature })
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(FailureClass::Internal, format!("a model's description cannot be told: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_description_comes_back_as_it_went() {
        let spec = |name: &str, datatype, shape: &[Option<usize>], optional| TensorSpec {
            name: name.to_owned(),
            datatype,
            shape: shape.to_vec(),
            optional,
        };
        let signature = ModelSignature {
            inputs: vec![
                spec("text", Datatype::Bytes, &[None], false),
                spec("w", Datatype::Bf16, &[None, Some(3)], true),
            ],
            outputs: vec![spec("vector", Datatype::Fp32, &[None, Some(384)], false)],
            memory_bytes: 1 << 40,
            facts: BTreeMap::from([("labels".to_owned(), json!(["a", "b"]))]),
        };
        let told = described("7", &signature).unwrap();
        let expected = ModelDescription { version: "7".to_owned(), signature };
        assert_eq!(ModelDescription::read(&told).unwrap(), expected);
        assert!(ModelDescription::read(&Value::Null).is_err());
    }
}
