"""What the models answer without Motet: run by the suite `children`, which compares.

`direct.py saved WHEELS OUT` runs the SavedModels of two packages with TensorFlow itself; `direct.py files OUT` trains
two small models, keeps them in files and asks them. Both write input and answer of every model as JSON to OUT.
"""

import json
import pathlib
import subprocess
import sys
import zipfile

import numpy

SAVED = {
    "basic-pitch": ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp"),
    "guesslang": ("guesslang==2.2.1", "guesslang/data/model"),
}
TEXTS = [
    "fn main() {\n    let words: Vec<&str> = vec![\"one\"];\n    println!(\"{words:?}\");\n}\n",
    "import os\n\ndef names(path):\n    return [name for name in os.listdir(path) if name]\n",
    "SELECT name, count(*) FROM runs WHERE state = 'failed' GROUP BY name ORDER BY 2 DESC;\n",
]


def write(out, name, given, answer):
    answer = {key: numpy.asarray(value).tolist() for key, value in answer.items()}
    text = lambda value: value.decode() if isinstance(value, bytes) else value.tolist()
    pathlib.Path(out, f"{name}.json").write_text(json.dumps({"input": given, "answer": answer}, default=text))


def saved(wheels, out):
    import tensorflow

    v1 = tensorflow.compat.v1
    v1.disable_eager_execution()
    wheels = pathlib.Path(wheels)
    sound = numpy.sin(numpy.arange(43844) * 0.06).round(4)
    inputs = {"basic-pitch": {"input_2": sound.reshape(1, -1, 1).tolist()}, "guesslang": {"inputs": TEXTS}}
    for name, (requirement, folder) in SAVED.items():
        place = wheels / name
        if not (place / folder).is_dir():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "20", "--dest", place]
            subprocess.run([*pip, requirement], check=True)
            zipfile.ZipFile(next(place.glob("*.whl"))).extractall(place)
        with v1.Session(graph=tensorflow.Graph()) as session:
            loaded = v1.saved_model.load(session, ["serve"], str(place / folder))
            signature = loaded.signature_def["serving_default"]
            fetched = {key: tensor.name for key, tensor in signature.outputs.items()}
            fed = {signature.inputs[key].name: value for key, value in inputs[name].items()}
            write(out, name, inputs[name], session.run(fetched, fed))


def files(out):
    import joblib
    import keras
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    digits, labels = load_digits(return_X_y=True)
    estimator = LogisticRegression(max_iter=200).fit(digits[:800], labels[:800])
    joblib.dump(estimator, pathlib.Path(out, "digits.joblib"))
    given = digits[800:820]
    answer = {name: getattr(estimator, name)(given) for name in ["predict", "predict_proba"]}
    write(out, "digits", {"input": given.tolist()}, answer)
    keras.utils.set_random_seed(7)
    network = keras.Sequential([
        keras.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, activation="softmax"),
    ])
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(digits[:800], labels[:800], epochs=2, verbose=0)
    network.save(pathlib.Path(out, "digits.keras"))
    write(out, "network", {"input": given.tolist()}, {"predict": network.predict(given, verbose=0)})


{"saved": saved, "files": files}[sys.argv[1]](*sys.argv[2:])
