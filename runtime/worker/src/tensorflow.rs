//! SavedModels on the C library of TensorFlow, opened at run time.
//!
//! Never runs Python, and never a signature whose inputs have no dimension for rows. Used by `lib` and `serve`.

mod declaration;
mod library;
mod session;
mod values;

use std::collections::BTreeMap;
use std::path::Path;

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::tensor::Tensor;
use motet_models::child::wire::Declared;
use motet_models::port::Tensors;
use serde_json::json;

use self::declaration::{Declaration, Port};
use self::library::Library;
use self::session::Session;

/// Longest saved_model.pb in bytes; weights lie elsewhere.
const MAX_BYTES: u64 = 2 << 30;

/// A loaded SavedModel.
pub(crate) struct SavedModel {
    declaration: Declaration,
    session: Session,
    version: String,
}

impl SavedModel {
    /// Opens the library and loads the model.
    pub(crate) fn load(
        library: &Path,
        folder: &Path,
        signature: Option<&str>,
        threads: usize,
    ) -> Result<Self, Failure> {
        let file = folder.join("saved_model.pb");
        let unreadable = |error: std::io::Error| invalid(format!("{} cannot be read: {error}", file.display()));
        let length = std::fs::metadata(&file).map_err(unreadable)?.len();
        if length > MAX_BYTES {
            return Err(invalid(format!("{} has {length} bytes, which is too much", file.display())));
        }
        let declaration = Declaration::read(&std::fs::read(&file).map_err(unreadable)?, signature)?;
        let library = Library::open(library)?;
        let version = library.version();
        let session = Session::load(library, folder, &declaration, threads)?;
        Ok(Self { declaration, session, version })
    }

    /// Its inputs and outputs.
    pub(crate) fn declared(&self) -> (Vec<Declared>, Vec<Declared>) {
        let of = |ports: &[Port]| ports.iter().map(|port| Declared::from(&port.spec)).collect();
        (of(&self.declaration.inputs), of(&self.declaration.outputs))
    }

    /// What it is, for people.
    pub(crate) fn facts(&self) -> BTreeMap<String, serde_json::Value> {
        let facts = [
            ("engine", json!(format!("TensorFlow {}", self.version))),
            ("signature", json!(self.declaration.name)),
            ("signatures", json!(self.declaration.others)),
        ];
        facts.map(|(name, fact)| (name.to_owned(), fact)).into()
    }

    /// Computes a batch.
    pub(crate) fn run(&self, inputs: &Tensors, rows: usize) -> Result<Tensors, Failure> {
        match self.declaration.fixed_rows {
            Some(fixed) if fixed != rows => self.run_in_parts(inputs, rows, fixed),
            _ => self.run_once(inputs, rows),
        }
    }

    /// A graph that takes a fixed number of rows is run as often as needed, the last time with its last row repeated.
    fn run_in_parts(&self, inputs: &Tensors, rows: usize, fixed: usize) -> Result<Tensors, Failure> {
        let mut outputs: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
        for begin in (0..rows).step_by(fixed) {
            let wanted = fixed.min(rows - begin);
            let part = |tensor: &Tensor| -> Result<Tensor, Failure> {
                let mut parts = vec![slice(tensor, begin, wanted)?];
                let last = slice(tensor, begin + wanted - 1, 1)?;
                parts.extend(std::iter::repeat_n(last, fixed - wanted));
                Tensor::concat(&parts).map_err(|error| internal(error.to_string()))
            };
            let part = inputs.iter().map(|(name, tensor)| Ok((name.clone(), part(tensor)?)));
            let part = part.collect::<Result<Tensors, Failure>>()?;
            for (name, tensor) in self.run_once(&part, fixed)? {
                outputs.entry(name).or_default().push(slice(&tensor, 0, wanted)?);
            }
        }
        let join = |parts: Vec<Tensor>| Tensor::concat(&parts).map_err(|error| internal(error.to_string()));
        outputs.into_iter().map(|(name, parts)| Ok((name, join(parts)?))).collect()
    }

    fn run_once(&self, inputs: &Tensors, rows: usize) -> Result<Tensors, Failure> {
        let outputs = self.session.run(inputs)?;
        match outputs.iter().find(|(_, tensor)| tensor.shape().first() != Some(&rows)) {
            None => Ok(outputs),
            Some((name, tensor)) => Err(invalid(format!(
                "the output '{name}' came back as {:?} for {rows} rows: calls cannot be rows of a batch; use another \
                 signature, or batch: {{max: 1}} with one row",
                tensor.shape()
            ))),
        }
    }
}

fn slice(tensor: &Tensor, begin: usize, rows: usize) -> Result<Tensor, Failure> {
    let after = tensor.rows().saturating_sub(begin + rows);
    let lengths: Vec<_> = [begin, rows, after].into_iter().filter(|length| *length > 0).collect();
    let parts = tensor.split(&lengths).map_err(|error| internal(error.to_string()))?;
    parts.into_iter().nth(usize::from(begin > 0)).ok_or_else(|| internal("a tensor has fewer rows than it says"))
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Invalid, message)
}

fn internal(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Internal, message)
}
