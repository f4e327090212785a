//! Writes what was learned: the weights, the description, the model card, and answers to compare with.
//!
//! Reads nothing. Used by the training program at its end.

use std::fs;
use std::path::Path;

use burn::tensor::f16;
use motet_models::burn::features::{self, FeatureRow};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;

use crate::Sources;
use crate::evaluate::Report;
use crate::network::Network;

/// Rounds all weights to half precision, as the file keeps them, so that what is measured is what is shipped.
pub(crate) fn round_to_half(network: &mut Network) {
    for (_, _, values) in network.parts() {
        for value in values.iter_mut() {
            *value = f16::from_f32(*value).to_f32();
        }
    }
}

/// Writes all files of the model into a folder. `reports` are those of the held-out texts and of the tickets.
pub(crate) fn write(
    folder: &Path,
    network: &mut Network,
    sources: &Sources,
    reports: &[Report; 2],
) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let save = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        println!("{}: {} bytes", path.display(), bytes.len());
        fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
    };
    let config = json!({
        "model_type": "text-classifier",
        "features": features::VERSION,
        "buckets": network.shape.buckets,
        "hidden": network.shape.hidden,
        "labels": sources.labels,
    });
    save("config.json", format!("{config:#}\n").as_bytes())?;
    save("reference.json", reference(network, sources).as_bytes())?;
    save("README.md", card(network, sources, reports).as_bytes())?;
    save("model.safetensors", &weights(network)?)
}

fn weights(network: &mut Network) -> Result<Vec<u8>, String> {
    let parts = network.parts().map(|(name, shape, values)| {
        let bytes: Vec<u8> = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        (name, shape, bytes)
    });
    let mut views = Vec::new();
    for (name, shape, bytes) in &parts {
        let view = TensorView::new(Dtype::F16, shape.clone(), bytes).map_err(|error| error.to_string())?;
        views.push((*name, view));
    }
    serialize(views, None).map_err(|error| error.to_string())
}

/// What this program computes for some texts: the library's tests compare burn's answers with it.
fn reference(network: &Network, sources: &Sources) -> String {
    let long = sources.articles.iter().map(|article| article.text.as_str()).collect::<Vec<_>>().join("\n");
    let texts = sources.tickets.iter().step_by(16).map(|ticket| ticket.text.as_str());
    let mut lines = String::from("[\n");
    let texts: Vec<&str> =
        texts.chain(["", "?!", "Größe naïve ÉCOLE 東京", long.get(..4000).unwrap_or_default()]).collect();
    for (at, text) in texts.iter().enumerate() {
        let forward = network.forward(&FeatureRow::from_text(text, network.shape.buckets as u32));
        let line = json!({ "text": text, "vector": forward.vector, "scores": forward.scores });
        lines.push_str(&format!("{line}{}\n", if at + 1 < texts.len() { "," } else { "" }));
    }
    lines + "]\n"
}

fn card(network: &Network, sources: &Sources, [heldout, tickets]: &[Report; 2]) -> String {
    let share = |part: usize, whole: usize| format!("{:.1} %", 100.0 * part as f32 / whole.max(1) as f32);
    format!(
        "# support-desk: a small text classifier and embedder

Tells which of {labels} help-desk topics a short English text is about, and gives every text a vector of {hidden}
numbers, so that questions lie near the articles that answer them. It serves the demo and the tests without network;
it is no general embedder.

- **Labels**: {names}
- **Network**: words, pairs of words and pieces of words hashed into {buckets} buckets (`src/burn/features.rs`), the sum
  of their vectors, tanh, scaled to length 1 (the vector), one linear layer and softmax (the scores)
- **Weights**: trained by this project from random numbers, half precision; nothing was taken from another model
- **Data**: {train} short texts (`training/data/train.jsonl`) and the {articles} articles of the sample corpus
  (`runtime/server/demo/articles.jsonl`), written for this project; variants (misspelling, synonyms, cuts) are made
  by the program
- **Licence**: Apache-2.0, weights and texts

## How good it is

| measured on | texts | right label | right article first | right article among five |
| --- | --- | --- | --- | --- |
| `training/data/heldout.jsonl` | {h_texts} | {h_right} | – | – |
| `runtime/server/demo/tickets.jsonl` | {t_texts} | {t_right} | {t_first} | {t_five} |

None of these texts was learned from, and no setting was chosen by them: settings were chosen by leaving out parts of
the training texts. Still the figures flatter, for three reasons. The articles themselves were learned from, as the
index is made of them; for articles that were not, expect less. All texts are by one author, about one fictional company
and in one manner. And two fifths of the training texts were written after the tickets and the held-out texts, by that
author, who knew them: `training/README.md` says what that amounts to. Real mail, other products and other languages
will do worse.

The scores are softened in training (label smoothing), so they are not calibrated probabilities. The topics overlap
(billing and subscription, account and security); where only the right answer matters, the nearest article tells more
than the label.

## Train it again

```
cargo run --example train_text_classifier
```

The seed is fixed: the same sources give the same weights on the same platform. `--fold 0` to `--fold 4` leaves out a
fifth of the training texts and measures on them instead, without writing anything.
",
        labels = sources.labels.len(),
        names = sources.labels.join(", "),
        hidden = network.shape.hidden,
        buckets = network.shape.buckets,
        train = sources.train.len(),
        articles = sources.articles.len(),
        h_texts = heldout.texts,
        h_right = share(heldout.right, heldout.texts),
        t_texts = tickets.texts,
        t_right = share(tickets.right, tickets.texts),
        t_first = share(tickets.first, tickets.asked),
        t_five = share(tickets.top_five, tickets.asked),
    )
}
