//! The network and its learning: a bag of bucket vectors, a hidden layer, a linear layer; gradients by hand.
//!
//! Knows rows of features and numbers, never texts. The forward pass is the same arithmetic as the one that burn
//! computes in `burn/text_classifier.rs`; a test of the library compares the two. Used by the training program.

use motet_models::burn::features::FeatureRow;

use crate::random::Random;

/// Lengths of the layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) buckets: usize,
    pub(crate) hidden: usize,
    pub(crate) labels: usize,
}

/// A matrix or vector that learns with Adagrad: values, sums of squared gradients, gradients of this step.
#[derive(Clone, Debug)]
pub(crate) struct Learned {
    pub(crate) values: Vec<f32>,
    squares: Vec<f32>,
    gradient: Vec<f32>,
}

impl Learned {
    fn new(values: Vec<f32>) -> Self {
        Self { squares: vec![0.0; values.len()], gradient: vec![0.0; values.len()], values }
    }

    fn update(&mut self, range: std::ops::Range<usize>, rate: f32) {
        for at in range {
            let gradient = std::mem::take(&mut self.gradient[at]);
            if gradient != 0.0 {
                self.squares[at] += gradient * gradient;
                self.values[at] -= rate * gradient / (self.squares[at].sqrt() + 1e-6);
            }
        }
    }
}

/// The network while it learns.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) shape: Shape,
    /// One vector per bucket, `[buckets, hidden]`.
    pub(crate) embedding: Learned,
    /// `[hidden]`.
    pub(crate) bias: Learned,
    /// `[hidden, labels]`.
    pub(crate) output: Learned,
    /// `[labels]`.
    pub(crate) output_bias: Learned,
    touched: Vec<u32>,
}

/// What the forward pass leaves behind for the way back.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    activation: Vec<f32>,
    length: f32,
    /// The activation scaled to length 1: the text's vector.
    pub(crate) vector: Vec<f32>,
    /// One probability per label.
    pub(crate) scores: Vec<f32>,
}

impl Network {
    /// A network whose bucket vectors are random directions as long as `importance` says; buckets that no training
    /// text fills are 0 and stay so, and add no noise later.
    pub(crate) fn new(shape: Shape, importance: &[f32], random: &mut Random) -> Self {
        let embedding =
            importance.iter().flat_map(|&scale| (0..shape.hidden).map(move |_| scale)).collect::<Vec<f32>>();
        let embedding = embedding.into_iter().map(|scale| scale * random.normal()).collect();
        let output = (0..shape.hidden * shape.labels).map(|_| 0.1 * random.normal()).collect();
        Self {
            shape,
            embedding: Learned::new(embedding),
            bias: Learned::new(vec![0.0; shape.hidden]),
            output: Learned::new(output),
            output_bias: Learned::new(vec![0.0; shape.labels]),
            touched: Vec::new(),
        }
    }

    /// Computes vector and scores of one row.
    pub(crate) fn forward(&self, row: &FeatureRow) -> Forward {
        let hidden = self.shape.hidden;
        let mut activation = self.bias.values.clone();
        for (&bucket, &weight) in row.buckets.iter().zip(&row.weights) {
            let from = bucket as usize * hidden;
            for (sum, value) in activation.iter_mut().zip(&self.embedding.values[from..from + hidden]) {
                *sum += weight * value;
            }
        }
        for value in &mut activation {
            *value = value.tanh();
        }
        let length = activation.iter().map(|a| a * a).sum::<f32>().sqrt().max(1e-6);
        let vector: Vec<f32> = activation.iter().map(|a| a / length).collect();
        let mut scores = self.output_bias.values.clone();
        for (value, weights) in vector.iter().zip(self.output.values.chunks_exact(self.shape.labels)) {
            for (score, weight) in scores.iter_mut().zip(weights) {
                *score += value * weight;
            }
        }
        softmax(&mut scores);
        Forward { activation, length, vector, scores }
    }

    /// Adds one row's gradients: `vector_gradient` from losses on the vector, and cross entropy for `label`, where
    /// there is one, weighed and softened (`smoothing` of the target is spread over all labels).
    pub(crate) fn backward(
        &mut self,
        row: &FeatureRow,
        forward: &Forward,
        vector_gradient: &[f32],
        label: Option<usize>,
        weight: f32,
        smoothing: f32,
    ) {
        let (hidden, labels) = (self.shape.hidden, self.shape.labels);
        let mut gradient = vector_gradient.to_vec();
        if let Some(label) = label {
            for (at, score) in forward.scores.iter().enumerate() {
                let target = smoothing / labels as f32 + if at == label { 1.0 - smoothing } else { 0.0 };
                let delta = weight * (score - target);
                self.output_bias.gradient[at] += delta;
                for (dimension, sum) in gradient.iter_mut().enumerate() {
                    self.output.gradient[dimension * labels + at] += delta * forward.vector[dimension];
                    *sum += delta * self.output.values[dimension * labels + at];
                }
            }
        }
        // Through the scaling to length 1, then through tanh.
        let along: f32 = gradient.iter().zip(&forward.vector).map(|(g, v)| g * v).sum();
        for (dimension, slope) in gradient.iter_mut().enumerate() {
            let a = forward.activation[dimension];
            *slope = (*slope - along * forward.vector[dimension]) / forward.length * (1.0 - a * a);
            self.bias.gradient[dimension] += *slope;
        }
        for (&bucket, &weight) in row.buckets.iter().zip(&row.weights) {
            self.touched.push(bucket);
            let from = bucket as usize * hidden;
            for (sum, value) in self.embedding.gradient[from..from + hidden].iter_mut().zip(&gradient) {
                *sum += weight * value;
            }
        }
    }

    /// Moves all weights against the gradients added since the last step.
    pub(crate) fn step(&mut self, rate: f32) {
        self.touched.sort_unstable();
        self.touched.dedup();
        for bucket in std::mem::take(&mut self.touched) {
            let from = bucket as usize * self.shape.hidden;
            self.embedding.update(from..from + self.shape.hidden, rate);
        }
        self.bias.update(0..self.shape.hidden, rate);
        self.output.update(0..self.shape.hidden * self.shape.labels, rate);
        self.output_bias.update(0..self.shape.labels, rate);
    }

    /// The learned parts by the names they have in the file, with their shapes.
    pub(crate) fn parts(&mut self) -> [(&'static str, Vec<usize>, &mut Vec<f32>); 4] {
        let Shape { buckets, hidden, labels } = self.shape;
        [
            ("embedding", vec![buckets, hidden], &mut self.embedding.values),
            ("hidden.bias", vec![hidden], &mut self.bias.values),
            ("output.bias", vec![labels], &mut self.output_bias.values),
            ("output.weight", vec![hidden, labels], &mut self.output.values),
        ]
    }
}

/// Turns numbers into probabilities in place.
pub(crate) fn softmax(numbers: &mut [f32]) {
    let largest = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for number in numbers.iter_mut() {
        *number = (*number - largest).exp();
        sum += *number;
    }
    for number in numbers {
        *number /= sum;
    }
}

/// Product of two vectors of one length.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
