//! The C library of TensorFlow, opened at run time: the functions that are needed, and nothing that knows models.
//!
//! Never closed: its threads outlive whoever would close it. Used by `session` and `values`. Source of the declarations:
//! `tensorflow/c/c_api.h`, `tf_tensor.h`, `tf_tstring.h`.

#![allow(unsafe_code, reason = "the library is in C")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use motet_engine::failure::{Failure, FailureClass};

use super::invalid;

/// Objects of the library, which are only pointed to.
pub(super) type Object = *mut c_void;

/// Where a value is in a graph.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) operation: Object,
    pub(super) index: c_int,
}

/// Bytes of a string in a tensor of strings.
pub(super) const STRING_BYTES: usize = 24;

macro_rules! functions {
    ($($name:ident: $symbol:literal $type:ty;)*) => {
        /// The functions.
        pub(super) struct Library {
            $(pub(super) $name: $type,)*
        }

        impl Library {
            /// # Safety
            /// The library must be TensorFlow's.
            unsafe fn find(library: &'static libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of the headers.
                unsafe { Ok(Self { $($name: *library.get::<$type>(concat!($symbol, "\0").as_bytes())?,)* }) }
            }
        }
    };
}

functions! {
    version: "TF_Version" unsafe extern "C" fn() -> *const c_char;
    new_status: "TF_NewStatus" unsafe extern "C" fn() -> Object;
    delete_status: "TF_DeleteStatus" unsafe extern "C" fn(Object);
    code: "TF_GetCode" unsafe extern "C" fn(Object) -> c_int;
    message: "TF_Message" unsafe extern "C" fn(Object) -> *const c_char;
    new_options: "TF_NewSessionOptions" unsafe extern "C" fn() -> Object;
    delete_options: "TF_DeleteSessionOptions" unsafe extern "C" fn(Object);
    configure: "TF_SetConfig" unsafe extern "C" fn(Object, *const c_void, usize, Object);
    new_graph: "TF_NewGraph" unsafe extern "C" fn() -> Object;
    operation: "TF_GraphOperationByName" unsafe extern "C" fn(Object, *const c_char) -> Object;
    load: "TF_LoadSessionFromSavedModel" unsafe extern "C" fn(
        Object, Object, *const c_char, *const *const c_char, c_int, Object, Object, Object,
    ) -> Object;
    run: "TF_SessionRun" unsafe extern "C" fn(
        Object, Object, *const Output, *const Object, c_int, *const Output, *mut Object, c_int, *const Object, c_int,
        Object, Object,
    );
    new_tensor: "TF_AllocateTensor" unsafe extern "C" fn(c_int, *const i64, c_int, usize) -> Object;
    delete_tensor: "TF_DeleteTensor" unsafe extern "C" fn(Object);
    tensor_type: "TF_TensorType" unsafe extern "C" fn(Object) -> c_int;
    dimensions: "TF_NumDims" unsafe extern "C" fn(Object) -> c_int;
    dimension: "TF_Dim" unsafe extern "C" fn(Object, c_int) -> i64;
    bytes: "TF_TensorByteSize" unsafe extern "C" fn(Object) -> usize;
    data: "TF_TensorData" unsafe extern "C" fn(Object) -> *mut u8;
    new_string: "TF_StringInit" unsafe extern "C" fn(*mut u8);
    copy_string: "TF_StringCopy" unsafe extern "C" fn(*mut u8, *const u8, usize);
    string_data: "TF_StringGetDataPointer" unsafe extern "C" fn(*const u8) -> *const u8;
    string_bytes: "TF_StringGetSize" unsafe extern "C" fn(*const u8) -> usize;
    delete_string: "TF_StringDealloc" unsafe extern "C" fn(*mut u8);
}

impl Library {
    /// Opens the library in this folder.
    pub(super) fn open(folder: &Path) -> Result<&'static Self, Failure> {
        let file = folder.join("libtensorflow_cc.so.2");
        let failed = |error: libloading::Error| invalid(format!("{} cannot be opened: {error}", file.display()));
        // SAFETY: what it does when it is opened is as trusted as the node's settings, and held like all else here.
        let library = unsafe { libloading::Library::new(&file) }.map_err(failed)?;
        // SAFETY: a library of this name with these functions is TensorFlow's.
        let functions = unsafe { Self::find(Box::leak(Box::new(library))) }.map_err(failed)?;
        Ok(Box::leak(Box::new(functions)))
    }

    /// Its version.
    pub(super) fn version(&self) -> String {
        // SAFETY: the text is part of the library.
        unsafe { CStr::from_ptr((self.version)()) }.to_string_lossy().into_owned()
    }
}

/// How a call of the library went.
pub(super) struct Status {
    library: &'static Library,
    object: Object,
}

impl Status {
    pub(super) fn new(library: &'static Library) -> Self {
        // SAFETY: it has no conditions.
        Self { library, object: unsafe { (library.new_status)() } }
    }

    /// Given to the call.
    pub(super) fn object(&self) -> Object {
        self.object
    }

    /// What the call said.
    pub(super) fn check(&self, what: &str) -> Result<(), Failure> {
        // SAFETY: the status lives as long as this value.
        let (code, message) = unsafe {
            let message = CStr::from_ptr((self.library.message)(self.object));
            ((self.library.code)(self.object), message.to_string_lossy().into_owned())
        };
        let class = match code {
            0 => return Ok(()),
            // INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED
            3 | 5 | 9 | 11 | 12 => FailureClass::Invalid,
            // RESOURCE_EXHAUSTED
            8 => FailureClass::Overloaded,
            _ => FailureClass::Internal,
        };
        let message: String = message.chars().take(600).collect();
        Err(Failure::new(class, format!("{what}: {message}")))
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: it is deleted once.
        unsafe { (self.library.delete_status)(self.object) }
    }
}

/// A text as C wants it.
pub(super) fn text(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| invalid(format!("'{}' holds a zero byte", text.escape_debug())))
}
