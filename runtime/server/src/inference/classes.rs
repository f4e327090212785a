//! The highest elements of an output's rows as texts, which clients ask for as its classification.
//!
//! Never knows what the labels mean. Used by `calling`.

use motet_engine::tensor::{Datatype, Tensor};

use super::invalid;
use crate::http::problem::Problem;

/// The `most` highest elements of each row, the highest first, as `score:index`, or `score:index:label` where there is
/// a label of that index.
///
/// # Errors
/// When the elements are no numbers that can be compared here.
pub(super) fn classes(name: &str, tensor: &Tensor, most: usize, labels: &[&str]) -> Result<Tensor, Problem> {
    let Some(numbers) = numbers(tensor) else {
        let words = format!("output '{name}' is {}, of which there is no classification", tensor.datatype());
        return Err(invalid(words));
    };
    let rows = tensor.rows();
    let width = numbers.len().checked_div(rows).unwrap_or(0);
    let most = most.min(width);
    let mut texts = Vec::with_capacity(rows * most);
    for row in numbers.chunks(width.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|one, other| row[*other].total_cmp(&row[*one]));
        texts.extend(order.into_iter().take(most).map(|index| {
            let label = labels.get(index).map(|label| format!(":{label}")).unwrap_or_default();
            format!("{:.6}:{index}{label}", row[index])
        }));
    }
    let texts = Tensor::from_strings(&texts);
    texts.reshaped(vec![rows, most]).map_err(|error| Problem::new(500, "internal", error.to_string()))
}

/// The elements as numbers that compare.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    fn all<const SIZE: usize>(tensor: &Tensor, number: impl Fn([u8; SIZE]) -> f64) -> Vec<f64> {
        tensor.data().as_chunks::<SIZE>().0.iter().map(|bytes| number(*bytes)).collect()
    }
    Some(match tensor.datatype() {
        Datatype::Uint8 | Datatype::Bool => all(tensor, |[byte]: [u8; 1]| byte.into()),
        Datatype::Uint16 => all(tensor, |bytes| u16::from_le_bytes(bytes).into()),
        Datatype::Uint32 => all(tensor, |bytes| u32::from_le_bytes(bytes).into()),
        Datatype::Uint64 => all(tensor, |bytes| u64::from_le_bytes(bytes) as f64),
        Datatype::Int8 => all(tensor, |bytes| i8::from_le_bytes(bytes).into()),
        Datatype::Int16 => all(tensor, |bytes| i16::from_le_bytes(bytes).into()),
        Datatype::Int32 => all(tensor, |bytes| i32::from_le_bytes(bytes).into()),
        Datatype::Int64 => all(tensor, |bytes| i64::from_le_bytes(bytes) as f64),
        Datatype::Fp32 => all(tensor, |bytes| f32::from_le_bytes(bytes).into()),
        Datatype::Fp64 => all(tensor, f64::from_le_bytes),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_come_first_with_their_labels() {
        let scores = Tensor::from_f32(vec![2, 3], &[0.1, 0.7, 0.2, 3.0, -1.0, f32::NAN]).unwrap();
        type Texts = &'static [&'static str];
        let cases: [(usize, Texts, &[usize], Texts); 4] = [
            (1, &["a", "b", "c"], &[2, 1], &["0.700000:1:b", "NaN:2:c"]),
            (2, &["a"], &[2, 2], &["0.700000:1", "0.200000:2", "NaN:2", "3.000000:0:a"]),
            (9, &[], &[2, 3], &["0.700000:1", "0.200000:2", "0.100000:0", "NaN:2", "3.000000:0", "-1.000000:1"]),
            (0, &[], &[2, 0], &[]),
        ];
        for (most, labels, shape, expected) in cases {
            let told = classes("scores", &scores, most, labels).unwrap();
            let texts: Vec<_> = told.byte_strings().unwrap().into_iter().map(String::from_utf8_lossy).collect();
            assert_eq!((told.shape(), texts), (shape, expected.iter().map(|text| (*text).into()).collect()));
        }
        let whole = Tensor::new(Datatype::Int8, vec![1, 2], vec![0xFF, 1].into()).unwrap();
        assert_eq!(classes("n", &whole, 1, &[]).unwrap().byte_strings().unwrap(), [b"1.000000:1"]);
        assert!(classes("t", &Tensor::from_strings(&["a"]), 1, &[]).is_err());
        assert!(classes("e", &Tensor::from_f32(vec![0, 3], &[]).unwrap(), 1, &[]).is_ok());
    }
}
