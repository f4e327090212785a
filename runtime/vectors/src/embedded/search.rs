//! Exact search: scores block by block, and a bounded heap of the nearest.
//!
//! Never writes and never waits. Used by the embedded index under its read lock.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use motet_engine::definition::Metric;

use super::kernel::Kernel;
use super::table::Rows;
use crate::limits::squared_length;
use crate::port::{VectorMatch, VectorQuery};

/// Rows scored before they are compared: few enough for the scores to stay in the fastest cache.
const BLOCK: usize = 1024;

/// A row that may be among the nearest. The greatest one is the farthest, so that a max-heap gives it up first.
struct Candidate<'a> {
    /// Lower is nearer, whatever the metric. Never -0, which would part equal scores.
    distance: f32,
    id: &'a str,
    row: usize,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then_with(|| self.id.cmp(other.id))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}

/// The nearest rows, nearest first, equal scores by id.
pub(super) fn nearest(kernel: Kernel, metric: Metric, rows: &Rows, query: &VectorQuery) -> Vec<VectorMatch> {
    let limit = (query.top_k as usize).min(rows.len());
    let mut heap: BinaryHeap<Candidate<'_>> = BinaryHeap::with_capacity(limit);
    let wanted = prepared(metric, &query.values);
    let mut distances = [0f32; BLOCK];
    for (block, values) in rows.values().chunks(BLOCK * wanted.len()).enumerate() {
        let distances = &mut distances[..values.len() / wanted.len()];
        score(kernel, metric, rows, block * BLOCK, values, &wanted, distances);
        for (offset, &distance) in distances.iter().enumerate() {
            if heap.len() == limit && heap.peek().is_some_and(|farthest| distance > farthest.distance) {
                continue;
            }
            let row = block * BLOCK + offset;
            let candidate = Candidate { distance, id: rows.id(row), row };
            if heap.len() == limit && heap.peek().is_some_and(|farthest| candidate > *farthest) {
                continue;
            }
            // Metadata is looked at last: most rows are ruled out by their score, which costs less.
            if query.filter.as_ref().is_some_and(|filter| !filter.matches(rows.metadata(row))) {
                continue;
            }
            if heap.len() == limit {
                heap.pop();
            }
            heap.push(candidate);
        }
    }
    heap.into_sorted_vec().into_iter().map(|candidate| found(metric, rows, &candidate, query)).collect()
}

/// The query as the kernel needs it: of length one for the cosine.
fn prepared(metric: Metric, values: &[f32]) -> Vec<f32> {
    if metric != Metric::Cosine {
        return values.to_vec();
    }
    let length = squared_length(values).sqrt();
    values.iter().map(|&value| (f64::from(value) / length) as f32).collect()
}

/// Writes how far each row of a block is into `distances`.
fn score(
    kernel: Kernel,
    metric: Metric,
    rows: &Rows,
    first_row: usize,
    values: &[f32],
    wanted: &[f32],
    distances: &mut [f32],
) {
    match metric {
        Metric::Euclidean => kernel.squared_distances(values, wanted, distances),
        Metric::Dotproduct => {
            kernel.products(values, wanted, distances);
            distances.iter_mut().for_each(|product| *product = 0.0 - *product);
        }
        Metric::Cosine => {
            kernel.products(values, wanted, distances);
            let inverse_lengths = &rows.inverse_lengths().unwrap_or_default()[first_row..];
            for (product, inverse_length) in distances.iter_mut().zip(inverse_lengths) {
                // Rounding must not carry a cosine past its bounds.
                *product = 0.0 - (*product * inverse_length).clamp(-1.0, 1.0);
            }
        }
    }
}

fn found(metric: Metric, rows: &Rows, candidate: &Candidate<'_>, query: &VectorQuery) -> VectorMatch {
    let row = candidate.row;
    VectorMatch {
        id: candidate.id.to_owned(),
        score: if metric == Metric::Euclidean { candidate.distance } else { 0.0 - candidate.distance },
        values: query.include_values.then(|| rows.row(row).to_vec()),
        metadata: query.include_metadata.then(|| rows.metadata(row).clone()),
    }
}
