//! Schemas of Protobuf: the text of `.proto` files, compiled in memory.
//!
//! Opens no file: what is imported is a reference of the schema, one of Google's well-known files, or one of Confluent's.
//! Used by [`crate::CompiledSchema`].

mod known;
mod nesting;
#[cfg(test)]
mod tests;
mod values;

use std::collections::HashMap;

use bytes::Bytes;
use motet_engine::value::Value;
use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor, MessageDescriptor};
use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::compiled::Mistake;
use crate::port::SchemaText;

/// The name of the file itself, which no import says.
const ROOT: &str = "the-schema-itself.proto";

/// Longest words about a schema that are kept, in characters.
const MAX_WORDS: usize = 500;

/// A schema of Protobuf.
#[derive(Debug)]
pub(crate) struct ProtobufSchema {
    pool: DescriptorPool,
}

impl ProtobufSchema {
    /// Understands a schema, or says why not.
    pub(crate) fn compile(schema: &SchemaText) -> Result<Self, String> {
        let mut files: HashMap<String, String> = HashMap::new();
        for reference in &schema.references {
            files.insert(reference.name.clone(), reference.text.clone());
        }
        files.insert(ROOT.to_owned(), schema.text.clone());
        for text in files.values() {
            nesting::check(text)?;
        }
        let mut compiler = Compiler::with_file_resolver(Files { files, google: GoogleFileResolver::new() });
        compiler.include_imports(true);
        if let Err(error) = compiler.open_file(ROOT) {
            // Its debug form is the one that says in which file and line.
            return Err(format!("{error:?}").chars().take(MAX_WORDS).collect());
        }
        Ok(Self { pool: compiler.descriptor_pool() })
    }

    /// Reads a message that was written by it.
    pub(crate) fn decode(&self, indexes: &[usize], bytes: &Bytes) -> Result<Value, Mistake> {
        let message = self.message(indexes).ok_or_else(|| {
            let place: Vec<String> = indexes.iter().map(ToString::to_string).collect();
            let message = format!("its schema has no message at the place {}", place.join("."));
            Mistake::new("wrong_schema", message)
        })?;
        // The crate follows messages within messages to a bounded depth.
        let decoded = DynamicMessage::decode(message, bytes.clone())
            .map_err(|error| Mistake::new("invalid_protobuf", error.to_string()))?;
        values::value(&decoded)
    }

    /// The message at a place: the first number counts messages of the file, each further one those within it. Clients
    /// differ in whether the hidden messages that maps are made of count: where the number leads to one of those, which
    /// no record is, they do not.
    fn message(&self, indexes: &[usize]) -> Option<MessageDescriptor> {
        let (first, within) = indexes.split_first()?;
        let mut message = self.root()?.messages().nth(*first)?;
        for index in within {
            let counted = message.child_messages().nth(*index);
            let shown = || message.child_messages().filter(|child| !child.is_map_entry()).nth(*index);
            let child = counted.filter(|child| !child.is_map_entry()).or_else(shown)?;
            message = child;
        }
        Some(message)
    }

    fn root(&self) -> Option<FileDescriptor> {
        self.pool.get_file_by_name(ROOT)
    }
}

/// The files that may be imported.
struct Files {
    files: HashMap<String, String>,
    google: GoogleFileResolver,
}

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.files.get(name).map(String::as_str).or_else(|| known::text(name)) {
            Some(text) => File::from_source(name, text),
            None => self.google.open_file(name),
        }
    }
}
