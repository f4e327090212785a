//! Tensors with the datatype names and byte layout of the Open Inference protocol.
//!
//! Bytes stay bytes: a tensor is reference-counted little-endian data that moves from model to journal, cache and
//! index without being copied or turned into JSON. Never computes on elements. Used by values, models, vectors.
//! Source of the names and of the BYTES layout: Open Inference Protocol v2, binary tensor extension.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Element type of a tensor, by its Open Inference name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8 bits.
    Uint8,
    /// Unsigned 16 bits.
    Uint16,
    /// Unsigned 32 bits.
    Uint32,
    /// Unsigned 64 bits.
    Uint64,
    /// Signed 8 bits.
    Int8,
    /// Signed 16 bits.
    Int16,
    /// Signed 32 bits.
    Int32,
    /// Signed 64 bits.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// Bfloat16.
    Bf16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// Byte strings: each element is a 4-byte little-endian length and that many bytes.
    Bytes,
}

impl Datatype {
    /// Every datatype with its Open Inference name.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::Bool, "BOOL"),
        (Self::Uint8, "UINT8"),
        (Self::Uint16, "UINT16"),
        (Self::Uint32, "UINT32"),
        (Self::Uint64, "UINT64"),
        (Self::Int8, "INT8"),
        (Self::Int16, "INT16"),
        (Self::Int32, "INT32"),
        (Self::Int64, "INT64"),
        (Self::Fp16, "FP16"),
        (Self::Bf16, "BF16"),
        (Self::Fp32, "FP32"),
        (Self::Fp64, "FP64"),
        (Self::Bytes, "BYTES"),
    ];

    /// Bytes per element; none for BYTES, whose elements differ in size.
    #[must_use]
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The Open Inference name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(datatype, _)| *datatype == self).map_or("BYTES", |(_, name)| name)
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why bytes and shape do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The data has another length than datatype and shape say.
    #[error("{datatype} tensor of shape {shape:?} needs {expected} bytes, got {actual}")]
    Length {
        /// Datatype that was claimed.
        datatype: Datatype,
        /// Shape that was claimed.
        shape: Vec<usize>,
        /// Bytes that datatype and shape ask for.
        expected: usize,
        /// Bytes that were given.
        actual: usize,
    },
    /// The product of the shape does not fit the address space.
    #[error("shape {0:?} has too many elements")]
    TooLarge(Vec<usize>),
    /// A BYTES element is cut off, or there are more or fewer elements than the shape says.
    #[error("BYTES data does not hold exactly {expected} length-prefixed elements")]
    Elements {
        /// Elements that the shape asks for.
        expected: usize,
    },
    /// Rows that should be joined differ in datatype or in the shape of a row.
    #[error("tensors cannot be joined along dimension 0: {0}")]
    Mismatch(String),
}

/// Owned data of one datatype and shape, row-major, little-endian. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    datatype: Datatype,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// Checks that datatype, shape and data agree.
    ///
    /// # Errors
    /// When the data's length, or for BYTES the number of elements, does not fit the shape.
    pub fn new(datatype: Datatype, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let Some(count) = count else { return Err(TensorError::TooLarge(shape)) };
        match datatype.size() {
            Some(size) => {
                let Some(expected) = count.checked_mul(size) else { return Err(TensorError::TooLarge(shape)) };
                if expected != data.len() {
                    return Err(TensorError::Length { datatype, shape, expected, actual: data.len() });
                }
            }
            None => {
                let mut elements = 0usize;
                for element in ByteElements(&data) {
                    if element.is_none() || elements == count {
                        return Err(TensorError::Elements { expected: count });
                    }
                    elements += 1;
                }
                if elements != count {
                    return Err(TensorError::Elements { expected: count });
                }
            }
        }
        Ok(Self { datatype, shape, data })
    }

    /// An FP32 tensor from its elements in row-major order.
    ///
    /// # Errors
    /// When the number of elements does not fit the shape.
    pub fn from_f32(shape: Vec<usize>, elements: &[f32]) -> Result<Self, TensorError> {
        let mut data = Vec::with_capacity(elements.len() * 4);
        for element in elements {
            data.extend_from_slice(&element.to_le_bytes());
        }
        Self::new(Datatype::Fp32, shape, data.into())
    }

    /// A BYTES tensor of one dimension from byte strings.
    #[must_use]
    pub fn from_strings<S: AsRef<[u8]>>(elements: &[S]) -> Self {
        let mut data = Vec::with_capacity(elements.iter().map(|e| e.as_ref().len() + 4).sum());
        for element in elements {
            let element = element.as_ref();
            let len = u32::try_from(element.len()).unwrap_or(u32::MAX);
            data.extend_from_slice(&len.to_le_bytes());
            data.extend_from_slice(&element[..len as usize]);
        }
        Self { datatype: Datatype::Bytes, shape: vec![elements.len()], data: data.into() }
    }

    /// Element type.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// Lengths of the dimensions; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The raw row-major little-endian bytes.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Number of elements.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of dimension 0; 1 for a scalar.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The elements of an FP32 tensor; none for any other datatype.
    #[must_use]
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.datatype == Datatype::Fp32)
            .then(|| self.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The elements of a BYTES tensor; none for any other datatype.
    #[must_use]
    pub fn byte_strings(&self) -> Option<Vec<&[u8]>> {
        (self.datatype == Datatype::Bytes).then(|| ByteElements(&self.data).flatten().collect())
    }

    /// The same bytes under another shape.
    ///
    /// # Errors
    /// When the shapes differ in their number of elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, TensorError> {
        Self::new(self.datatype, shape, self.data.clone())
    }

    /// Joins tensors along dimension 0; all need one datatype and one shape of a row.
    ///
    /// # Errors
    /// When there is none, or datatype or row shape differ.
    pub fn concat(parts: &[Self]) -> Result<Self, TensorError> {
        let Some(first) = parts.first() else { return Err(TensorError::Mismatch("there is none".into())) };
        if let [only] = parts {
            return Ok(only.clone());
        }
        let row = first.shape.get(1..).unwrap_or_default();
        let mut rows = 0;
        let mut data = Vec::with_capacity(parts.iter().map(|p| p.data.len()).sum());
        for part in parts {
            if part.datatype != first.datatype || part.shape.is_empty() || &part.shape[1..] != row {
                return Err(TensorError::Mismatch(format!(
                    "{} {:?} beside {} {:?}",
                    first.datatype, first.shape, part.datatype, part.shape
                )));
            }
            rows += part.shape[0];
            data.extend_from_slice(&part.data);
        }
        let mut shape = first.shape.clone();
        shape[0] = rows;
        Self::new(first.datatype, shape, data.into())
    }

    /// Cuts along dimension 0 into pieces of the given numbers of rows; the inverse of [`Tensor::concat`].
    /// The pieces share this tensor's bytes.
    ///
    /// # Errors
    /// When the numbers do not add up to dimension 0.
    pub fn split(&self, rows: &[usize]) -> Result<Vec<Self>, TensorError> {
        if self.shape.is_empty() || rows.iter().sum::<usize>() != self.shape[0] {
            return Err(TensorError::Mismatch(format!("{:?} rows cannot be cut into {rows:?}", self.shape.first())));
        }
        let row_elements: usize = self.shape[1..].iter().product();
        let mut elements = ByteElements(&self.data);
        let mut start = 0;
        let mut pieces = Vec::with_capacity(rows.len());
        for &n in rows {
            let len = match self.datatype.size() {
                Some(size) => n * row_elements * size,
                None => {
                    let before = elements.0.len();
                    elements.by_ref().take(n * row_elements).for_each(drop);
                    before - elements.0.len()
                }
            };
            let mut shape = self.shape.clone();
            shape[0] = n;
            pieces.push(Self { datatype: self.datatype, shape, data: self.data.slice(start..start + len) });
            start += len;
        }
        Ok(pieces)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.datatype, self.shape)
    }
}

/// Walks length-prefixed elements; yields `None` once when the data is cut off, then ends.
struct ByteElements<'a>(&'a [u8]);

impl<'a> Iterator for ByteElements<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let element = self.0.split_first_chunk::<4>().and_then(|(len, rest)| {
            let len = u32::from_le_bytes(*len) as usize;
            (len <= rest.len()).then(|| rest.split_at(len))
        });
        self.0 = element.map_or(&[][..], |(_, rest)| rest);
        Some(element.map(|(element, _)| element))
    }
}

#[derive(Serialize)]
struct WireRef<'a>(Datatype, &'a [usize], &'a serde_bytes::Bytes);

#[derive(Deserialize)]
struct Wire(Datatype, Vec<usize>, serde_bytes::ByteBuf);

/// The binary form: (datatype, shape, bytes). The form in JSON is [`crate::value::Value`]'s affair.
impl Serialize for Tensor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireRef(self.datatype, &self.shape, serde_bytes::Bytes::new(&self.data)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tensor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire(datatype, shape, data) = Wire::deserialize(deserializer)?;
        Self::new(datatype, shape, data.into_vec().into()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_must_fit_the_shape() {
        let cases: [(Datatype, Vec<usize>, &[u8], bool); 8] = [
            (Datatype::Fp32, vec![2], &[0; 8], true),
            (Datatype::Fp32, vec![2], &[0; 7], false),
            (Datatype::Fp32, vec![], &[0; 4], true),
            (Datatype::Uint8, vec![usize::MAX, 2], &[], false),
            (Datatype::Bytes, vec![1], &[1, 0, 0, 0, b'x'], true),
            (Datatype::Bytes, vec![1], &[2, 0, 0, 0, b'x'], false),
            (Datatype::Bytes, vec![2], &[1, 0, 0, 0, b'x'], false),
            (Datatype::Bytes, vec![0], &[1, 0, 0, 0, b'x'], false),
        ];
        for (datatype, shape, data, fits) in cases {
            let made = Tensor::new(datatype, shape.clone(), Bytes::copy_from_slice(data));
            assert_eq!(made.is_ok(), fits, "{datatype} {shape:?}: {made:?}");
        }
    }

    #[test]
    fn split_undoes_concat() {
        let a = Tensor::from_strings(&["one", ""]);
        let b = Tensor::from_strings(&["three"]);
        let joined = Tensor::concat(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(joined.shape(), [3]);
        assert_eq!(joined.split(&[2, 1]).unwrap(), [a, b]);
        let c = Tensor::from_f32(vec![2, 2], &[1., 2., 3., 4.]).unwrap();
        let d = Tensor::from_f32(vec![1, 2], &[5., 6.]).unwrap();
        let joined = Tensor::concat(&[c.clone(), d.clone()]).unwrap();
        assert_eq!(joined.to_f32().unwrap(), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(joined.split(&[2, 1]).unwrap(), [c.clone(), d]);
        assert!(Tensor::concat(&[c, joined.reshaped(vec![6]).unwrap()]).is_err());
    }
}
