//! Calls and answers as messages of gRPC: raw tensors in both directions, typed ones from clients that send them.
//!
//! Answers are always raw: the Python client cannot read others. Used by the service.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use crate::http::problem::Problem;
use crate::inference::proto::infer_parameter::ParameterChoice;
use crate::inference::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::inference::proto::model_infer_response::InferOutputTensor;
use crate::inference::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::inference::{Answered, Call, Wanted, invalid, tensor};

type Parameters = HashMap<String, InferParameter>;

/// Reads a call of a model.
///
/// # Errors
/// `400` with the name of the input.
pub(super) fn call(request: ModelInferRequest) -> Result<Call, Problem> {
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } = request;
    let is_raw = !raw_input_contents.is_empty();
    if is_raw && raw_input_contents.len() != inputs.len() {
        let (raw, count) = (raw_input_contents.len(), inputs.len());
        return Err(invalid(format!("{raw} raw_input_contents for {count} inputs; send one for each")));
    }
    let mut raw = raw_input_contents.into_iter();
    let read = |input: InferInputTensor| {
        let InferInputTensor { name, datatype, shape, parameters, contents } = input;
        refuse_shared(&name, &parameters)?;
        let data = match (raw.next(), contents) {
            (Some(_), Some(_)) => {
                return Err(invalid(format!(
                    "input '{name}' has contents beside raw_input_contents; send one of them"
                )));
            }
            (Some(raw), None) => raw,
            (None, contents) => typed(&name, &datatype, contents.unwrap_or_default())?,
        };
        Ok((name.clone(), tensor(&name, &datatype, &shape, data)?))
    };
    let inputs = inputs.into_iter().map(read).collect::<Result<_, Problem>>()?;
    let wanted = |InferRequestedOutputTensor { name, parameters }: InferRequestedOutputTensor| {
        refuse_shared(&name, &parameters)?;
        let classes = number(&parameters, "classification")?.unwrap_or(0);
        Ok(Wanted { name, binary: true, classes: usize::try_from(classes).unwrap_or(usize::MAX) })
    };
    let outputs = outputs.into_iter().map(wanted).collect::<Result<_, Problem>>()?;
    let timeout = number(&parameters, "timeout")?.filter(|micros| *micros > 0).map(Duration::from_micros);
    Ok(Call { model: model_name, version: model_version, id, inputs, outputs, binary: true, timeout })
}

fn refuse_shared(name: &str, parameters: &Parameters) -> Result<(), Problem> {
    if parameters.contains_key("shared_memory_region") {
        return Err(invalid(format!("'{name}' lies in shared memory, which this server does not take; send it")));
    }
    Ok(())
}

/// A parameter that is a whole number from 0.
fn number(parameters: &Parameters, name: &str) -> Result<Option<u64>, Problem> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let number = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).ok(),
        Some(ParameterChoice::Uint64Param(number)) => Some(number),
        _ => None,
    };
    number.map(Some).ok_or_else(|| invalid(format!("the parameter '{name}' is no whole number from 0")))
}

/// The bytes of typed elements.
fn typed(name: &str, datatype: &str, contents: InferTensorContents) -> Result<Bytes, Problem> {
    fn all<T, const SIZE: usize>(elements: Vec<T>, bytes: impl Fn(T) -> [u8; SIZE]) -> Vec<u8> {
        elements.into_iter().flat_map(bytes).collect()
    }
    let out_of_range = |_| invalid(format!("input '{name}': an element is out of the range of {datatype}"));
    fn narrow<T: Copy, N: TryFrom<T>>(elements: &[T]) -> Result<Vec<N>, N::Error> {
        elements.iter().map(|element| N::try_from(*element)).collect()
    }
    let InferTensorContents {
        bool_contents: bools,
        int_contents: ints,
        int64_contents: longs,
        uint_contents: uints,
        uint64_contents: ulongs,
        fp32_contents: floats,
        fp64_contents: doubles,
        bytes_contents: texts,
    } = contents;
    let fields = [
        ("bool_contents", bools.len()),
        ("int_contents", ints.len()),
        ("int64_contents", longs.len()),
        ("uint_contents", uints.len()),
        ("uint64_contents", ulongs.len()),
        ("fp32_contents", floats.len()),
        ("fp64_contents", doubles.len()),
        ("bytes_contents", texts.len()),
    ];
    let (field, data) = match datatype {
        "BOOL" => ("bool_contents", all(bools, |element| [u8::from(element)])),
        "INT8" => ("int_contents", all(narrow(&ints).map_err(out_of_range)?, i8::to_le_bytes)),
        "INT16" => ("int_contents", all(narrow(&ints).map_err(out_of_range)?, i16::to_le_bytes)),
        "INT32" => ("int_contents", all(ints, i32::to_le_bytes)),
        "INT64" => ("int64_contents", all(longs, i64::to_le_bytes)),
        "UINT8" => ("uint_contents", all(narrow(&uints).map_err(out_of_range)?, u8::to_le_bytes)),
        "UINT16" => ("uint_contents", all(narrow(&uints).map_err(out_of_range)?, u16::to_le_bytes)),
        "UINT32" => ("uint_contents", all(uints, u32::to_le_bytes)),
        "UINT64" => ("uint64_contents", all(ulongs, u64::to_le_bytes)),
        "FP32" => ("fp32_contents", all(floats, f32::to_le_bytes)),
        "FP64" => ("fp64_contents", all(doubles, f64::to_le_bytes)),
        "BYTES" => ("bytes_contents", prefixed(name, &texts)?),
        // Such as FP16, which has no typed form, and what is no datatype at all.
        _ => ("raw_input_contents", vec![]),
    };
    match fields.into_iter().find(|(other, length)| *other != field && *length > 0) {
        Some((other, _)) => {
            Err(invalid(format!("input '{name}': elements of {datatype} go into {field}, not {other}")))
        }
        None => Ok(data.into()),
    }
}

fn prefixed(name: &str, texts: &[Bytes]) -> Result<Vec<u8>, Problem> {
    let mut data = Vec::with_capacity(texts.iter().map(|text| text.len() + 4).sum());
    for text in texts {
        let length = u32::try_from(text.len())
            .map_err(|_| invalid(format!("input '{name}': an element has more than 4 GiB")))?;
        data.extend(length.to_le_bytes());
        data.extend_from_slice(text);
    }
    Ok(data)
}

/// Writes an answer.
pub(super) fn response(answered: Answered) -> ModelInferResponse {
    let mut response = ModelInferResponse {
        model_name: answered.model,
        model_version: answered.version,
        id: answered.id,
        ..ModelInferResponse::default()
    };
    for output in answered.outputs {
        let shape = output.tensor.shape().iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect();
        response.outputs.push(InferOutputTensor {
            name: output.name,
            datatype: output.tensor.datatype().to_string(),
            shape,
            ..InferOutputTensor::default()
        });
        response.raw_output_contents.push(output.tensor.data().clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use motet_engine::tensor::{Datatype, Tensor};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::inference::Output;

    fn input(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
        InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            contents,
            ..InferInputTensor::default()
        }
    }

    #[test]
    fn typed_elements_become_bytes() {
        let of = |fill: fn(&mut InferTensorContents)| {
            let mut contents = InferTensorContents::default();
            fill(&mut contents);
            contents
        };
        type Expected = Result<&'static [u8], &'static str>;
        let cases: Vec<(&str, InferTensorContents, Expected)> = vec![
            ("BOOL", of(|c| c.bool_contents = vec![true]), Ok(&[1])),
            ("INT8", of(|c| c.int_contents = vec![-2]), Ok(&[0xFE])),
            ("INT8", of(|c| c.int_contents = vec![128]), Err("out of the range of INT8")),
            ("INT16", of(|c| c.int_contents = vec![-2]), Ok(&[0xFE, 0xFF])),
            ("INT32", of(|c| c.int_contents = vec![1]), Ok(&[1, 0, 0, 0])),
            ("INT64", of(|c| c.int64_contents = vec![1]), Ok(&[1, 0, 0, 0, 0, 0, 0, 0])),
            ("UINT8", of(|c| c.uint_contents = vec![255]), Ok(&[255])),
            ("UINT16", of(|c| c.uint_contents = vec![65_536]), Err("out of the range of UINT16")),
            ("UINT32", of(|c| c.uint_contents = vec![1]), Ok(&[1, 0, 0, 0])),
            ("UINT64", of(|c| c.uint64_contents = vec![1]), Ok(&[1, 0, 0, 0, 0, 0, 0, 0])),
            ("FP32", of(|c| c.fp32_contents = vec![1.0]), Ok(&[0, 0, 128, 63])),
            ("FP64", of(|c| c.fp64_contents = vec![1.0]), Ok(&[0, 0, 0, 0, 0, 0, 240, 63])),
            ("BYTES", of(|c| c.bytes_contents = vec![Bytes::from_static(b"ab")]), Ok(&[2, 0, 0, 0, b'a', b'b'])),
            ("FP32", of(|c| c.fp64_contents = vec![1.0]), Err("go into fp32_contents, not fp64_contents")),
            ("FP16", of(|c| c.fp32_contents = vec![1.0]), Err("go into raw_input_contents")),
            ("FP99", InferTensorContents::default(), Err("is no datatype")),
            ("FP32", InferTensorContents::default(), Err("needs 4 bytes, got 0")),
        ];
        for (datatype, contents, expected) in cases {
            let request =
                ModelInferRequest { inputs: vec![input(datatype, &[1], Some(contents))], ..Default::default() };
            match (call(request), expected) {
                (Ok(call), Ok(bytes)) => assert_eq!(call.inputs[0].1.data()[..], *bytes, "{datatype}"),
                (Err(problem), Err(words)) => assert!(problem.detail().contains(words), "{problem:?}"),
                (read, _) => panic!("{datatype}: {read:?}"),
            }
        }
    }

    #[test]
    fn raw_and_typed_are_not_mixed() {
        let typed = InferTensorContents { int_contents: vec![1], ..Default::default() };
        let raw = |inputs, raw: usize| ModelInferRequest {
            inputs,
            raw_input_contents: vec![Bytes::from_static(&[1]); raw],
            ..Default::default()
        };
        for (request, words) in [
            (raw(vec![input("INT8", &[1], None)], 1), ""),
            (raw(vec![input("INT8", &[1], Some(typed))], 1), "has contents beside raw_input_contents"),
            (raw(vec![input("INT8", &[1], None); 2], 1), "1 raw_input_contents for 2 inputs"),
            (raw(vec![input("INT8", &[2], None)], 1), "needs 2 bytes, got 1"),
        ] {
            match call(request) {
                Ok(_) => assert!(words.is_empty()),
                Err(problem) => assert!(!words.is_empty() && problem.detail().contains(words), "{problem:?}"),
            }
        }
    }

    #[test]
    fn answers_are_raw_in_the_order_of_their_outputs() {
        let vector = Tensor::from_f32(vec![1, 2], &[0.5, 1.0]).unwrap();
        let output = |name: &str, tensor: &Tensor| Output { name: name.into(), tensor: tensor.clone(), binary: true };
        let outputs = vec![output("t", &Tensor::from_strings(&["a"])), output("v", &vector)];
        let told = response(Answered { model: "m".into(), version: "1".into(), id: "7".into(), outputs });
        assert_eq!(told.outputs[1].shape, [1, 2]);
        assert_eq!(told.outputs[0].datatype, "BYTES");
        assert_eq!(told.raw_output_contents[0][..], [1, 0, 0, 0, b'a']);
        assert_eq!(told.raw_output_contents[1], vector.data());
        assert!(told.outputs.iter().all(|output| output.contents.is_none()));
    }

    proptest! {
        /// Whatever message arrives, there is an answer.
        #[test]
        fn any_message_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = ModelInferRequest::decode(&bytes[..]) {
                let _ = call(request);
            }
        }

        /// The same for messages that are nearly right.
        #[test]
        fn any_claim_is_answered(
            datatype in prop::sample::select(Datatype::ALL.map(|(_, name)| name).to_vec()),
            shape in prop::collection::vec(prop_oneof![0i64..4, any::<i64>()], 0..4),
            ints in prop::collection::vec(any::<i32>(), 0..4),
            raw in prop::option::of(prop::collection::vec(any::<u8>(), 0..32)),
        ) {
            let contents = raw.is_none().then(|| InferTensorContents { int_contents: ints, ..Default::default() });
            let request = ModelInferRequest {
                inputs: vec![input(datatype, &shape, contents)],
                raw_input_contents: raw.into_iter().map(Bytes::from).collect(),
                ..Default::default()
            };
            let _ = call(request);
        }
    }
}
