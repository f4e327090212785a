"""BERT sentence embeddings in plain numpy, in double precision, one sentence at a time.

An implementation that shares nothing with the one in Rust: no padding, no masks, no joined products, no fitted error
function. Its vectors are what the tests of the backend `burn` compare with. Needs numpy, safetensors and tokenizers.

    python bert_reference.py tiny OUT                makes a tiny random model in OUT (always the same one)
    python bert_reference.py vectors MODEL OUT.safetensors
                                                     writes the vectors of sentences.json for the model folder MODEL
"""

import json
import math
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = pathlib.Path(__file__).parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
erf = np.vectorize(math.erf)


def layer_norm(x, gamma, beta, epsilon):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def embed(ids, weights, config):
    """The scaled mean of the last layer's vectors of one sentence."""

    def dense(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        return layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"], config["layer_norm_eps"])

    heads = config["num_attention_heads"]
    size = config["hidden_size"] // heads
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm("embeddings.LayerNorm", x)
    for index in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{index}"
        query, key, value = (dense(f"{at}.attention.self.{part}", x) for part in ("query", "key", "value"))
        context = np.empty_like(x)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size)
            context[:, part] = softmax(scores) @ value[:, part]
        x = norm(f"{at}.attention.output.LayerNorm", dense(f"{at}.attention.output.dense", context) + x)
        inner = dense(f"{at}.intermediate.dense", x)
        inner = inner * 0.5 * (1.0 + erf(inner / math.sqrt(2.0)))
        x = norm(f"{at}.output.LayerNorm", dense(f"{at}.output.dense", inner) + x)
    vector = x.mean(axis=0)
    return vector / np.linalg.norm(vector)


def write_vectors(folder, out):
    config = json.loads((folder / "config.json").read_text())
    length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    weights = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()
               if array.dtype == np.float32}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    sentences = json.loads((HERE / "sentences.json").read_text())
    ids = [tokenizer.encode(sentence).ids for sentence in sentences]
    vectors = np.stack([embed(row, weights, config) for row in ids]).astype(np.float32)
    save_file({"vectors": vectors}, out)
    print("tokens:", [len(row) for row in ids], "shape:", vectors.shape)


def make_tiny(folder):
    """A model of the same architecture that is small enough to be kept beside the code."""
    folder.mkdir(parents=True, exist_ok=True)
    words = "the a is of and to in that it this text model reads one two three four five end cat sat on mat".split()
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = list(letters) + [f"##{letter}" for letter in letters] + list(".,:;'?-0123456789") + ["##ing", "##er", "##s1"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(SPECIAL + words + pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)

    hidden, inner, layers, positions = 32, 64, 2, 64
    config = {"model_type": "bert", "vocab_size": len(vocabulary), "hidden_size": hidden, "num_hidden_layers": layers,
              "num_attention_heads": 4, "intermediate_size": inner, "max_position_embeddings": positions,
              "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48}) + "\n")
    modules = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    described = [{"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{m}"}
                 for i, (m, p) in enumerate(zip(modules, paths))]
    (folder / "modules.json").write_text(json.dumps(described, indent=2) + "\n")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}) + "\n")

    random = np.random.Generator(np.random.PCG64(7))
    weights = {}

    def matrix(name, *shape, mean=0.0):
        weights[name] = (mean + 0.3 * random.standard_normal(shape)).astype(np.float32)

    def dense(name, output, size):
        matrix(f"{name}.weight", output, size)
        matrix(f"{name}.bias", output)

    def norm(name):
        matrix(f"{name}.weight", hidden, mean=1.0)
        matrix(f"{name}.bias", hidden)

    matrix("embeddings.word_embeddings.weight", len(vocabulary), hidden)
    matrix("embeddings.position_embeddings.weight", positions, hidden)
    matrix("embeddings.token_type_embeddings.weight", 2, hidden)
    norm("embeddings.LayerNorm")
    for index in range(layers):
        at = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            dense(f"{at}.attention.self.{part}", hidden, hidden)
        dense(f"{at}.attention.output.dense", hidden, hidden)
        norm(f"{at}.attention.output.LayerNorm")
        dense(f"{at}.intermediate.dense", inner, hidden)
        dense(f"{at}.output.dense", hidden, inner)
        norm(f"{at}.output.LayerNorm")
    save_file(weights, folder / "model.safetensors")


if __name__ == "__main__":
    if sys.argv[1] == "tiny":
        make_tiny(pathlib.Path(sys.argv[2]))
    else:
        write_vectors(pathlib.Path(sys.argv[2]), sys.argv[3])
