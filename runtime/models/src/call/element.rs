//! Single elements of tensors out of values and back.
//!
//! Used by `call`.

use motet_engine::tensor::{Datatype, Tensor};
use motet_engine::value::Value;

/// Largest whole number up to which every one is a double.
const EXACT_DOUBLES: f64 = 9_007_199_254_740_992.0;

/// Appends a scalar as an element of `datatype`, or says what is wrong with it.
pub(super) fn append(datatype: Datatype, value: &Value, data: &mut Vec<u8>) -> Result<(), String> {
    let refused = || format!("{} where {} is expected", value.kind(), wanted(datatype));
    match datatype {
        Datatype::Bytes => {
            let text = value.as_str().ok_or_else(refused)?;
            let len = u32::try_from(text.len()).map_err(|_| "a string of more than 4 GiB".to_owned())?;
            data.extend_from_slice(&len.to_le_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        Datatype::Bool => match value {
            Value::Bool(truth) => data.push(u8::from(*truth)),
            _ => return Err(refused()),
        },
        Datatype::Fp32 => {
            let number = number(value).ok_or_else(refused)?;
            let narrowed = number as f32;
            if narrowed.is_infinite() && number.is_finite() {
                return Err(format!("{number} is too large for FP32"));
            }
            data.extend_from_slice(&narrowed.to_le_bytes());
        }
        Datatype::Fp64 => data.extend_from_slice(&number(value).ok_or_else(refused)?.to_le_bytes()),
        Datatype::Fp16 | Datatype::Bf16 => return Err(refused()),
        _ => {
            let whole = whole(value).ok_or_else(refused)?;
            let size = datatype.size().unwrap_or_default();
            let (least, most) = range(datatype);
            if whole < least || whole > most {
                return Err(format!("{whole} does not fit {datatype} ({least} to {most})"));
            }
            data.extend_from_slice(&whole.to_le_bytes()[..size]);
        }
    }
    Ok(())
}

/// A tensor without dimensions as a value: a string for bytes that are UTF-8, a number, a boolean.
pub(super) fn scalar(tensor: Tensor) -> Value {
    if let Some(bytes) = tensor.byte_strings() {
        let text = bytes.first().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(Value::from);
        return text.unwrap_or(Value::Tensor(tensor));
    }
    Value::Tensor(tensor).to_json().into()
}

fn wanted(datatype: Datatype) -> String {
    match datatype {
        Datatype::Bytes => "a string".to_owned(),
        Datatype::Bool => "a boolean".to_owned(),
        Datatype::Fp32 | Datatype::Fp64 => "a number".to_owned(),
        Datatype::Fp16 | Datatype::Bf16 => format!("{datatype}, which only a tensor holds,"),
        _ => format!("a whole number ({datatype})"),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(whole) => Some(*whole as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Int(whole) => Some(i128::from(*whole)),
        Value::Float(number) if number.fract() == 0.0 && number.abs() <= EXACT_DOUBLES => Some(*number as i128),
        _ => None,
    }
}

fn range(datatype: Datatype) -> (i128, i128) {
    match datatype {
        Datatype::Uint8 => (0, u8::MAX.into()),
        Datatype::Uint16 => (0, u16::MAX.into()),
        Datatype::Uint32 => (0, u32::MAX.into()),
        Datatype::Uint64 => (0, u64::MAX.into()),
        Datatype::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Datatype::Int16 => (i16::MIN.into(), i16::MAX.into()),
        Datatype::Int32 => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}
