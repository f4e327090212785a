//! Tensors in TensorFlow's own memory.
//!
//! Never keeps one that it was given: data is copied in and out. Used by `session`.

#![allow(unsafe_code, reason = "the library is in C")]

use bytes::Bytes;
use motet_engine::failure::Failure;
use motet_engine::tensor::{Datatype, Tensor};

use super::declaration::{datatype, number};
use super::library::{Library, Object, STRING_BYTES};
use super::{internal, invalid};

/// A tensor that belongs to this process.
pub(super) struct Value {
    library: &'static Library,
    object: Object,
    /// Strings that were made here and must be let go of.
    strings: usize,
}

impl Value {
    /// Takes over what a session gave.
    pub(super) fn given(library: &'static Library, object: Object) -> Self {
        Self { library, object, strings: 0 }
    }

    pub(super) fn object(&self) -> Object {
        self.object
    }

    /// Copies a tensor in.
    pub(super) fn from_tensor(library: &'static Library, tensor: &Tensor) -> Result<Self, Failure> {
        let shape = tensor.shape().iter().map(|length| i64::try_from(*length));
        let shape: Vec<i64> = shape.collect::<Result<_, _>>().map_err(|_| invalid("a dimension is too long"))?;
        let strings = tensor.byte_strings();
        let bytes = strings.as_ref().map_or(tensor.data().len(), |strings| strings.len() * STRING_BYTES);
        let dimensions = i32::try_from(shape.len()).map_err(|_| invalid("a tensor has too many dimensions"))?;
        // SAFETY: shape and length fit together, and the shape is read during the call only.
        let object = unsafe { (library.new_tensor)(number(tensor.datatype()), shape.as_ptr(), dimensions, bytes) };
        if object.is_null() {
            return Err(internal(format!("TensorFlow has no memory for {bytes} bytes")));
        }
        let mut value = Self { library, object, strings: 0 };
        // SAFETY: the memory is as long as was asked for.
        let data = unsafe { (library.data)(object) };
        match strings {
            None if bytes > 0 => {
                // SAFETY: both are this long and belong to different allocations.
                unsafe { std::ptr::copy_nonoverlapping(tensor.data().as_ptr(), data, bytes) }
            }
            None => {}
            Some(strings) => {
                for (place, string) in strings.iter().enumerate() {
                    // SAFETY: there is room for every string, and each is initialised before it is filled.
                    unsafe {
                        let at = data.add(place * STRING_BYTES);
                        (library.new_string)(at);
                        (library.copy_string)(at, string.as_ptr(), string.len());
                    }
                    value.strings = place + 1;
                }
            }
        }
        Ok(value)
    }

    /// Copies it out.
    pub(super) fn to_tensor(&self) -> Result<Tensor, Failure> {
        let library = self.library;
        // SAFETY: the tensor lives as long as this value.
        let (kind, shape, bytes, data) = unsafe {
            let shape: Vec<i64> =
                (0..(library.dimensions)(self.object)).map(|place| (library.dimension)(self.object, place)).collect();
            ((library.tensor_type)(self.object), shape, (library.bytes)(self.object), (library.data)(self.object))
        };
        let datatype = datatype(kind)
            .ok_or_else(|| invalid(format!("an output has TensorFlow's datatype {kind}, which cannot be exchanged")))?;
        let shape: Vec<usize> = shape.into_iter().map(|length| usize::try_from(length).unwrap_or(0)).collect();
        let data = if datatype == Datatype::Bytes {
            let count = shape.iter().product();
            if bytes < count * STRING_BYTES {
                return Err(internal("a tensor of strings is shorter than it says"));
            }
            // SAFETY: there are as many initialised strings as the shape says.
            Bytes::from(unsafe { self.strings(data, count) })
        } else if bytes == 0 {
            Bytes::new()
        } else {
            // SAFETY: the memory is this long.
            Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(data, bytes) })
        };
        Tensor::new(datatype, shape, data).map_err(|error| internal(error.to_string()))
    }

    /// # Safety
    /// There must be so many strings.
    unsafe fn strings(&self, data: *mut u8, count: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for place in 0..count {
            // SAFETY: the caller says that there is one here; its bytes live as long as the tensor.
            let string = unsafe {
                let at = data.add(place * STRING_BYTES);
                let length = (self.library.string_bytes)(at);
                if length == 0 { &[][..] } else { std::slice::from_raw_parts((self.library.string_data)(at), length) }
            };
            out.extend_from_slice(&u32::try_from(string.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(string);
        }
        out
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the strings were made here, no session reads them any more, and the tensor is deleted once.
        unsafe {
            let data = (self.library.data)(self.object);
            for place in 0..self.strings {
                (self.library.delete_string)(data.add(place * STRING_BYTES));
            }
            (self.library.delete_tensor)(self.object);
        }
    }
}
