//! What a node and the process of a model say to each other, and how it lies on their socket.
//!
//! A frame is the length of its head (4 bytes, little-endian), the length of its payload (8 bytes, little-endian), the
//! head (JSON) and the payload: the data of the tensors that the head names, one after the other. Never trusts a
//! length. Used by both sides; the worker in Python reads the same frames.

use std::io::{Read, Write};
use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::tensor::{Datatype, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::failure::{internal, invalid};
use crate::port::{TensorSpec, Tensors};

/// Bytes of the two lengths.
const PREFIX: usize = 12;

/// Longest head in bytes.
const MAX_HEAD: usize = 4 << 20;

/// Longest payload in bytes.
pub const MAX_PAYLOAD: u64 = 2 << 30;

/// What a node says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Command {
    /// The first word: be this model.
    Start(Start),
    /// Compute this batch.
    Infer {
        /// Comes back with the answer.
        id: u64,
        /// Rows in every input.
        rows: usize,
        /// The inputs, in the order of their data.
        inputs: Vec<Head>,
    },
}

/// What a process is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Name of the model, for people.
    pub model: String,
    /// What it runs.
    pub engine: Engine,
    /// What it may.
    pub rules: Rules,
}

/// What a process runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "snake_case")]
pub enum Engine {
    /// A SavedModel on the C library of TensorFlow.
    Tensorflow {
        /// Folder with `libtensorflow_cc.so.2`.
        library: PathBuf,
        /// Folder with `saved_model.pb`.
        folder: PathBuf,
        /// Which of its signatures; the only one, or `serving_default`.
        signature: Option<String>,
        /// Threads to compute with.
        threads: usize,
    },
    /// A callable in Python.
    Python {
        /// The interpreter.
        interpreter: PathBuf,
        /// What is run before anything else: the other side of these frames.
        script: String,
        /// Told to the script.
        settings: serde_json::Value,
        /// Threads to compute with, for libraries that ask the environment.
        threads: usize,
        /// Folder for what libraries must write.
        scratch: PathBuf,
    },
}

/// What a process may. What is not named it may not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rules {
    /// Refuse to start when a layer does not hold.
    pub required: bool,
    /// Folders and files that may be read, and whose programs and libraries may be run.
    pub read: Vec<PathBuf>,
    /// Folders in which files may be made and changed.
    pub write: Vec<PathBuf>,
    /// Bytes of address space, mapped libraries counted in.
    pub address_space: u64,
}

/// One layer of isolation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// Its name, such as `seccomp`.
    pub name: String,
    /// Why it does not hold, when it does not.
    pub missing: Option<String>,
}

/// What a process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Report {
    /// The model is loaded.
    Ready(Ready),
    /// It cannot be loaded.
    Refused(Refusal),
    /// A batch is computed.
    Done {
        /// The batch.
        id: u64,
        /// The outputs, in the order of their data.
        outputs: Vec<Head>,
    },
    /// A batch cannot be computed.
    Failed {
        /// The batch.
        id: u64,
        /// Why.
        #[serde(flatten)]
        refusal: Refusal,
    },
}

/// What a loaded model says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Its inputs.
    pub inputs: Vec<Declared>,
    /// Its outputs.
    pub outputs: Vec<Declared>,
    /// What it is, for people.
    pub facts: std::collections::BTreeMap<String, serde_json::Value>,
    /// What holds it.
    pub isolation: Vec<Layer>,
}

/// Why something cannot be done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of failure it is.
    pub class: FailureClass,
    /// Why, and what to do.
    pub message: String,
}

/// A declared input or output.
#[derive(Debug, Serialize, Deserialize)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Open Inference name of its datatype.
    pub datatype: String,
    /// Lengths of its dimensions; none where any length fits.
    pub shape: Vec<Option<usize>>,
}

/// A tensor whose data lies in the payload.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    /// Name of the input or output.
    pub name: String,
    /// Open Inference name of its datatype.
    pub datatype: String,
    /// Lengths of its dimensions.
    pub shape: Vec<usize>,
    /// Bytes of its data.
    pub bytes: u64,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.class, refusal.message)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { class: failure.class, message: failure.message }
    }
}

impl From<&TensorSpec> for Declared {
    fn from(spec: &TensorSpec) -> Self {
        Self { name: spec.name.clone(), datatype: spec.datatype.to_string(), shape: spec.shape.clone() }
    }
}

impl TryFrom<Declared> for TensorSpec {
    type Error = Failure;

    fn try_from(declared: Declared) -> Result<Self, Failure> {
        let datatype = datatype(&declared.name, &declared.datatype)?;
        Ok(Self { name: declared.name, datatype, shape: declared.shape, optional: false })
    }
}

fn datatype(name: &str, wanted: &str) -> Result<Datatype, Failure> {
    let known = Datatype::ALL.iter().find(|(_, known)| *known == wanted).map(|(datatype, _)| *datatype);
    known.ok_or_else(|| invalid(format!("'{name}' has the datatype '{wanted}', which is none of Open Inference")))
}

/// The heads of tensors and their data, in the same order.
#[must_use]
pub fn pack(tensors: &Tensors) -> (Vec<Head>, Vec<Bytes>) {
    let head = |(name, tensor): (&String, &Tensor)| Head {
        name: name.clone(),
        datatype: tensor.datatype().to_string(),
        shape: tensor.shape().to_vec(),
        bytes: tensor.data().len() as u64,
    };
    (tensors.iter().map(head).collect(), tensors.values().map(|tensor| tensor.data().clone()).collect())
}

/// The tensors whose data is the payload.
///
/// # Errors
/// `Internal` when the payload is not what the heads say.
pub fn unpack(heads: Vec<Head>, mut payload: Bytes) -> Result<Tensors, Failure> {
    let mut tensors = Tensors::new();
    for head in heads {
        let bytes = usize::try_from(head.bytes).ok().filter(|bytes| *bytes <= payload.len());
        let bytes = bytes.ok_or_else(|| internal(format!("the data of '{}' is cut off", head.name)))?;
        let tensor = Tensor::new(datatype(&head.name, &head.datatype)?, head.shape, payload.split_to(bytes));
        let tensor = tensor.map_err(|error| internal(format!("'{}': {error}", head.name)))?;
        tensors.insert(head.name, tensor);
    }
    if payload.is_empty() { Ok(tensors) } else { Err(internal("the frame holds more data than it names")) }
}

/// The bytes of a frame before its payload.
fn front(head: &impl Serialize, payload: &[Bytes]) -> std::io::Result<BytesMut> {
    let head = serde_json::to_vec(head)?;
    let length: u64 = payload.iter().map(|part| part.len() as u64).sum();
    let short = u32::try_from(head.len()).ok().filter(|_| head.len() <= MAX_HEAD && length <= MAX_PAYLOAD);
    let Some(short) = short else {
        let words = format!("a frame of {} and {length} bytes is longer than allowed", head.len());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, words));
    };
    let mut front = BytesMut::with_capacity(PREFIX + head.len());
    front.put_u32_le(short);
    front.put_u64_le(length);
    front.extend_from_slice(&head);
    Ok(front)
}

/// The lengths of head and payload.
fn lengths(prefix: [u8; PREFIX]) -> std::io::Result<(usize, usize)> {
    let (head, payload) = prefix.split_at(4);
    let head = head.iter().rev().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    let payload = payload.iter().rev().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    match (usize::try_from(head), usize::try_from(payload)) {
        (Ok(head), Ok(length)) if head <= MAX_HEAD && payload <= MAX_PAYLOAD => Ok((head, length)),
        _ => {
            let words = format!("a frame of {head} and {payload} bytes is longer than allowed");
            Err(std::io::Error::new(std::io::ErrorKind::InvalidData, words))
        }
    }
}

/// Writes a frame.
///
/// # Errors
/// When the other side is gone or the frame is too long.
pub fn write(mut to: impl Write, head: &impl Serialize, payload: &[Bytes]) -> std::io::Result<()> {
    to.write_all(&front(head, payload)?)?;
    payload.iter().try_for_each(|part| to.write_all(part))?;
    to.flush()
}

/// Reads a frame; none at the end of what is said.
///
/// # Errors
/// When the other side breaks off within a frame, or when it is none.
pub fn read<T: DeserializeOwned>(mut from: impl Read) -> std::io::Result<Option<(T, Bytes)>> {
    let mut prefix = [0; PREFIX];
    let begun = from.read(&mut prefix)?;
    if begun == 0 {
        return Ok(None);
    }
    from.read_exact(&mut prefix[begun..])?;
    let (head, payload) = lengths(prefix)?;
    let (mut first, mut second) = (vec![0; head], vec![0; payload]);
    from.read_exact(&mut first)?;
    from.read_exact(&mut second)?;
    Ok(Some((serde_json::from_slice(&first)?, second.into())))
}

/// [`write`] for the node.
pub(super) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    head: &impl Serialize,
    payload: &[Bytes],
) -> std::io::Result<()> {
    to.write_all(&front(head, payload)?).await?;
    for part in payload {
        to.write_all(part).await?;
    }
    to.flush().await
}

/// [`read`] for the node, to which an end is an error.
pub(super) async fn receive<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(T, Bytes)> {
    let mut prefix = [0; PREFIX];
    from.read_exact(&mut prefix).await?;
    let (head, payload) = lengths(prefix)?;
    let (mut first, mut second) = (vec![0; head], vec![0; payload]);
    from.read_exact(&mut first).await?;
    from.read_exact(&mut second).await?;
    Ok((serde_json::from_slice(&first)?, second.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> Tensors {
        let numbers = Tensor::from_f32(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let texts = Tensor::from_strings(&["one", ""]);
        Tensors::from([("a".to_owned(), numbers), ("b".to_owned(), texts)])
    }

    #[test]
    fn tensors_come_back_as_they_were() {
        let (inputs, payload) = pack(&tensors());
        let mut bytes = vec![];
        write(&mut bytes, &Command::Infer { id: 7, rows: 2, inputs }, &payload).unwrap();
        let (head, payload) = read::<Command>(&*bytes).unwrap().unwrap();
        let Command::Infer { id: 7, rows: 2, inputs } = head else { panic!("{head:?}") };
        assert_eq!(unpack(inputs, payload).unwrap(), tensors());
        assert!(read::<Command>(&[][..]).unwrap().is_none(), "the end is no frame");
    }

    #[test]
    fn a_frame_that_is_cut_off_or_lies_is_refused() {
        let (inputs, payload) = pack(&tensors());
        let mut bytes = vec![];
        write(&mut bytes, &Command::Infer { id: 7, rows: 2, inputs }, &payload).unwrap();
        for length in 1..bytes.len() {
            assert!(read::<Command>(&bytes[..length]).is_err(), "{length} bytes");
        }
        let long = [&[255_u8; PREFIX][..], &bytes].concat();
        assert!(read::<Command>(&*long).is_err());
        let (mut heads, payload) = pack(&tensors());
        heads[0].bytes += 1;
        let payload = Bytes::from(payload.concat());
        assert_eq!(unpack(heads, payload.clone()).unwrap_err().class, FailureClass::Internal);
        let (mut heads, _) = pack(&tensors());
        heads.pop();
        assert!(unpack(heads, payload).unwrap_err().message.contains("more data"));
    }
}
