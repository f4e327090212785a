//! Scores of one query against many rows: the loops that decide how fast a search is.
//!
//! Knows neither ids nor metrics' orders. Measured against plain chunked loops: the AVX2 path is a quarter faster while
//! the rows are in the cache and equal to the memory's bandwidth beyond, so wider registers would buy nothing.

use pulp::{Simd, WithSimd};

/// Independent sums per row, so that one addition need not wait for the one before.
const LANES: usize = 16;

/// The fastest loops that this processor can run.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    /// AVX2 with fused multiply-add, found at run time.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// Loops that the compiler vectorises for the oldest processor of the target (SSE2, NEON).
    Portable,
}

impl Kernel {
    /// Asks the processor.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Self::Avx2(simd);
        }
        Self::Portable
    }

    /// Scalar products of `query` with each row of `rows` into `scores`.
    pub(super) fn products(self, rows: &[f32], query: &[f32], scores: &mut [f32]) {
        self.run::<false>(rows, query, scores);
    }

    /// Squared distances of `query` to each row of `rows` into `scores`.
    pub(super) fn squared_distances(self, rows: &[f32], query: &[f32], scores: &mut [f32]) {
        self.run::<true>(rows, query, scores);
    }

    fn run<const DISTANCE: bool>(self, rows: &[f32], query: &[f32], scores: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Simd::vectorize(simd, Scan::<DISTANCE> { rows, query, scores }),
            Self::Portable => portable::<DISTANCE>(rows, query, scores),
        }
    }
}

/// One pass over rows.
struct Scan<'a, const DISTANCE: bool> {
    rows: &'a [f32],
    query: &'a [f32],
    scores: &'a mut [f32],
}

impl<const DISTANCE: bool> WithSimd for Scan<'_, DISTANCE> {
    type Output = ();

    // Inlined so that it is compiled with the instructions of its caller.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let step = |row: S::f32s, query: S::f32s, sum: S::f32s| {
            if DISTANCE {
                let difference = simd.sub_f32s(row, query);
                simd.mul_add_e_f32s(difference, difference, sum)
            } else {
                simd.mul_add_e_f32s(row, query, sum)
            }
        };
        let (query, query_rest) = S::as_simd_f32s(self.query);
        let (query_fours, query_ones) = query.as_chunks::<4>();
        for (row, score) in self.rows.chunks_exact(self.query.len()).zip(self.scores) {
            let (row, row_rest) = S::as_simd_f32s(row);
            let (row_fours, row_ones) = row.as_chunks::<4>();
            let mut sums = [simd.splat_f32s(0.0); 4];
            for (row, query) in row_fours.iter().zip(query_fours) {
                sums[0] = step(row[0], query[0], sums[0]);
                sums[1] = step(row[1], query[1], sums[1]);
                sums[2] = step(row[2], query[2], sums[2]);
                sums[3] = step(row[3], query[3], sums[3]);
            }
            for (row, query) in row_ones.iter().zip(query_ones) {
                sums[0] = step(*row, *query, sums[0]);
            }
            let pairs = (simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
            *score = simd.reduce_sum_f32s(simd.add_f32s(pairs.0, pairs.1)) + rest::<DISTANCE>(row_rest, query_rest);
        }
    }
}

fn portable<const DISTANCE: bool>(rows: &[f32], query: &[f32], scores: &mut [f32]) {
    let (query_chunks, query_rest) = query.as_chunks::<LANES>();
    for (row, score) in rows.chunks_exact(query.len()).zip(scores) {
        let (row_chunks, row_rest) = row.as_chunks::<LANES>();
        let mut sums = [0f32; LANES];
        for (row, query) in row_chunks.iter().zip(query_chunks) {
            for (sum, (row, query)) in sums.iter_mut().zip(row.iter().zip(query)) {
                *sum += term::<DISTANCE>(*row, *query);
            }
        }
        *score = sums.iter().sum::<f32>() + rest::<DISTANCE>(row_rest, query_rest);
    }
}

#[inline(always)]
fn rest<const DISTANCE: bool>(row: &[f32], query: &[f32]) -> f32 {
    row.iter().zip(query).map(|(row, query)| term::<DISTANCE>(*row, *query)).sum()
}

#[inline(always)]
fn term<const DISTANCE: bool>(row: f32, query: f32) -> f32 {
    if DISTANCE { (row - query) * (row - query) } else { row * query }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(row: &[f32], query: &[f32], distance: bool) -> f64 {
        row.iter()
            .zip(query)
            .map(|(&row, &query)| {
                let (row, query) = (f64::from(row), f64::from(query));
                if distance { (row - query).powi(2) } else { row * query }
            })
            .sum()
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_with_plain_sums(
            dimension in 1usize..200,
            seed in proptest::collection::vec(-4.0f32..4.0, 1000),
        ) {
            let query = &seed[..dimension];
            let rows = &seed[..seed.len() / dimension * dimension];
            for kernel in [Kernel::detect(), Kernel::Portable] {
                let mut products = vec![0.0; rows.len() / dimension];
                let mut distances = products.clone();
                kernel.products(rows, query, &mut products);
                kernel.squared_distances(rows, query, &mut distances);
                for (position, row) in rows.chunks_exact(dimension).enumerate() {
                    let bound = 1e-5 * (1.0 + naive(row, row, false) + naive(query, query, false));
                    prop_assert!((f64::from(products[position]) - naive(row, query, false)).abs() < bound);
                    prop_assert!((f64::from(distances[position]) - naive(row, query, true)).abs() < bound);
                }
            }
        }
    }
}
