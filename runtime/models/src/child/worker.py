"""The process of a model in Python: loads an object, answers batches. Never talks to anything but its node.

Run by `motet` with the socket as standard input and one argument: what to load, as JSON. The frames are those of
`wire.rs`.
"""

import importlib
import json
import math
import os
import socket
import struct
import sys
import traceback

try:
    import numpy
except ImportError:
    numpy = None

# Open Inference names, and what struct and numpy call them.
TYPES = {
    "BOOL": ("?", "bool"), "UINT8": ("B", "uint8"), "UINT16": ("H", "uint16"), "UINT32": ("I", "uint32"),
    "UINT64": ("Q", "uint64"), "INT8": ("b", "int8"), "INT16": ("h", "int16"), "INT32": ("i", "int32"),
    "INT64": ("q", "int64"), "FP16": ("e", "float16"), "FP32": ("f", "float32"), "FP64": ("d", "float64"),
}
MAX_HEAD, MAX_PAYLOAD = 4 << 20, 2 << 30


class Refused(Exception):
    """Told to the caller as it is; the request or the definition is wrong."""


class Node:
    """The other end of the socket."""

    def __init__(self):
        self.socket = socket.socket(fileno=0)

    def read(self, length):
        data, view = bytearray(length), None
        view = memoryview(data)
        while view:
            got = self.socket.recv_into(view)
            if not got:
                os._exit(0)
            view = view[got:]
        return data

    def receive(self):
        head, payload = struct.unpack("<IQ", self.read(12))
        if head > MAX_HEAD or payload > MAX_PAYLOAD:
            raise SystemExit("the node sent a frame that is longer than allowed")
        return json.loads(self.read(head)), self.read(payload)

    def send(self, head, payload=()):
        head = json.dumps(head).encode()
        self.socket.sendall(struct.pack("<IQ", len(head), sum(map(len, payload))) + head)
        for part in payload:
            self.socket.sendall(part)


def strings(data):
    """The elements of a tensor of bytes: text where they are UTF-8."""
    out, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        element = bytes(data[at + 4:at + 4 + length])
        at += 4 + length
        try:
            out.append(element.decode())
        except UnicodeDecodeError:
            out.append(element)
    return out


def nested(values, shape):
    if len(shape) == 1:
        return list(values)
    size = math.prod(shape[1:])
    return [nested(values[place * size:(place + 1) * size], shape[1:]) for place in range(shape[0])]


def unpack(heads, payload):
    """Inputs as numpy arrays, or as nested lists where numpy is not there; texts always as lists."""
    out, at, view = {}, 0, memoryview(payload)
    for head in heads:
        data, shape = view[at:at + head["bytes"]], head["shape"]
        at += head["bytes"]
        if head["datatype"] == "BYTES":
            values = strings(data)
            out[head["name"]] = values if len(shape) == 1 else nested(values, shape)
        elif numpy is not None:
            out[head["name"]] = numpy.frombuffer(data, TYPES[head["datatype"]][1]).reshape(shape).copy()
        else:
            code = TYPES[head["datatype"]][0]
            values = struct.unpack(f"<{math.prod(shape)}{code}", data)
            out[head["name"]] = nested(values, shape)
    return out


def as_text(value):
    """A text as itself, a message by its content, anything else as JSON."""
    value = getattr(value, "content", value)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        if hasattr(value, "model_dump"):
            value = value.model_dump()
        value = json.dumps(value, ensure_ascii=False, default=lambda other: getattr(other, "tolist", other.__str__)())
    return value.encode()


def flat(values):
    if isinstance(values, (list, tuple)):
        shape, out = None, []
        for value in values:
            inner, parts = flat(value)
            if shape not in (None, inner):
                raise Refused("an output has rows of different lengths")
            shape = inner
            out.extend(parts)
        return [len(values), *(shape or [])], out
    return [], [values]


def pack(name, datatype, value, rows):
    """An output as head and data."""
    if hasattr(value, "numpy"):
        value = value.numpy()
    if datatype == "BYTES":
        value = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(value, (list, tuple)):
            raise Refused(f"the output '{name}' is no list of {rows} rows")
        texts = [as_text(element) for element in value]
        shape, data = [len(texts)], b"".join(struct.pack("<I", len(text)) + text for text in texts)
    elif numpy is not None:
        array = numpy.ascontiguousarray(numpy.asarray(value), TYPES[datatype][1])
        shape, data = list(array.shape), array.tobytes()
    else:
        shape, values = flat(value)
        data = struct.pack(f"<{len(values)}{TYPES[datatype][0]}", *values)
    if not shape or shape[0] != rows:
        raise Refused(f"the output '{name}' has the shape {shape}, but there are {rows} rows")
    return {"name": name, "datatype": datatype, "shape": shape, "bytes": len(data)}, data


def load(settings):
    """What the definition names: an attribute of a module, or an object in a file."""
    folder = settings.get("folder")
    if folder:
        sys.path.insert(0, folder)
    if settings.get("callable"):
        module, _, attribute = settings["callable"].partition(":")
        target = importlib.import_module(module)
        for part in (attribute or module.rpartition(".")[2]).split("."):
            target = getattr(target, part)
        return target() if isinstance(target, type) else target
    path = os.path.join(folder, settings["file"])
    if path.endswith((".keras", ".h5")):
        return importlib.import_module("keras").models.load_model(path)
    if path.endswith((".joblib", ".pkl", ".pickle")):
        try:
            return importlib.import_module("joblib").load(path)
        except ImportError:
            with open(path, "rb") as file:
                return importlib.import_module("pickle").load(file)
    raise Refused(f"{settings['file']} is no .joblib, .pkl, .keras or .h5 file; use parameters.callable instead")


def datatype_of(dtype):
    name = numpy.dtype(dtype).name
    found = [known for known, (_, other) in TYPES.items() if other == name]
    return found[0] if found else "BYTES"


class Model:
    """A loaded object with what it takes and gives."""

    def __init__(self, target, settings):
        self.target = target
        self.inputs, self.outputs = settings.get("inputs"), settings.get("outputs")
        if hasattr(target, "invoke") and hasattr(target, "batch"):
            self.compute, kind = self.runnable, "runnable"
            self.inputs = self.inputs or [{"name": "input", "datatype": "BYTES", "shape": [None]}]
            self.outputs = self.outputs or [{"name": "output", "datatype": "BYTES", "shape": [None]}]
        elif hasattr(target, "predict"):
            self.compute, kind = self.estimator, "estimator"
            self.inputs = self.inputs or self.estimated_inputs()
            self.outputs = self.outputs or self.estimated_outputs()
        elif callable(target):
            self.compute, kind = self.call, "callable"
            if not self.inputs or not self.outputs:
                raise Refused("a callable needs parameters.inputs and parameters.outputs (name, datatype, shape)")
        else:
            raise Refused(f"{target!r} cannot be called and has neither 'predict' nor 'invoke'")
        version = ".".join(map(str, sys.version_info[:3]))
        self.facts = {"engine": f"Python {version}", "object": f"{type(target).__module__}.{type(target).__name__}",
                      "kind": kind}

    def runnable(self, inputs, rows):
        names = [spec["name"] for spec in self.inputs]
        given = inputs[names[0]] if len(names) == 1 else [
            {name: inputs[name][row] for name in names if name in inputs} for row in range(rows)
        ]
        answers = self.target.batch(list(given))
        if len(self.outputs) == 1:
            return {self.outputs[0]["name"]: answers}
        return {spec["name"]: [answer[spec["name"]] for answer in answers] for spec in self.outputs}

    def estimator(self, inputs, rows):
        given = list(inputs.values())
        given = given[0] if len(given) == 1 else given
        keras = {"verbose": 0} if hasattr(self.target, "input_shape") else {}
        method = lambda name: getattr(self.target, name if hasattr(self.target, name) else "predict")
        return {spec["name"]: method(spec["name"])(given, **keras) for spec in self.outputs}

    def call(self, inputs, rows):
        answer = self.target(**inputs)
        if isinstance(answer, dict) or len(self.outputs) > 1:
            return answer
        return {self.outputs[0]["name"]: answer}

    def estimated_inputs(self):
        if hasattr(self.target, "n_features_in_"):
            return [{"name": "input", "datatype": "FP64", "shape": [None, int(self.target.n_features_in_)]}]
        shape = getattr(self.target, "input_shape", None)
        if isinstance(shape, tuple):
            dtype = getattr(self.target.inputs[0], "dtype", "float32")
            return [{"name": "input", "datatype": datatype_of(dtype), "shape": list(shape)}]
        raise Refused("what the object takes is not known: give parameters.inputs (name, datatype, shape)")

    def estimated_outputs(self):
        probe = {}
        for spec in self.inputs:
            if spec["datatype"] == "BYTES":
                raise Refused("what the object gives is not known: give parameters.outputs (name, datatype, shape)")
            shape = [1, *(length or 1 for length in spec["shape"][1:])]
            probe[spec["name"]] = numpy.zeros(shape, TYPES[spec["datatype"]][1])
        self.outputs = [{"name": "predict"}]
        value = numpy.asarray(self.estimator(probe, 1)["predict"])
        return [{"name": "predict", "datatype": datatype_of(value.dtype), "shape": [None, *value.shape[1:]]}]

    def infer(self, head, payload):
        rows = head["rows"]
        answer = self.compute(unpack(head["inputs"], payload), rows)
        missing = [spec["name"] for spec in self.outputs if spec["name"] not in answer]
        if missing:
            raise Refused(f"the answer has no {', '.join(missing)}")
        packed = [pack(spec["name"], spec["datatype"], answer[spec["name"]], rows) for spec in self.outputs]
        return [head for head, _ in packed], [data for _, data in packed]


def refusal(error):
    """Wrong values are the caller's; what else breaks is the model's."""
    if isinstance(error, Refused):
        return {"class": "invalid", "message": str(error)}
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    wrong = isinstance(error, (ValueError, TypeError, KeyError))
    message = f"{type(error).__name__}: {error}"[:800] + place
    return {"class": "invalid" if wrong else "internal", "message": message}


def main():
    told = json.loads(sys.argv[1])
    sys.stdout, node = sys.stderr, Node()
    try:
        model = Model(load(told["settings"]), told["settings"])
    except Exception as error:
        node.send({"kind": "refused", **refusal(error), "class": "invalid"})
        return
    node.send({"kind": "ready", "inputs": model.inputs, "outputs": model.outputs, "facts": model.facts,
               "isolation": told["isolation"]})
    while True:
        head, payload = node.receive()
        try:
            outputs, data = model.infer(head, payload)
        except Exception as error:
            node.send({"kind": "failed", "id": head["id"], **refusal(error)})
        else:
            node.send({"kind": "done", "id": head["id"], "outputs": outputs}, data)


main()
