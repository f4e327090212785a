//! How near a search comes to the memory's speed: queries per second over 100,000 vectors of 384 numbers, beside a plain
//! sum over a matrix of the same size.
//!
//! Never part of the tests: figures depend on the machine. Run with `cargo run -p motet-vectors --example scan_speed`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use motet_engine::definition::{BatchPolicy, IndexDefinition, Metric};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::value::{Map, Value};
use motet_vectors::embedded::EmbeddedBackend;
use motet_vectors::filter::Filter;
use motet_vectors::port::{VectorBackend, VectorIndex, VectorQuery, VectorRecord};

const ROWS: usize = 100_000;
const DIMENSION: usize = 384;
const ROUNDS: usize = 60;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|error| Failure::new(FailureClass::Unavailable, error.to_string()))?;
    let backend = EmbeddedBackend::new(folder.path());
    let matrix: Vec<f32> = (0..ROWS * DIMENSION).map(pseudo_random).collect();
    let bytes = (matrix.len() * size_of::<f32>()) as f64;
    for metric in [Metric::Cosine, Metric::Dotproduct, Metric::Euclidean] {
        let index: Arc<dyn VectorIndex> = backend.open(&format!("{metric:?}"), &definition(metric)?).await?.into();
        let started = Instant::now();
        for start in (0..ROWS).step_by(1000) {
            index.upsert("", (start..start + 1000).map(|row| record(&matrix, row)).collect()).await?;
        }
        let stored = started.elapsed();
        println!(
            "{metric:?}: stored in {:.2} s ({:.0} vectors/s)",
            stored.as_secs_f64(),
            ROWS as f64 / stored.as_secs_f64()
        );
        for (what, filter) in [("all", None), ("one in ten", Some(Filter::parse(&tenth())?))] {
            let (mut sum, mut best) = (Duration::MAX, Duration::MAX);
            // In turns, so that whatever else the machine does falls on both.
            for round in 0..ROUNDS {
                let query = query(&matrix, round, filter.clone());
                let started = Instant::now();
                index.query(query).await?;
                best = best.min(started.elapsed());
                let started = Instant::now();
                std::hint::black_box(plain_sum(&matrix));
                sum = sum.min(started.elapsed());
            }
            println!(
                "  {what}: {:.0} queries/s, {:.2} ms; plain sum {:.2} ms, {:.1} GB/s; ratio {:.2}",
                1.0 / best.as_secs_f64(),
                best.as_secs_f64() * 1e3,
                sum.as_secs_f64() * 1e3,
                bytes / sum.as_secs_f64() / 1e9,
                sum.as_secs_f64() / best.as_secs_f64()
            );
        }
        println!("  8 callers at once: {:.0} queries/s", together(&index, &matrix).await?);
        index.close().await;
        let started = Instant::now();
        backend.open(&format!("{metric:?}"), &definition(metric)?).await?.close().await;
        println!("  opened and read in {:.2} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

async fn together(index: &Arc<dyn VectorIndex>, matrix: &[f32]) -> Result<f64, Failure> {
    let started = Instant::now();
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let index = Arc::clone(index);
            let queries: Vec<_> = (0..20).map(|round| query(matrix, caller * 100 + round, None)).collect();
            tokio::spawn(async move {
                for query in queries {
                    index.query(query).await?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await.map_err(|error| Failure::new(FailureClass::Internal, error.to_string()))??;
    }
    Ok(160.0 / started.elapsed().as_secs_f64())
}

fn pseudo_random(position: usize) -> f32 {
    let mixed = (position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ (mixed >> 29)) % 2000) as f32 / 1000.0 - 1.0
}

fn plain_sum(matrix: &[f32]) -> f32 {
    let mut sums = [0f32; 32];
    for chunk in matrix.as_chunks::<32>().0 {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum()
}

fn row(matrix: &[f32], row: usize) -> Vec<f32> {
    matrix[row * DIMENSION..(row + 1) * DIMENSION].to_vec()
}

fn record(matrix: &[f32], position: usize) -> VectorRecord {
    let metadata = Map::from([("n".into(), Value::Int(position as i64 % 10))]);
    VectorRecord { id: format!("vector-{position}"), values: row(matrix, position), metadata }
}

fn tenth() -> Value {
    Map::from([("n".into(), Value::Int(3))]).into()
}

fn query(matrix: &[f32], position: usize, filter: Option<Filter>) -> VectorQuery {
    let values = row(matrix, position);
    VectorQuery { namespace: String::new(), values, top_k: 10, filter, include_values: false, include_metadata: true }
}

fn definition(metric: Metric) -> Result<IndexDefinition, Failure> {
    let name = "speed".parse().map_err(|_| Failure::new(FailureClass::Internal, "the name is no name"))?;
    Ok(IndexDefinition {
        name,
        backend: "embedded".to_owned(),
        dimension: DIMENSION as u32,
        metric,
        batch: BatchPolicy::default(),
        document: serde_json::Value::Null,
    })
}
