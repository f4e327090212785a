//! The arguments of `vector.query` and `vector.upsert` steps, read out of their evaluated `with`.
//!
//! Every mistake says where it is. Used by `indexes`.

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::tensor::Tensor;
use motet_engine::value::{Map, Value};
use motet_vectors::filter::Filter;
use motet_vectors::port::{VectorMatch, VectorQuery, VectorRecord};

/// Matches that a query gives when it does not say how many.
const DEFAULT_TOP_K: u32 = 10;

fn invalid(words: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Invalid, words)
}

/// Reads a query.
///
/// # Errors
/// `Invalid` with the path of the mistake.
pub(crate) fn query(with: &Value) -> Result<VectorQuery, Failure> {
    let vector = with.get("vector").ok_or_else(|| invalid("with.vector is missing"))?;
    let top_k = match with.get("top_k") {
        None | Some(Value::Null) => DEFAULT_TOP_K,
        Some(Value::Int(n)) => u32::try_from(*n).map_err(|_| invalid(format!("with.top_k: {n} is out of range")))?,
        Some(other) => return Err(invalid(format!("with.top_k must be an integer, got {}", other.kind()))),
    };
    let filter = match with.get("filter") {
        None | Some(Value::Null) => None,
        Some(filter) => Some(Filter::parse(filter)?),
    };
    Ok(VectorQuery {
        namespace: text(with, "namespace")?,
        values: floats(vector, "with.vector")?,
        top_k,
        filter,
        include_values: flag(with, "include_values", false)?,
        include_metadata: flag(with, "include_metadata", true)?,
    })
}

/// Reads an upsert: one vector (`id`, `values`, `metadata`), a list of such maps (`vectors`), or columns (`ids`,
/// `vectors` as a tensor or a list of lists, `metadata` as a list).
///
/// # Errors
/// `Invalid` with the path of the mistake.
pub(crate) fn upsert(with: &Value) -> Result<(String, Vec<VectorRecord>), Failure> {
    let namespace = text(with, "namespace")?;
    let records = match (with.get("ids"), with.get("vectors")) {
        (Some(Value::List(ids)), Some(vectors)) => columns(ids, vectors, with.get("metadata"))?,
        (Some(other), _) => return Err(invalid(format!("with.ids must be a list, got {}", other.kind()))),
        (None, Some(Value::List(vectors))) => {
            let read = |(place, vector)| record(vector, &format!("with.vectors[{place}]"));
            vectors.iter().enumerate().map(read).collect::<Result<_, _>>()?
        }
        (None, Some(other)) => return Err(invalid(format!("with.vectors must be a list, got {}", other.kind()))),
        (None, None) => vec![record(with, "with")?],
    };
    Ok((namespace, records))
}

fn record(value: &Value, path: &str) -> Result<VectorRecord, Failure> {
    let values = value.get("values").ok_or_else(|| invalid(format!("{path}.values is missing")))?;
    Ok(VectorRecord {
        id: id(value.get("id"), &format!("{path}.id"))?,
        values: floats(values, &format!("{path}.values"))?,
        metadata: metadata(value.get("metadata"), &format!("{path}.metadata"))?,
    })
}

fn columns(ids: &[Value], vectors: &Value, all_metadata: Option<&Value>) -> Result<Vec<VectorRecord>, Failure> {
    let rows = rows(vectors)?;
    if rows.len() != ids.len() {
        return Err(invalid(format!("with.vectors has {} rows, with.ids has {}", rows.len(), ids.len())));
    }
    let all_metadata = match all_metadata {
        None | Some(Value::Null) => None,
        Some(Value::List(list)) if list.len() == ids.len() => Some(list),
        Some(Value::List(list)) => {
            return Err(invalid(format!("with.metadata has {} entries, with.ids has {}", list.len(), ids.len())));
        }
        Some(other) => return Err(invalid(format!("with.metadata must be a list beside ids, got {}", other.kind()))),
    };
    let mut records = Vec::with_capacity(ids.len());
    for (place, values) in rows.into_iter().enumerate() {
        let own = all_metadata.and_then(|list| list.get(place));
        records.push(VectorRecord {
            id: id(ids.get(place), &format!("with.ids[{place}]"))?,
            values,
            metadata: metadata(own, &format!("with.metadata[{place}]"))?,
        });
    }
    Ok(records)
}

fn rows(vectors: &Value) -> Result<Vec<Vec<f32>>, Failure> {
    match vectors {
        Value::Tensor(tensor) if tensor.shape().len() == 2 => {
            let width = tensor.shape()[1].max(1);
            let all = tensor_floats(tensor, "with.vectors")?;
            Ok(all.chunks(width).map(<[f32]>::to_vec).collect())
        }
        Value::List(list) => {
            list.iter().enumerate().map(|(n, vector)| floats(vector, &format!("with.vectors[{n}]"))).collect()
        }
        other => {
            Err(invalid(format!("with.vectors must be a tensor of two dimensions or a list, got {}", other.kind())))
        }
    }
}

fn floats(value: &Value, path: &str) -> Result<Vec<f32>, Failure> {
    match value {
        Value::Tensor(tensor) => {
            let outer: usize = tensor.shape().iter().rev().skip(1).product();
            if outer != 1 {
                return Err(invalid(format!("{path} must be one vector, got a tensor of shape {:?}", tensor.shape())));
            }
            tensor_floats(tensor, path)
        }
        Value::List(items) => items
            .iter()
            .enumerate()
            .map(|(place, item)| match item {
                Value::Float(number) => Ok(*number as f32),
                Value::Int(number) => Ok(*number as f32),
                other => Err(invalid(format!("{path}[{place}] must be a number, got {}", other.kind()))),
            })
            .collect(),
        other => Err(invalid(format!("{path} must be a tensor or a list of numbers, got {}", other.kind()))),
    }
}

fn tensor_floats(tensor: &Tensor, path: &str) -> Result<Vec<f32>, Failure> {
    tensor.to_f32().ok_or_else(|| invalid(format!("{path} must be FP32, got {}", tensor.datatype())))
}

fn id(value: Option<&Value>, path: &str) -> Result<String, Failure> {
    match value {
        Some(Value::String(text)) => Ok(text.to_string()),
        Some(Value::Int(number)) => Ok(number.to_string()),
        Some(other) => Err(invalid(format!("{path} must be a string, got {}", other.kind()))),
        None => Err(invalid(format!("{path} is missing"))),
    }
}

fn metadata(value: Option<&Value>, path: &str) -> Result<Map, Failure> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Map(map)) => Ok((**map).clone()),
        Some(other) => Err(invalid(format!("{path} must be a map, got {}", other.kind()))),
    }
}

fn text(with: &Value, key: &str) -> Result<String, Failure> {
    match with.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.to_string()),
        Some(other) => Err(invalid(format!("with.{key} must be a string, got {}", other.kind()))),
    }
}

fn flag(with: &Value, key: &str, default: bool) -> Result<bool, Failure> {
    match with.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(invalid(format!("with.{key} must be true or false, got {}", other.kind()))),
    }
}

/// The output of a query step: `{matches: [{id, score, metadata?, values?}]}`.
pub(crate) fn matches(found: Vec<VectorMatch>) -> Value {
    let matches: Vec<Value> = found
        .into_iter()
        .map(|found| {
            let mut map = Map::from([
                ("id".into(), Value::from(found.id)),
                ("score".into(), Value::Float(f64::from(found.score))),
            ]);
            if let Some(metadata) = found.metadata {
                map.insert("metadata".into(), metadata.into());
            }
            if let Some(tensor) = found.values.and_then(|v| Tensor::from_f32(vec![v.len()], &v).ok()) {
                map.insert("values".into(), Value::Tensor(tensor));
            }
            map.into()
        })
        .collect();
    Map::from([("matches".into(), matches.into())]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: serde_json::Value) -> Value {
        json.into()
    }

    #[test]
    fn the_three_forms_of_an_upsert_mean_the_same() {
        let tensor = Value::Tensor(Tensor::from_f32(vec![1, 2], &[1.0, 2.0]).unwrap());
        let single = value(serde_json::json!({"id": "a", "values": [1, 2.0], "metadata": {"k": 1}}));
        let listed = value(serde_json::json!({"vectors": [{"id": "a", "values": [1, 2.0], "metadata": {"k": 1}}]}));
        let Value::Map(columns) = value(serde_json::json!({"ids": ["a"], "metadata": [{"k": 1}]})) else { panic!() };
        let mut columns = (*columns).clone();
        columns.insert("vectors".into(), tensor);
        let expected = upsert(&single).unwrap();
        assert_eq!(upsert(&listed).unwrap(), expected);
        assert_eq!(upsert(&columns.into()).unwrap(), expected);
    }

    #[test]
    fn mistakes_say_where_they_are() {
        for (with, words) in [
            (serde_json::json!({"id": "a"}), "with.values is missing"),
            (serde_json::json!({"vectors": [{"values": [1]}]}), "with.vectors[0].id is missing"),
            (
                serde_json::json!({"vectors": [{"id": "a", "values": [1, "x"]}]}),
                "with.vectors[0].values[1] must be a number",
            ),
            (serde_json::json!({"ids": ["a"], "vectors": [[1], [2]]}), "with.vectors has 2 rows, with.ids has 1"),
            (serde_json::json!({"id": "a", "values": [1], "metadata": []}), "with.metadata must be a map"),
        ] {
            let failure = upsert(&value(with)).unwrap_err();
            assert!(failure.message.contains(words), "{failure}");
        }
        for (with, words) in [
            (serde_json::json!({}), "with.vector is missing"),
            (serde_json::json!({"vector": [1], "top_k": -1}), "with.top_k"),
            (serde_json::json!({"vector": [1], "include_values": "yes"}), "with.include_values"),
        ] {
            let failure = query(&value(with)).unwrap_err();
            assert!(failure.message.contains(words), "{failure}");
        }
    }
}
