//! Calls and answers as the bodies of HTTP: JSON first, raw tensors behind it where they are not in the JSON.
//!
//! Never reads headers and never compresses; `http::open_inference` does. Source: Open Inference Protocol v2 with the
//! binary tensor extension.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::elements::{Flat, read};
use super::{Answered, Call, Output, Wanted, count, datatype, invalid, shape, tensor};
use crate::http::problem::Problem;

/// A body that holds an answer.
#[derive(Debug)]
pub(crate) struct Written {
    /// The whole body.
    pub(crate) body: Vec<u8>,
    /// Bytes of JSON at its start, where raw tensors follow.
    pub(crate) json_length: Option<usize>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(default)]
    id: String,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    outputs: Option<Vec<RequestedOutput>>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Those parameters that mean something here; all others are passed over, as the protocol wants.
#[derive(Deserialize, Default)]
struct Parameters {
    /// Microseconds.
    timeout: Option<u64>,
    binary_data_output: Option<bool>,
    binary_data_size: Option<usize>,
    binary_data: Option<bool>,
    classification: Option<usize>,
    shared_memory_region: Option<String>,
}

/// Reads a call of a model.
///
/// # Errors
/// `400` with the place of the mistake.
pub(crate) fn read_call(
    model: &str,
    version: Option<&str>,
    body: &Bytes,
    json_length: Option<usize>,
) -> Result<Call, Problem> {
    let length = json_length.unwrap_or(body.len());
    if length > body.len() {
        let words = format!("Inference-Header-Content-Length is {length}, but the body has {} bytes", body.len());
        return Err(invalid(words));
    }
    let mut raw = body.slice(length..);
    let request: Request<'_> = serde_json::from_slice(&body[..length])
        .map_err(|error| invalid(format!("the body is no inference request: {error}")))?;
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in &request.inputs {
        let data = data_of(input, &mut raw)?;
        inputs.push((input.name.clone(), tensor(&input.name, &input.datatype, &input.shape, data)?));
    }
    if !raw.is_empty() {
        let words = format!("{} bytes follow the last tensor; look at every binary_data_size", raw.len());
        return Err(invalid(words));
    }
    let binary = request.parameters.binary_data_output.unwrap_or(false);
    let wanted = |output: RequestedOutput| {
        refuse_shared(&output.name, &output.parameters)?;
        Ok(Wanted {
            name: output.name,
            binary: output.parameters.binary_data.unwrap_or(binary),
            classes: output.parameters.classification.unwrap_or(0),
        })
    };
    Ok(Call {
        model: model.to_owned(),
        version: version.unwrap_or_default().to_owned(),
        id: request.id,
        inputs,
        outputs: request.outputs.unwrap_or_default().into_iter().map(wanted).collect::<Result<_, Problem>>()?,
        binary,
        timeout: request.parameters.timeout.filter(|micros| *micros > 0).map(Duration::from_micros),
    })
}

/// The bytes of an input, from behind the JSON or out of it.
fn data_of(input: &Input<'_>, raw: &mut Bytes) -> Result<Bytes, Problem> {
    let name = &input.name;
    refuse_shared(name, &input.parameters)?;
    match (input.parameters.binary_data_size, input.data) {
        (Some(_), Some(_)) => Err(invalid(format!("input '{name}' has both data and binary_data_size; send one"))),
        (Some(size), None) if size <= raw.len() => Ok(raw.split_to(size)),
        (Some(size), None) => {
            let left = raw.len();
            Err(invalid(format!("input '{name}': binary_data_size is {size}, but {left} bytes are left of the body")))
        }
        (None, Some(data)) => {
            let elements = read(datatype(name, &input.datatype)?, data.get());
            Ok(elements.map_err(|error| invalid(format!("input '{name}': data: {error}")))?.into())
        }
        (None, None) if count(&shape(name, &input.shape)?) == 0 => Ok(Bytes::new()),
        (None, None) => Err(invalid(format!("input '{name}' has neither data nor binary_data_size"))),
    }
}

fn refuse_shared(name: &str, parameters: &Parameters) -> Result<(), Problem> {
    match parameters.shared_memory_region {
        None => Ok(()),
        Some(_) => Err(invalid(format!("'{name}' lies in shared memory, which this server does not take; send it"))),
    }
}

#[derive(Serialize)]
struct Response<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    outputs: Vec<OutputView<'a>>,
}

#[derive(Serialize)]
struct OutputView<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<RawSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Flat<'a>>,
}

#[derive(Serialize)]
struct RawSize {
    binary_data_size: usize,
}

/// Writes an answer.
///
/// # Errors
/// `400` when an output that was not asked for as bytes has no form in JSON.
pub(crate) fn write_answer(answered: &Answered) -> Result<Written, Problem> {
    let outputs = answered.outputs.iter().map(|Output { name, tensor, binary }| OutputView {
        name,
        datatype: tensor.datatype().as_str(),
        shape: tensor.shape(),
        parameters: binary.then(|| RawSize { binary_data_size: tensor.data().len() }),
        data: (!binary).then_some(Flat(tensor)),
    });
    let response = Response {
        model_name: &answered.model,
        model_version: &answered.version,
        id: &answered.id,
        outputs: outputs.collect(),
    };
    let mut body = Vec::with_capacity(512);
    serde_json::to_writer(&mut body, &response).map_err(|error| invalid(format!("the answer: {error}")))?;
    let json_length = answered.outputs.iter().any(|output| output.binary).then_some(body.len());
    for output in answered.outputs.iter().filter(|output| output.binary) {
        body.extend_from_slice(output.tensor.data());
    }
    Ok(Written { body, json_length })
}

#[cfg(test)]
mod tests {
    use motet_engine::tensor::{Datatype, Tensor};
    use proptest::prelude::*;

    use super::*;

    fn call(json: &str, raw: &[u8]) -> Result<Call, Problem> {
        let body: Bytes = [json.as_bytes(), raw].concat().into();
        read_call("m", None, &body, Some(json.len()))
    }

    #[test]
    fn calls_are_read_with_the_place_of_every_mistake() {
        let cases: [(&str, &[u8], &str); 21] = [
            (r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":[1,2]}]}"#, b"", ""),
            (r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":[[1],[2]]}]}"#, b"", ""),
            (r#"{"inputs":[{"name":"x","shape":[0],"datatype":"INT8"}]}"#, b"", ""),
            (
                r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","parameters":{"binary_data_size":2}}]}"#,
                b"ab",
                "",
            ),
            (r#"{"inputs":[],"parameters":{"sequence_id":7,"priority":1,"headers":{},"triton_x":1}}"#, b"", ""),
            (r#"{"inputs":[{"name":"x","shape":[3],"datatype":"INT8","data":[1,2]}]}"#, b"", "needs 3 bytes, got 2"),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":["a"]}]}"#,
                b"",
                "input 'x': data: a string",
            ),
            (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT9","data":[1]}]}"#, b"", "'INT9' is no datatype"),
            (r#"{"inputs":[{"name":"x","shape":[-1],"datatype":"INT8","data":[1]}]}"#, b"", "a length below 0"),
            (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8"}]}"#, b"", "neither data nor binary_data_size"),
            (
                r#"{"inputs":[{"name":"x","shape":[9223372036854775807,4],"datatype":"INT8","data":[]}]}"#,
                b"",
                "more elements than can be counted",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","parameters":{"binary_data_size":3}}]}"#,
                b"ab",
                "binary_data_size is 3, but 2 bytes are left",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":1}}]}"#,
                b"ab",
                "1 bytes follow the last tensor",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1],"parameters":{"binary_data_size":1}}]}"#,
                b"a",
                "both data and binary_data_size",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":-1}}]}"#,
                b"a",
                "no inference request",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"shared_memory_region":"r"}}]}"#,
                b"",
                "shared memory",
            ),
            ("", b"", "no inference request: EOF"),
            ("{}", b"", "missing field `inputs`"),
            ("[]", b"", "no inference request"),
            ("{\"inputs\": [", b"", "line 1 column"),
            (r#"{"inputs":[{"name":"x","shape":[1.5],"datatype":"INT8","data":[1]}]}"#, b"", "no inference request"),
        ];
        for (json, raw, words) in cases {
            match call(json, raw) {
                Ok(_) => assert!(words.is_empty(), "{json} was taken"),
                Err(problem) => {
                    assert_eq!(problem.status().as_u16(), 400);
                    assert!(!words.is_empty() && problem.detail().contains(words), "{json}: {problem:?}");
                }
            }
        }
        assert!(read_call("m", None, &Bytes::from_static(b"{}"), Some(3)).is_err());
    }

    #[test]
    fn what_is_wanted_is_read() {
        let json = r#"{"id":"7","inputs":[],"outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":false,
            "classification":3}}],"parameters":{"binary_data_output":true,"timeout":1500}}"#;
        let call = call(json, b"").unwrap();
        assert_eq!((call.id.as_str(), call.timeout), ("7", Some(Duration::from_micros(1500))));
        let wanted = |name: &str, binary, classes| Wanted { name: name.to_owned(), binary, classes };
        assert_eq!(call.outputs, [wanted("a", true, 0), wanted("b", false, 3)]);
    }

    #[test]
    fn answers_are_json_unless_bytes_were_asked_for() {
        let output = |name: &str, tensor, binary| Output { name: name.to_owned(), tensor, binary };
        let vector = Tensor::from_f32(vec![1, 2], &[0.5, 1.0]).unwrap();
        let answered = |outputs| Answered { model: "m".into(), version: "1".into(), id: String::new(), outputs };
        let plain = write_answer(&answered(vec![output("v", vector.clone(), false)])).unwrap();
        assert_eq!(plain.json_length, None);
        assert_eq!(
            String::from_utf8(plain.body).unwrap(),
            r#"{"model_name":"m","model_version":"1","outputs":[{"name":"v","datatype":"FP32","shape":[1,2],"data":[0.5,1.0]}]}"#
        );
        let mixed = vec![
            output("a", Tensor::from_strings(&["x"]), true),
            output("b", Tensor::from_strings(&["y"]), false),
            output("v", vector.clone(), true),
        ];
        let written = write_answer(&answered(mixed)).unwrap();
        let length = written.json_length.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&written.body[..length]).unwrap();
        assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 5);
        assert_eq!(json["outputs"][1]["data"][0], "y");
        assert_eq!(json["outputs"][2]["data"], serde_json::Value::Null);
        assert_eq!(written.body[length..length + 5], [1, 0, 0, 0, b'x']);
        assert_eq!(written.body[length + 5..], vector.data()[..]);
        let none = write_answer(&answered(vec![])).unwrap();
        assert!(String::from_utf8(none.body).unwrap().ends_with(r#""outputs":[]}"#));
        assert!(write_answer(&answered(vec![output("b", Tensor::from_strings(&[[0xFF_u8]]), false)])).is_err());
    }

    proptest! {
        /// A body that was written as an answer is read as a call: the same tensors come back, however they travelled.
        #[test]
        fn tensors_come_back_as_they_went(
            texts in prop::collection::vec(".{0,6}", 0..5),
            numbers in prop::collection::vec(any::<i32>(), 0..5),
            binary in any::<[bool; 2]>(),
        ) {
            let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let numbers = Tensor::new(Datatype::Int32, vec![numbers.len()], data.into()).unwrap();
            let tensors = [("t", Tensor::from_strings(&texts), binary[0]), ("n", numbers, binary[1])];
            let outputs = tensors.clone().map(|(name, tensor, binary)| Output { name: name.into(), tensor, binary });
            let answered = Answered { model: "m".into(), version: "1".into(), id: "i".into(), outputs: outputs.into() };
            let written = write_answer(&answered).unwrap();
            let length = written.json_length.unwrap_or(written.body.len());
            let json = String::from_utf8(written.body[..length].to_vec()).unwrap().replacen("\"outputs\"", "\"inputs\"", 1);
            let call = call(&json, &written.body[length..]).unwrap();
            prop_assert_eq!(call.inputs, tensors.map(|(name, tensor, _)| (name.to_owned(), tensor)).to_vec());
        }

        /// Whatever arrives, with whatever length of JSON claimed, there is an answer.
        #[test]
        fn any_body_is_answered(
            body in prop::collection::vec(any::<u8>(), 0..200),
            length in prop::option::of(prop_oneof![0usize..250, any::<usize>()]),
        ) {
            let _ = read_call("m", None, &body.into(), length);
        }

        /// The same for bodies that are nearly right.
        #[test]
        fn any_claim_is_answered(
            shape in prop::collection::vec(any::<i64>(), 0..4),
            size in any::<u32>(),
            datatype in prop::sample::select(Datatype::ALL.map(|(_, name)| name).to_vec()),
            raw in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let parameters = serde_json::json!({"binary_data_size": size % 40});
            let input = serde_json::json!({"name": "x", "shape": shape, "datatype": datatype, "parameters": parameters});
            let _ = call(&serde_json::json!({"inputs": [input]}).to_string(), &raw);
        }
    }
}
