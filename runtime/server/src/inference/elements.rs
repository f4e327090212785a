//! Elements of tensors as JSON: flat or nested lists in, flat lists out.
//!
//! Never makes values between the text and the bytes. FP16 and BF16 have no form in JSON. Used by `message`.

use std::fmt;

use motet_engine::tensor::{Datatype, Tensor};
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserializer, Serialize, Serializer};

/// Reads elements of a datatype, however deep they lie, into row-major little-endian bytes.
///
/// # Errors
/// Why an element is none of this datatype, with its place in the text.
pub(super) fn read(datatype: Datatype, json: &str) -> Result<Vec<u8>, serde_json::Error> {
    let mut data = Vec::with_capacity(json.len());
    let mut text = serde_json::Deserializer::from_str(json);
    Elements { datatype, data: &mut data }.deserialize(&mut text)?;
    text.end()?;
    Ok(data)
}

struct Elements<'a> {
    datatype: Datatype,
    data: &'a mut Vec<u8>,
}

impl Elements<'_> {
    fn whole(self, number: i128) -> Result<(), String> {
        let data = self.data;
        let refused = |_| format!("{number} is out of the range of {}", self.datatype);
        match self.datatype {
            Datatype::Uint8 => data.extend(u8::try_from(number).map_err(refused)?.to_le_bytes()),
            Datatype::Uint16 => data.extend(u16::try_from(number).map_err(refused)?.to_le_bytes()),
            Datatype::Uint32 => data.extend(u32::try_from(number).map_err(refused)?.to_le_bytes()),
            Datatype::Uint64 => data.extend(u64::try_from(number).map_err(refused)?.to_le_bytes()),
            Datatype::Int8 => data.extend(i8::try_from(number).map_err(refused)?.to_le_bytes()),
            Datatype::Int16 => data.extend(i16::try_from(number).map_err(refused)?.to_le_bytes()),
            Datatype::Int32 => data.extend(i32::try_from(number).map_err(refused)?.to_le_bytes()),
            Datatype::Int64 => data.extend(i64::try_from(number).map_err(refused)?.to_le_bytes()),
            Datatype::Fp32 => data.extend((number as f32).to_le_bytes()),
            Datatype::Fp64 => data.extend((number as f64).to_le_bytes()),
            other => return Err(no_element(other, "a number")),
        }
        Ok(())
    }

    fn fraction(self, number: f64) -> Result<(), String> {
        match self.datatype {
            Datatype::Fp32 if (number as f32).is_finite() => self.data.extend((number as f32).to_le_bytes()),
            Datatype::Fp32 => return Err(format!("{number} is out of the range of FP32")),
            Datatype::Fp64 => self.data.extend(number.to_le_bytes()),
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Bool | Datatype::Bytes => {
                return Err(no_element(self.datatype, "a number"));
            }
            // A whole number that was written with a point.
            _ if number.fract() == 0.0 && number.abs() < 1e19 => return self.whole(number as i128),
            other => return Err(format!("{number} is no whole number, which {other} wants")),
        }
        Ok(())
    }
}

fn no_element(datatype: Datatype, what: &str) -> String {
    match datatype {
        Datatype::Fp16 | Datatype::Bf16 => format!("{datatype} cannot be written in JSON; send the tensor as bytes"),
        other => format!("{what} is no element of {other}"),
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "elements of {}", self.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Elements { datatype: self.datatype, data: &mut *self.data })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        if self.datatype != Datatype::Bool {
            return Err(E::custom(no_element(self.datatype, "a boolean")));
        }
        self.data.push(u8::from(value));
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.whole(value.into()).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.whole(value.into()).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.fraction(value).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        if self.datatype != Datatype::Bytes {
            return Err(E::custom(no_element(self.datatype, "a string")));
        }
        let length = u32::try_from(value.len()).map_err(|_| E::custom("a string of more than 4 GiB"))?;
        self.data.extend(length.to_le_bytes());
        self.data.extend(value.as_bytes());
        Ok(())
    }
}

/// The elements of a tensor as a flat JSON list.
pub(super) struct Flat<'a>(pub(super) &'a Tensor);

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tensor = self.0;
        let mut list = serializer.serialize_seq(None)?;
        match tensor.datatype() {
            Datatype::Bool => each(&mut list, tensor, |[byte]: [u8; 1]| Some(byte != 0))?,
            Datatype::Uint8 => each(&mut list, tensor, |bytes| Some(u8::from_le_bytes(bytes)))?,
            Datatype::Uint16 => each(&mut list, tensor, |bytes| Some(u16::from_le_bytes(bytes)))?,
            Datatype::Uint32 => each(&mut list, tensor, |bytes| Some(u32::from_le_bytes(bytes)))?,
            Datatype::Uint64 => each(&mut list, tensor, |bytes| Some(u64::from_le_bytes(bytes)))?,
            Datatype::Int8 => each(&mut list, tensor, |bytes| Some(i8::from_le_bytes(bytes)))?,
            Datatype::Int16 => each(&mut list, tensor, |bytes| Some(i16::from_le_bytes(bytes)))?,
            Datatype::Int32 => each(&mut list, tensor, |bytes| Some(i32::from_le_bytes(bytes)))?,
            Datatype::Int64 => each(&mut list, tensor, |bytes| Some(i64::from_le_bytes(bytes)))?,
            Datatype::Fp32 => {
                each(&mut list, tensor, |bytes| Some(f32::from_le_bytes(bytes)).filter(|number| number.is_finite()))?;
            }
            Datatype::Fp64 => {
                each(&mut list, tensor, |bytes| Some(f64::from_le_bytes(bytes)).filter(|number| number.is_finite()))?;
            }
            other @ (Datatype::Fp16 | Datatype::Bf16) => {
                return Err(S::Error::custom(format!("{other} cannot be written in JSON; ask for bytes")));
            }
            Datatype::Bytes => {
                for element in tensor.byte_strings().unwrap_or_default() {
                    let text = std::str::from_utf8(element)
                        .map_err(|_| S::Error::custom("an element is not UTF-8; ask for bytes"))?;
                    list.serialize_element(text)?;
                }
            }
        }
        list.end()
    }
}

/// Writes elements of `SIZE` bytes each; none stands for one that JSON has no form of.
fn each<L: SerializeSeq, T: Serialize, const SIZE: usize>(
    list: &mut L,
    tensor: &Tensor,
    element: impl Fn([u8; SIZE]) -> Option<T>,
) -> Result<(), L::Error> {
    let (chunks, _) = tensor.data().as_chunks::<SIZE>();
    for bytes in chunks {
        let value = element(*bytes)
            .ok_or_else(|| L::Error::custom("an element is not finite, which JSON cannot say; ask for bytes"))?;
        list.serialize_element(&value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_come_flat_or_nested_and_keep_to_their_range() {
        let cases = [
            (Datatype::Int32, "[1, -2, 3]", Ok("[1,-2,3]")),
            (Datatype::Int32, "[[1, -2], [3.0, 4e0]]", Ok("[1,-2,3,4]")),
            (Datatype::Int32, "7", Ok("[7]")),
            (Datatype::Int32, "[]", Ok("[]")),
            (Datatype::Uint8, "[255]", Ok("[255]")),
            (Datatype::Uint8, "[256]", Err("256 is out of the range of UINT8")),
            (Datatype::Int8, "[-129]", Err("-129 is out of the range of INT8")),
            (Datatype::Uint64, "[18446744073709551615]", Ok("[18446744073709551615]")),
            (Datatype::Int64, "[-9223372036854775808]", Ok("[-9223372036854775808]")),
            (Datatype::Int64, "[1e300]", Err("is no whole number")),
            (Datatype::Int16, "[1.5]", Err("1.5 is no whole number, which INT16 wants")),
            (Datatype::Fp32, "[0.1, 1, -0.0]", Ok("[0.1,1.0,-0.0]")),
            (Datatype::Fp32, "[1e39]", Err("is out of the range of FP32")),
            (Datatype::Fp64, "[0.1, 1e300]", Ok("[0.1,1e+300]")),
            (Datatype::Bool, "[true, false]", Ok("[true,false]")),
            (Datatype::Bool, "[1]", Err("a number is no element of BOOL")),
            (Datatype::Bytes, "[\"ä\", \"\"]", Ok("[\"ä\",\"\"]")),
            (Datatype::Bytes, "[1]", Err("a number is no element of BYTES")),
            (Datatype::Fp32, "[\"1\"]", Err("a string is no element of FP32")),
            (Datatype::Fp32, "[true]", Err("a boolean is no element of FP32")),
            (Datatype::Fp32, "[null]", Err("expected elements of FP32")),
            (Datatype::Fp32, "[{}]", Err("expected elements of FP32")),
            (Datatype::Fp16, "[1.5]", Err("FP16 cannot be written in JSON")),
            (Datatype::Bf16, "[1]", Err("BF16 cannot be written in JSON")),
        ];
        for (datatype, json, expected) in cases {
            match (read(datatype, json), expected) {
                (Ok(data), Ok(written)) => {
                    let size = datatype.size().unwrap_or(1);
                    let count = match datatype {
                        Datatype::Bytes => written.matches("\",\"").count() + 1,
                        _ => data.len() / size,
                    };
                    let tensor = Tensor::new(datatype, vec![count], data.into()).unwrap();
                    assert_eq!(serde_json::to_string(&Flat(&tensor)).unwrap(), written, "{datatype} {json}");
                }
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{datatype} {json}: {error}"),
                (read, _) => panic!("{datatype} {json}: {read:?}"),
            }
        }
        let deep = "[".repeat(100_000);
        assert!(read(Datatype::Fp32, &deep).is_err());
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let refused = [
            Tensor::from_f32(vec![1], &[f32::NAN]).unwrap(),
            Tensor::from_f32(vec![1], &[f32::INFINITY]).unwrap(),
            Tensor::new(Datatype::Fp16, vec![1], vec![0; 2].into()).unwrap(),
            Tensor::from_strings(&[[0xFF_u8]]),
        ];
        for tensor in refused {
            let error = serde_json::to_string(&Flat(&tensor)).unwrap_err();
            assert!(error.to_string().contains("ask for bytes"), "{error}");
        }
    }

    fn tensors() -> impl Strategy<Value = Tensor> {
        let whole = [
            Datatype::Uint8,
            Datatype::Uint16,
            Datatype::Uint32,
            Datatype::Uint64,
            Datatype::Int8,
            Datatype::Int16,
            Datatype::Int32,
            Datatype::Int64,
        ];
        let whole = prop::sample::select(whole.to_vec()).prop_flat_map(|datatype| {
            let size = datatype.size().unwrap_or(1);
            prop::collection::vec(any::<u64>(), 0..8).prop_map(move |numbers| {
                let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()[..size].to_vec()).collect();
                Tensor::new(datatype, vec![numbers.len()], data.into()).unwrap()
            })
        });
        prop_oneof![
            whole,
            prop::collection::vec(-1e30f32..1e30, 0..8).prop_map(|n| Tensor::from_f32(vec![n.len()], &n).unwrap()),
            prop::collection::vec(".{0,6}", 0..6).prop_map(|texts| Tensor::from_strings(&texts)),
        ]
    }

    proptest! {
        /// What is written is read back bit by bit.
        #[test]
        fn elements_come_back_as_they_went(tensor in tensors()) {
            let json = serde_json::to_string(&Flat(&tensor)).unwrap();
            prop_assert_eq!(read(tensor.datatype(), &json).unwrap(), tensor.data().to_vec());
        }

        /// Whatever text stands under `data`, reading answers.
        #[test]
        fn any_text_is_answered(
            datatype in prop::sample::select(Datatype::ALL.map(|(datatype, _)| datatype).to_vec()),
            text in r#"[\[\]0-9a-z",.\-{}: ]{0,40}"#,
        ) {
            let _ = read(datatype, &text);
        }
    }
}
