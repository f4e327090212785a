//! One call: checked against its model, answered by it as part of a batch, cut down to what was asked for.
//!
//! Never retries. Used by the route and by the gRPC service.

use std::time::{Duration, Instant};

use motet_engine::access::Caller;
use motet_engine::tensor::Tensor;
use motet_engine::value::{Map, Value};
use motet_models::port::{ModelSignature, TensorSpec};

use super::classes::classes;
use super::served::{served, unanswered};
use super::{Answered, Call, Output, Wanted, invalid};
use crate::http::App;
use crate::http::problem::Problem;

/// Answers a call within its own time limit, and at most within the server's.
///
/// # Errors
/// `400` when it does not fit the model, `404` for an unknown model, `503` when there is no room, `504` when its time is
/// over.
pub(crate) async fn infer(app: &App, caller: &Caller, call: Call) -> Result<Answered, Problem> {
    let patience = call.timeout.map_or(app.request_timeout, |timeout| timeout.min(app.request_timeout));
    let deadline = Instant::now() + patience;
    let served = served(app, caller, &call.model, &call.version, patience).await?;
    let signature = &served.description.signature;
    let wanted = wanted(signature, &call)?;
    check(signature, &call.inputs)?;
    let with: Map = call.inputs.into_iter().map(|(name, tensor)| (name.into(), Value::Tensor(tensor))).collect();
    let left = deadline.saturating_duration_since(Instant::now());
    let answered = app.router.infer(caller, &served.definition.name, with.into(), left).await;
    let answer = answered.map_err(|error| unanswered(&call.model, error))?;
    let labels = labels(signature);
    let outputs = wanted.into_iter().map(|wanted| output(&answer, wanted, &labels)).collect::<Result<_, _>>()?;
    Ok(Answered { model: call.model, version: served.description.version.clone(), id: call.id, outputs })
}

/// The outputs to answer with: those that were asked for, or all.
fn wanted(signature: &ModelSignature, call: &Call) -> Result<Vec<Wanted>, Problem> {
    if call.outputs.is_empty() {
        let all = signature.outputs.iter();
        return Ok(all.map(|spec| Wanted { name: spec.name.clone(), binary: call.binary, classes: 0 }).collect());
    }
    for (place, wanted) in call.outputs.iter().enumerate() {
        if !signature.outputs.iter().any(|spec| spec.name == wanted.name) {
            let known = names(&signature.outputs);
            return Err(invalid(format!("the model has no output '{}'; its outputs are: {known}", wanted.name)));
        }
        if call.outputs[..place].iter().any(|before| before.name == wanted.name) {
            return Err(invalid(format!("output '{}' is asked for twice", wanted.name)));
        }
    }
    Ok(call.outputs.clone())
}

/// Every input that the model needs, once, of its datatype and shape, all with the same number of rows.
fn check(signature: &ModelSignature, inputs: &[(String, Tensor)]) -> Result<(), Problem> {
    for (place, (name, tensor)) in inputs.iter().enumerate() {
        let Some(spec) = signature.inputs.iter().find(|spec| spec.name == *name) else {
            let known = names(&signature.inputs);
            return Err(invalid(format!("the model has no input '{name}'; its inputs are: {known}")));
        };
        if inputs[..place].iter().any(|(before, _)| before == name) {
            return Err(invalid(format!("input '{name}' stands twice")));
        }
        check_input(spec, tensor)?;
        if let Some((first, before)) = inputs.first()
            && before.rows() != tensor.rows()
        {
            let (rows, others) = (tensor.rows(), before.rows());
            return Err(invalid(format!("input '{name}' has {rows} rows, but '{first}' has {others}")));
        }
    }
    match signature.inputs.iter().find(|spec| !spec.optional && !inputs.iter().any(|(name, _)| *name == spec.name)) {
        Some(missing) => Err(invalid(format!("input '{}' is missing", missing.name))),
        None if inputs.is_empty() => Err(invalid("a call needs at least one input")),
        None => Ok(()),
    }
}

fn check_input(spec: &TensorSpec, tensor: &Tensor) -> Result<(), Problem> {
    let name = &spec.name;
    if tensor.datatype() != spec.datatype {
        let (came, wanted) = (tensor.datatype(), spec.datatype);
        return Err(invalid(format!("input '{name}' is {came} where the model takes {wanted}")));
    }
    let fits = tensor.shape().len() == spec.shape.len()
        && tensor.shape().iter().zip(&spec.shape).all(|(came, wanted)| wanted.is_none_or(|wanted| wanted == *came));
    if !fits {
        let (came, wanted) = (tensor.shape(), lengths(&spec.shape));
        return Err(invalid(format!("input '{name}' has the shape {came:?} where the model takes {wanted:?}")));
    }
    if tensor.rows() == 0 {
        return Err(invalid(format!("input '{name}' has no row")));
    }
    Ok(())
}

/// A shape as the protocol writes it: -1 for any length.
pub(crate) fn lengths(shape: &[Option<usize>]) -> Vec<i64> {
    shape.iter().map(|length| length.map_or(-1, |length| i64::try_from(length).unwrap_or(i64::MAX))).collect()
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What the model says its elements stand for.
fn labels(signature: &ModelSignature) -> Vec<&str> {
    let labels = signature.facts.get("labels").and_then(serde_json::Value::as_array);
    labels.map(|labels| labels.iter().filter_map(serde_json::Value::as_str).collect()).unwrap_or_default()
}

fn output(answer: &Value, wanted: Wanted, labels: &[&str]) -> Result<Output, Problem> {
    let Wanted { name, binary, classes: most } = wanted;
    let Some(Value::Tensor(tensor)) = answer.get(&name) else {
        return Err(Problem::new(500, "internal", format!("the model did not answer with the output '{name}'")));
    };
    let tensor = if most > 0 { classes(&name, tensor, most, labels)? } else { tensor.clone() };
    Ok(Output { name, tensor, binary })
}

/// The shorter of two time limits, of which either may be none.
pub(crate) fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use motet_engine::tensor::Datatype;

    use super::*;

    fn spec(name: &str, datatype: Datatype, shape: &[Option<usize>], optional: bool) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.to_vec(), optional }
    }

    #[test]
    fn calls_must_fit_their_model() {
        let signature = ModelSignature {
            inputs: vec![
                spec("text", Datatype::Bytes, &[None], false),
                spec("weights", Datatype::Fp32, &[None, Some(2)], true),
            ],
            outputs: vec![],
            memory_bytes: 0,
            facts: BTreeMap::new(),
        };
        let text = |count: usize| ("text".to_owned(), Tensor::from_strings(&vec!["a"; count]));
        let weights = |shape: &[usize]| {
            let count = shape.iter().product();
            ("weights".to_owned(), Tensor::from_f32(shape.to_vec(), &vec![0.5; count]).unwrap())
        };
        let other = |name: &str| (name.to_owned(), Tensor::from_f32(vec![1], &[1.0]).unwrap());
        let cases = [
            (vec![text(1)], ""),
            (vec![text(2), weights(&[2, 2])], ""),
            (vec![], "input 'text' is missing"),
            (vec![weights(&[1, 2])], "input 'text' is missing"),
            (vec![other("txt")], "the model has no input 'txt'; its inputs are: text, weights"),
            (vec![other("text")], "input 'text' is FP32 where the model takes BYTES"),
            (vec![text(1), text(1)], "input 'text' stands twice"),
            (vec![text(0)], "input 'text' has no row"),
            (vec![text(2), weights(&[1, 2])], "input 'weights' has 1 rows, but 'text' has 2"),
            (vec![text(1), weights(&[1, 3])], "has the shape [1, 3] where the model takes [-1, 2]"),
            (vec![text(1), weights(&[2])], "has the shape [2] where the model takes [-1, 2]"),
        ];
        for (inputs, words) in cases {
            match check(&signature, &inputs) {
                Ok(()) => assert!(words.is_empty(), "{inputs:?} was taken"),
                Err(problem) => assert!(!words.is_empty() && problem.detail().contains(words), "{problem:?}"),
            }
        }
    }
}
