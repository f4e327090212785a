//! How good a network is on texts it has not learned from: right labels, and right articles among the nearest.
//!
//! Changes nothing. Used by the training program at its end.

use motet_models::burn::features::FeatureRow;

use crate::Sources;
use crate::network::{Network, dot};
use crate::texts::Labelled;

/// Shares of a set of texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Texts in the set.
    pub(crate) texts: usize,
    /// Texts whose best label is the right one.
    pub(crate) right: usize,
    /// Texts that name an article.
    pub(crate) asked: usize,
    /// Texts whose article is the nearest.
    pub(crate) first: usize,
    /// Texts whose article is among the nearest five.
    pub(crate) top_five: usize,
}

/// How often plain rows of features, weighed by rarity, find the right article: what learning has to beat.
pub(crate) fn without_learning(network: &Network, sources: &Sources, texts: &[Labelled]) {
    let buckets = network.shape.buckets as u32;
    let rows: Vec<FeatureRow> = sources
        .articles
        .iter()
        .map(|article| FeatureRow::from_text(&format!("{}. {}", article.title, article.text), buckets))
        .collect();
    let mut seen = vec![0u32; network.shape.buckets];
    rows.iter().flat_map(|row| &row.buckets).for_each(|&bucket| seen[bucket as usize] += 1);
    let dense = |row: &FeatureRow| {
        let mut dense = vec![0.0; network.shape.buckets];
        for (&bucket, &weight) in row.buckets.iter().zip(&row.weights) {
            let seen = seen[bucket as usize].max(1) as f32;
            dense[bucket as usize] = weight * (1.0 + (rows.len() as f32 / seen).ln());
        }
        let length = dot(&dense, &dense).sqrt().max(1e-6);
        dense.iter_mut().for_each(|weight| *weight /= length);
        dense
    };
    let articles: Vec<Vec<f32>> = rows.iter().map(dense).collect();
    let (mut first, mut top_five) = (0, 0);
    for text in texts {
        let question = dense(&FeatureRow::from_text(&text.text, buckets));
        let near: Vec<f32> = articles.iter().map(|article| dot(article, &question)).collect();
        let truth = sources.articles.iter().position(|article| Some(&article.id) == text.article.as_ref());
        let nearer = truth.map_or(usize::MAX, |truth| near.iter().filter(|&&other| other > near[truth]).count());
        first += usize::from(nearer == 0);
        top_five += usize::from(nearer < 5);
    }
    println!("without learning: article first {first}, among five {top_five}, of {}", texts.len());
}

/// Measures and prints.
pub(crate) fn report(name: &str, network: &Network, sources: &Sources, texts: &[Labelled]) -> Report {
    let row = |text: &str| FeatureRow::from_text(text, network.shape.buckets as u32);
    let articles: Vec<_> = sources
        .articles
        .iter()
        .map(|article| network.forward(&row(&format!("{}. {}", article.title, article.text))).vector)
        .collect();
    let mut report = Report { texts: texts.len(), right: 0, asked: 0, first: 0, top_five: 0 };
    for text in texts {
        let forward = network.forward(&row(&text.text));
        let best = (0..forward.scores.len()).max_by(|&a, &b| forward.scores[a].total_cmp(&forward.scores[b]));
        report.right += usize::from(best.is_some_and(|best| sources.labels[best] == text.category));
        let truth = sources.articles.iter().position(|article| Some(&article.id) == text.article.as_ref());
        if let Some(truth) = truth {
            let near: Vec<f32> = articles.iter().map(|article| dot(article, &forward.vector)).collect();
            let nearer = near.iter().filter(|&&other| other > near[truth]).count();
            report.asked += 1;
            report.first += usize::from(nearer == 0);
            report.top_five += usize::from(nearer < 5);
        }
    }
    println!("{name}: {report:?}");
    let share = |part: usize, whole: usize| 100.0 * part as f32 / whole.max(1) as f32;
    println!(
        "{name}: accuracy {:.1} %, article first {:.1} %, among five {:.1} %",
        share(report.right, report.texts),
        share(report.first, report.asked),
        share(report.top_five, report.asked)
    );
    report
}
