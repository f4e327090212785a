//! A loaded graph with its weights, and runs through it.
//!
//! Lives as long as its process. Used by `tensorflow`.

#![allow(unsafe_code, reason = "the library is in C")]

use std::path::Path;
use std::ptr::{null, null_mut};

use motet_engine::failure::Failure;
use motet_models::port::Tensors;
use prost::Message;

use super::declaration::{Declaration, Port};
use super::library::{Library, Object, Output, Status, text};
use super::values::Value;
use super::{internal, invalid};

/// The part of ConfigProto that is set. Field numbers: config.proto.
#[derive(Clone, PartialEq, Message)]
struct Config {
    #[prost(int32, tag = "2")]
    intra_op_parallelism_threads: i32,
    #[prost(int32, tag = "5")]
    inter_op_parallelism_threads: i32,
}

/// A loaded graph.
pub(super) struct Session {
    library: &'static Library,
    object: Object,
    /// Names and places of the inputs.
    inputs: Vec<(String, Output)>,
    outputs: Vec<(String, Output)>,
}

impl Session {
    /// Loads what the declaration says from this folder.
    pub(super) fn load(
        library: &'static Library,
        folder: &Path,
        declaration: &Declaration,
        threads: usize,
    ) -> Result<Self, Failure> {
        let status = Status::new(library);
        let folder = folder.to_str().ok_or_else(|| invalid("the folder's name is no Unicode"))?;
        let folder = text(folder)?;
        let tags: Vec<_> = declaration.tags.iter().map(|tag| text(tag)).collect::<Result<_, _>>()?;
        let tags: Vec<_> = tags.iter().map(|tag| tag.as_ptr()).collect();
        let count = i32::try_from(tags.len()).map_err(|_| invalid("the SavedModel has too many tags"))?;
        let threads = i32::try_from(threads).unwrap_or(0);
        let config = Config { intra_op_parallelism_threads: threads, inter_op_parallelism_threads: threads };
        let config = config.encode_to_vec();
        // SAFETY: every pointer lives during the calls, and what is made here is used as what it is.
        let (object, graph) = unsafe {
            let (options, graph) = ((library.new_options)(), (library.new_graph)());
            (library.configure)(options, config.as_ptr().cast(), config.len(), status.object());
            let configured = status.check("TensorFlow cannot be configured");
            let object = match configured {
                Ok(()) => (library.load)(
                    options,
                    null_mut(),
                    folder.as_ptr(),
                    tags.as_ptr(),
                    count,
                    graph,
                    null_mut(),
                    status.object(),
                ),
                Err(_) => null_mut(),
            };
            (library.delete_options)(options);
            (object, graph)
        };
        status.check("the SavedModel cannot be loaded")?;
        if object.is_null() {
            return Err(internal("the SavedModel cannot be loaded"));
        }
        let place = |port: &Port| -> Result<(String, Output), Failure> {
            let name = text(&port.operation)?;
            // SAFETY: the graph lives as long as the process, and its operations with it.
            let operation = unsafe { (library.operation)(graph, name.as_ptr()) };
            if operation.is_null() {
                return Err(invalid(format!("the graph has no operation '{}'", port.operation)));
            }
            Ok((port.spec.name.clone(), Output { operation, index: port.index }))
        };
        let inputs = declaration.inputs.iter().map(place).collect::<Result<_, _>>()?;
        let outputs = declaration.outputs.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self { library, object, inputs, outputs })
    }

    /// Runs the graph once.
    pub(super) fn run(&self, inputs: &Tensors) -> Result<Tensors, Failure> {
        let library = self.library;
        let value = |(name, _): &(String, Output)| {
            let tensor = inputs.get(name).ok_or_else(|| invalid(format!("the input '{name}' is missing")))?;
            Value::from_tensor(library, tensor)
        };
        let values: Vec<_> = self.inputs.iter().map(value).collect::<Result<_, Failure>>()?;
        let given: Vec<_> = values.iter().map(Value::object).collect();
        let from: Vec<_> = self.inputs.iter().map(|(_, place)| *place).collect();
        let to: Vec<_> = self.outputs.iter().map(|(_, place)| *place).collect();
        let mut taken: Vec<Object> = vec![null_mut(); to.len()];
        let count = |length: usize| i32::try_from(length).unwrap_or(0);
        let status = Status::new(library);
        // SAFETY: the lists are as long as is said, and live during the call.
        unsafe {
            (library.run)(
                self.object,
                null_mut(),
                from.as_ptr(),
                given.as_ptr(),
                count(given.len()),
                to.as_ptr(),
                taken.as_mut_ptr(),
                count(to.len()),
                null(),
                0,
                null_mut(),
                status.object(),
            );
        }
        let taken = taken.into_iter().map(|object| (!object.is_null()).then(|| Value::given(library, object)));
        let taken: Vec<_> = taken.collect();
        status.check("the graph cannot be run")?;
        let tensor = |((name, _), value): (&(String, Output), Option<Value>)| {
            let value = value.ok_or_else(|| internal(format!("the graph gave no '{name}'")))?;
            Ok((name.clone(), value.to_tensor()?))
        };
        self.outputs.iter().zip(taken).map(tensor).collect()
    }
}
