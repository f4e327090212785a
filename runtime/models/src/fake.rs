//! The backend `fake`: answers of any size, late, wrong or not at all, the same for the same input everywhere.
//!
//! Never computes anything of worth. Used by tests, by benches and by users who try a workflow without a model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::tensor::{Datatype, Tensor};
use motet_engine::value::Value;

use crate::call;
use crate::failure::{internal, invalid, timeout, unavailable};
use crate::port::{InferRequest, LoadedModel, ModelBackend, ModelSignature, TensorSpec, Tensors};
use crate::suggestion::suggestion;

/// Name of the backend in definitions.
const NAME: &str = "fake";

/// A text that makes the batch fail as a network that panics does: `internal`.
pub const CRASH_INPUT: &str = "__crash__";

/// Settings that may stand under `parameters`.
const PARAMETERS: [&str; 9] = [
    "output_bytes",
    "dimension",
    "latency_ms",
    "load_ms",
    "memory_bytes",
    "fail_every",
    "fail_first",
    "fail_class",
    "tell_batch",
];

/// Largest sizes that a definition may ask for.
const MAX_OUTPUT_BYTES: i64 = 64 << 20;
const MAX_DIMENSION: i64 = 1 << 16;
const MAX_LATENCY_MS: i64 = 3_600_000;

/// What a definition asks of the fake.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Settings {
    /// Bytes of every answered text; without it the answer is the input.
    output_bytes: Option<usize>,
    /// Components of an answered `vector`; 0 for none.
    dimension: usize,
    /// Time that a batch takes.
    latency: Duration,
    /// Time that a load takes.
    load: Duration,
    /// What a copy says it takes.
    memory_bytes: u64,
    /// Every n-th batch fails; 0 for none.
    fail_every: u64,
    /// Batches, the first ones, that fail.
    fail_first: u64,
    /// How it fails.
    fail_class: FailureClass,
    /// Whether answers have a `batch`, the number of the batch that they came from: the one thing that differs.
    tell_batch: bool,
}

impl Settings {
    fn read(definition: &ModelDefinition) -> Result<Self, Failure> {
        let parameters = &definition.parameters;
        if let Some(key) = parameters.keys().find(|key| !PARAMETERS.contains(&&***key)) {
            let hint = suggestion(key, PARAMETERS);
            return Err(invalid(format!("parameters.{key} is not known to the backend fake{hint}")));
        }
        let number = |key: &str, most: i64| match parameters.get(key) {
            None => Ok(None),
            Some(Value::Int(number)) if (0..=most).contains(number) => Ok(Some(*number as u64)),
            Some(_) => Err(invalid(format!("parameters.{key} must be a whole number from 0 to {most}"))),
        };
        let fail_class = match parameters.get("fail_class") {
            None => FailureClass::Unavailable,
            Some(name) => FailureClass::ALL
                .into_iter()
                .find(|class| name.as_str() == Some(class.as_str()))
                .ok_or_else(|| invalid("parameters.fail_class is no class of failures"))?,
        };
        Ok(Self {
            output_bytes: number("output_bytes", MAX_OUTPUT_BYTES)?.map(|bytes| bytes as usize),
            dimension: number("dimension", MAX_DIMENSION)?.unwrap_or(0) as usize,
            latency: Duration::from_millis(number("latency_ms", MAX_LATENCY_MS)?.unwrap_or(0)),
            load: Duration::from_millis(number("load_ms", MAX_LATENCY_MS)?.unwrap_or(0)),
            memory_bytes: number("memory_bytes", i64::MAX)?.unwrap_or(0),
            fail_every: number("fail_every", i64::MAX)?.unwrap_or(0),
            fail_first: number("fail_first", i64::MAX)?.unwrap_or(0),
            fail_class,
            tell_batch: number("tell_batch", 1)? == Some(1),
        })
    }
}

/// Loads fakes and counts what all of them do.
#[derive(Clone, Debug, Default)]
pub struct FakeBackend {
    batches: Arc<AtomicU64>,
    rows: Arc<AtomicU64>,
    loads: Arc<AtomicU64>,
    resident: Arc<AtomicU64>,
    most_resident: Arc<AtomicU64>,
}

impl FakeBackend {
    /// A backend whose counters stand at 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches begun by all copies so far.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Copies loaded so far.
    #[must_use]
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    /// The most bytes that loaded copies have taken at one time.
    #[must_use]
    pub fn most_resident_bytes(&self) -> u64 {
        self.most_resident.load(Ordering::Relaxed)
    }

    /// Rows in those batches.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ModelBackend for FakeBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, definition: &ModelDefinition) -> Result<(), Failure> {
        Settings::read(definition).map(drop)
    }

    fn expected_bytes(&self, definition: &ModelDefinition) -> Option<u64> {
        Settings::read(definition).ok().map(|settings| settings.memory_bytes)
    }

    async fn load(&self, definition: &ModelDefinition, _: Option<PathBuf>) -> Result<Box<dyn LoadedModel>, Failure> {
        let settings = Settings::read(definition)?;
        // What it takes it takes while it is loaded already.
        let resident = self.resident.fetch_add(settings.memory_bytes, Ordering::Relaxed) + settings.memory_bytes;
        self.most_resident.fetch_max(resident, Ordering::Relaxed);
        self.loads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(settings.load).await;
        let mut signature = ModelSignature { memory_bytes: settings.memory_bytes, ..text_signature() };
        if settings.dimension > 0 {
            let shape = vec![None, Some(settings.dimension)];
            let vector = TensorSpec { name: "vector".into(), datatype: Datatype::Fp32, shape, optional: false };
            signature.outputs.push(vector);
        }
        if settings.tell_batch {
            signature.outputs.push(TensorSpec { name: "batch".into(), ..text_signature().outputs.remove(0) });
        }
        Ok(Box::new(FakeModel { settings, signature, counters: self.clone(), unloaded: AtomicBool::new(false) }))
    }
}

/// Text in, text out.
pub(crate) fn text_signature() -> ModelSignature {
    let text = || TensorSpec { name: "text".into(), datatype: Datatype::Bytes, shape: vec![None], optional: false };
    ModelSignature {
        inputs: vec![text()],
        outputs: vec![text()],
        memory_bytes: 0,
        facts: BTreeMap::from([("architecture".to_owned(), NAME.into())]),
    }
}

struct FakeModel {
    settings: Settings,
    signature: ModelSignature,
    counters: FakeBackend,
    unloaded: AtomicBool,
}

impl FakeModel {
    /// One text of the size asked for: the input again and again, or the input itself.
    fn text(&self, input: &[u8]) -> Vec<u8> {
        match self.settings.output_bytes {
            None => input.to_vec(),
            Some(bytes) if input.is_empty() => vec![b'.'; bytes],
            Some(bytes) => input.iter().copied().cycle().take(bytes).collect(),
        }
    }

    /// A vector of length 1 that depends on every byte of the input.
    fn vector(&self, input: &[u8], into: &mut Vec<f32>) {
        // FNV-1a, then one step of a linear congruential generator per component.
        let mut state = input
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let start = into.len();
        for _ in 0..self.settings.dimension {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            into.push((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0);
        }
        let vector = &mut into[start..];
        let norm = vector.iter().map(|element| element * element).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        vector.iter_mut().for_each(|element| *element /= norm);
    }

    fn answer(&self, texts: &[&[u8]], batch: u64) -> Result<Tensors, Failure> {
        let answers: Vec<Vec<u8>> = texts.iter().map(|text| self.text(text)).collect();
        let mut outputs = Tensors::from([("text".to_owned(), Tensor::from_strings(&answers))]);
        if self.settings.dimension > 0 {
            let mut elements = Vec::with_capacity(texts.len() * self.settings.dimension);
            texts.iter().for_each(|text| self.vector(text, &mut elements));
            let vectors = Tensor::from_f32(vec![texts.len(), self.settings.dimension], &elements);
            outputs.insert("vector".to_owned(), vectors.map_err(|error| internal(error.to_string()))?);
        }
        if self.settings.tell_batch {
            let number = batch.to_string().into_bytes();
            outputs.insert("batch".to_owned(), Tensor::from_strings(&vec![number; texts.len()]));
        }
        Ok(outputs)
    }

    fn check_loaded(&self) -> Result<(), Failure> {
        if self.unloaded.load(Ordering::Acquire) { Err(unavailable("the fake model is unloaded")) } else { Ok(()) }
    }
}

#[async_trait]
impl LoadedModel for FakeModel {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    fn length(&self, inputs: &Tensors) -> u32 {
        let texts = inputs.get("text").and_then(Tensor::byte_strings).unwrap_or_default();
        texts.iter().map(|text| u32::try_from(text.len()).unwrap_or(u32::MAX)).max().unwrap_or(0)
    }

    async fn infer(&self, request: InferRequest) -> Result<Tensors, Failure> {
        self.check_loaded()?;
        if Instant::now() >= request.deadline {
            return Err(timeout("the deadline passed before the fake model could begin"));
        }
        call::check(&self.signature, &request.inputs, request.rows)?;
        let batch = self.counters.batches.fetch_add(1, Ordering::Relaxed) + 1;
        self.counters.rows.fetch_add(request.rows as u64, Ordering::Relaxed);
        if !self.settings.latency.is_zero() {
            let wait = tokio::time::sleep(self.settings.latency);
            let in_time = tokio::time::timeout_at(request.deadline.into(), wait).await;
            in_time.map_err(|_| timeout("the fake model did not answer before the deadline"))?;
        }
        let every = self.settings.fail_every > 0 && batch.is_multiple_of(self.settings.fail_every);
        if every || batch <= self.settings.fail_first {
            return Err(Failure::new(self.settings.fail_class, format!("the fake model fails batch {batch} as asked")));
        }
        let texts = request.inputs.get("text").and_then(Tensor::byte_strings).unwrap_or_default();
        if texts.contains(&CRASH_INPUT.as_bytes()) {
            return Err(internal("the fake model crashed as asked"));
        }
        self.answer(&texts, batch)
    }

    async fn health(&self) -> Result<(), Failure> {
        self.check_loaded()
    }

    async fn unload(&self) {
        if !self.unloaded.swap(true, Ordering::AcqRel) {
            self.counters.resident.fetch_sub(self.settings.memory_bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
