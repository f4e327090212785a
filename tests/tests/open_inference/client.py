"""Calls a node as users of Triton's Python client do, and fails on the first answer that is not what it should be.

usage: client.py PART http|grpc HTTP_ADDRESS GRPC_ADDRESS
"""

import gzip
import json
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib

import numpy as np

PART, SURFACE, HTTP, GRPC = sys.argv[1:]

import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

OVER_HTTP = SURFACE == "http"
triton = triton_http if OVER_HTTP else triton_grpc


def connect():
    return triton_http.InferenceServerClient(HTTP, concurrency=16) if OVER_HTTP else triton_grpc.InferenceServerClient(GRPC)


client = connect()


def texts(*values, name="text", shape=None, binary=True):
    array = np.array([value if isinstance(value, bytes) else value.encode() for value in values], dtype=np.object_)
    tensor = triton.InferInput(name, list(shape or array.shape), "BYTES")
    if OVER_HTTP:
        tensor.set_data_from_numpy(array, binary_data=binary)
    else:
        tensor.set_data_from_numpy(array)
    return tensor


def wanted(name, binary=True, classes=0):
    if OVER_HTTP:
        return triton.InferRequestedOutput(name, binary_data=binary, class_count=classes)
    return triton.InferRequestedOutput(name, class_count=classes)


def refused(call, http, grpc, words):
    try:
        call()
    except InferenceServerException as error:
        expected = str(http) if OVER_HTTP else f"StatusCode.{grpc}"
        assert error.status() == expected, f"{error.status()} is not {expected}: {error.message()}"
        assert words in error.message(), f"'{words}' is not in: {error.message()}"
        return
    raise AssertionError(f"nothing was refused where {words} was expected")


def eventually(look, what):
    until = time.monotonic() + 20
    while not look():
        assert time.monotonic() < until, what


def as_dict(answer):
    if isinstance(answer, (dict, list)):
        return answer
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True)


def about():
    assert client.is_server_live() and client.is_server_ready()
    server = as_dict(client.get_server_metadata())
    assert server["name"] == "motet" and server["version"], server
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(server["extensions"]), server
    eventually(lambda: client.is_model_ready("classifier"), "the classifier is ready")
    assert client.is_model_ready("classifier", "3")
    assert not client.is_model_ready("classifier", "4")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("../x")
    for version in ("", "3"):
        model = as_dict(client.get_model_metadata("classifier", version))
        assert (model["name"], model["versions"], model["platform"]) == ("classifier", ["3"], "motet_burn"), model
        assert [(i["name"], i["datatype"], [int(n) for n in i["shape"]]) for i in model["inputs"]] == [
            ("text", "BYTES", [-1])
        ], model
        outputs = {o["name"]: (o["datatype"], [int(n) for n in o["shape"]]) for o in model["outputs"]}
        assert outputs == {"label": ("BYTES", [-1]), "score": ("FP32", [-1]), "scores": ("FP32", [-1, 10])}, outputs
        config = as_dict(client.get_model_config("classifier", version))
        config = config if OVER_HTTP else config["config"]
        assert (config["name"], config["backend"], config["max_batch_size"]) == ("classifier", "burn", 64), config
        assert config["input"][0]["data_type"] == "TYPE_STRING", config
        assert [int(n) for n in config["output"][2]["dims"]] == [10], config
        assert config["instance_group"][0]["kind"] == "KIND_CPU", config
    for call in (client.get_model_metadata, client.get_model_config, client.get_inference_statistics):
        refused(lambda: call("nobody"), 404, "NOT_FOUND", "nobody")
        refused(lambda: call("classifier", "9"), 404, "NOT_FOUND", "served in version '3', not '9'")
    headers = {"motet-namespace": "elsewhere"}
    refused(lambda: client.get_model_metadata("classifier", headers=headers), 404, "NOT_FOUND", "elsewhere")


def calls():
    for binary_in in (True, False):
        for binary_out in (True, False):
            outputs = [wanted("scores", binary_out), wanted("label", binary_out)]
            answer = client.infer(
                "classifier", [texts("I want a refund", "reset my password", binary=binary_in)], "3", outputs, "call-7"
            )
            scores, label = answer.as_numpy("scores"), answer.as_numpy("label")
            assert scores.shape == (2, 10) and scores.dtype == np.float32, scores
            assert np.allclose(scores.sum(axis=1), 1, atol=1e-4), scores
            assert label.shape == (2,) and all(bytes(text) if isinstance(text, bytes) else text for text in label)
            told = as_dict(answer.get_response())
            assert (told["model_name"], told["model_version"], told["id"]) == ("classifier", "3", "call-7"), told
            assert [output["name"] for output in told["outputs"]] == ["scores", "label"], told
            assert answer.as_numpy("score") is None
    answer = client.infer("classifier", [texts("I want a refund")])
    best = answer.as_numpy("scores").argmax()
    assert answer.as_numpy("score")[0] == answer.as_numpy("scores")[0][best]
    label = answer.as_numpy("label")[0]
    classes = client.infer("classifier", [texts("a", "I want a refund")], outputs=[wanted("scores", True, 3)])
    told = classes.as_numpy("scores")
    assert told.shape == (2, 3), told
    score, index, name = told[1][0].decode().split(":")
    assert (int(index), name) == (best, label.decode()), told
    assert abs(float(score) - answer.as_numpy("score")[0]) < 1e-5, told
    odd = [b"\x00\xff", b"", "ä\u20ac".encode(), b"x" * 10_000]
    back = client.infer("echo", [texts(*odd[1:])]).as_numpy("text")
    assert list(back) == odd[1:], back
    if OVER_HTTP:
        answers = [
            client.infer("large", [texts("a")], request_compression_algorithm=r, response_compression_algorithm=a)
            for r in (None, "gzip", "deflate")
            for a in (None, "gzip", "deflate")
        ]
    else:
        answers = [client.infer("large", [texts("a")], compression_algorithm=c) for c in (None, "gzip")]
    assert all(len(answer.as_numpy("text")[0]) == 300_000 for answer in answers)
    extra = {"priority": 1, "sequence_id": 5, "sequence_start": True, "parameters": {"own": "x"}, "timeout": 20_000_000}
    assert client.infer("echo", [texts("a")], **extra).as_numpy("text")[0] == b"a"
    big = [("%d" % number) * 50 for number in range(2000)]
    assert list(client.infer("echo", [texts(*big)]).as_numpy("text")) == [text.encode() for text in big]


def batches():
    client.infer("echo", [texts("first")])
    before = as_dict(client.get_inference_statistics("echo"))["model_stats"][0]
    if OVER_HTTP:
        waiting = [client.async_infer("echo", [texts("a", "b")]) for _ in range(12)]
        answers = [call.get_result() for call in waiting]
    else:
        done = queue.Queue()
        for _ in range(12):
            client.async_infer("echo", [texts("a", "b")], lambda result, error: done.put(error or result))
        answers = [done.get(timeout=20) for _ in range(12)]
    assert all(list(answer.as_numpy("text")) == [b"a", b"b"] for answer in answers)
    assert all(answer.as_numpy("vector").shape == (2, 4) for answer in answers)
    after = as_dict(client.get_inference_statistics("echo", "3"))["model_stats"][0]
    rows = int(after["inference_count"]) - int(before["inference_count"])
    runs = int(after["execution_count"]) - int(before["execution_count"])
    assert rows == 24 and runs < 12, (before, after)
    success = after["inference_stats"]["success"]
    assert int(success["count"]) >= 13 and int(success["ns"]) > 0, after
    assert abs(int(after["last_inference"]) / 1000 - time.time()) < 60, after
    every = as_dict(client.get_inference_statistics())["model_stats"]
    assert {"echo", "slow"} <= {model["name"] for model in every}, every
    failing = as_dict(client.get_inference_statistics("failing"))["model_stats"][0]
    refused(lambda: client.infer("failing", [texts("a")]), 503, "UNAVAILABLE", "")
    counted = as_dict(client.get_inference_statistics("failing"))["model_stats"][0]
    count = lambda told: int(told["inference_stats"].get("fail", {}).get("count", 0))
    assert count(counted) == count(failing) + 1, counted


def errors():
    infer = client.infer
    bad = (400, "INVALID_ARGUMENT")
    refused(lambda: infer("nobody", [texts("a")]), 404, "NOT_FOUND", "nobody")
    refused(lambda: infer("echo", [texts("a")], "7"), 404, "NOT_FOUND", "served in version '3'")
    refused(lambda: infer("no such name!", [texts("a")]), 404, "NOT_FOUND", "does not exist")
    refused(lambda: infer("echo", [texts("a", name="txt")]), *bad, "no input 'txt'; its inputs are: text")
    refused(lambda: infer("echo", []), *bad, "input 'text' is missing")
    refused(lambda: infer("echo", [texts("a"), texts("b")]), *bad, "stands twice")
    number = triton.InferInput("text", [1], "FP32")
    number.set_data_from_numpy(np.array([1], dtype=np.float32))
    refused(lambda: infer("echo", [number]), *bad, "is FP32 where the model takes BYTES")
    matrix = triton.InferInput("text", [1, 1], "BYTES")
    matrix.set_data_from_numpy(np.array([["a"]], dtype=np.object_))
    refused(lambda: infer("echo", [matrix]), *bad, "has the shape [1, 1] where the model takes [-1]")
    none = triton.InferInput("text", [0], "BYTES")
    none.set_data_from_numpy(np.array([], dtype=np.object_))
    refused(lambda: infer("echo", [none]), *bad, "input 'text'")
    refused(lambda: infer("echo", [texts("a")], outputs=[wanted("tex")]), *bad, "no output 'tex'; its outputs are: text")
    twice = [wanted("text"), wanted("text")]
    refused(lambda: infer("echo", [texts("a")], outputs=twice), *bad, "asked for twice")
    refused(lambda: infer("echo", [texts("a")], outputs=[wanted("text", True, 2)]), *bad, "no classification")
    shared = triton.InferInput("text", [1], "BYTES")
    shared.set_shared_memory("region", 8)
    refused(lambda: infer("echo", [shared]), *bad, "shared memory")
    huge = texts("x" * 9_000_000)
    if OVER_HTTP:
        refused(lambda: infer("echo", [huge]), 413, "", "http.max_body_bytes")
        refused(lambda: infer("echo", [huge], request_compression_algorithm="gzip"), 413, "", "decompressed")
    else:
        try:
            infer("echo", [huge])
            raise AssertionError("a message of 9 MB was taken")
        except InferenceServerException as error:
            assert error.status() in ("StatusCode.OUT_OF_RANGE", "StatusCode.RESOURCE_EXHAUSTED"), error
        refused(lambda: client.get_system_shared_memory_status(), 0, "UNIMPLEMENTED", "")
    assert infer("echo", [texts("still there")]).as_numpy("text")[0] == b"still there"


def limits():
    for model in ("slow", "late"):
        eventually(lambda: client.is_model_ready(model), f"{model} is ready")
    refused(lambda: client.infer("late", [texts("a")], timeout=50_000), 504, "DEADLINE_EXCEEDED", "")
    if not OVER_HTTP:
        refused(lambda: client.infer("late", [texts("a")], client_timeout=0.05), 0, "DEADLINE_EXCEEDED", "")
    errors, answered = [], []

    def call():
        try:
            answered.append(connect().infer("slow", [texts("a")]))
        except InferenceServerException as error:
            errors.append(error)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    expected = "503" if OVER_HTTP else "StatusCode.RESOURCE_EXHAUSTED"
    assert errors and {error.status() for error in errors} == {expected}, errors
    assert "queue of model 'slow' is full" in errors[0].message(), errors[0]


def states():
    index = as_dict(client.get_model_repository_index())
    models = index if OVER_HTTP else index["models"]
    return {model["name"]: model for model in models}


def repository():
    client.load_model("echo")
    assert client.is_model_ready("echo")
    index = states()
    assert set(index) == {"classifier", "echo", "slow", "late", "large", "failing", "broken"}, index
    assert (index["echo"]["state"], index["echo"]["version"]) == ("READY", "3"), index
    assert index["broken"]["state"] in ("LOADING", "UNAVAILABLE"), index
    refused(lambda: client.load_model("broken"), 400, "INVALID_ARGUMENT", "the load failed: model 'broken' is not ready: ")
    refused(lambda: client.infer("broken", [texts("a")]), 503, "UNAVAILABLE", "model 'broken' is not ready: ")
    assert states()["broken"]["state"] == "UNAVAILABLE" and states()["broken"]["reason"], states()
    refused(lambda: client.load_model("nobody"), 404, "NOT_FOUND", "nobody")
    refused(lambda: client.unload_model("nobody"), 404, "NOT_FOUND", "nobody")
    refused(lambda: client.load_model("echo", config="{}"), 400, "INVALID_ARGUMENT", "put the model's definition")
    refused(
        lambda: client.load_model("echo", config="{}", files={"file:1/m": b"x"}), 400, "INVALID_ARGUMENT", "definition"
    )
    client.unload_model("echo")
    assert not client.is_model_ready("echo")
    assert states()["echo"]["state"] == "UNAVAILABLE"
    assert not client.is_model_ready("echo")
    assert client.infer("echo", [texts("a")]).as_numpy("text")[0] == b"a"
    assert client.is_model_ready("echo")
    client.unload_model("echo", unload_dependents=True)
    client.load_model("echo")
    assert client.is_model_ready("echo")


def waits():
    eventually(lambda: client.is_model_ready("classifier"), "the classifier is ready")
    assert client.infer("classifier", [texts("a")]).as_numpy("score").shape == (1,)


def elsewhere():
    client.load_model("echo")
    eventually(lambda: client.is_model_ready("echo"), "the front hears that the model is ready")
    model = as_dict(client.get_model_metadata("echo"))
    assert [output["name"] for output in model["outputs"]] == ["text", "vector"], model
    answer = client.infer("echo", [texts("a", "b")])
    assert list(answer.as_numpy("text")) == [b"a", b"b"] and answer.as_numpy("vector").shape == (2, 4)
    refused(lambda: client.infer("echo", [texts("a", name="x")]), 400, "INVALID_ARGUMENT", "no input 'x'")
    assert states()["echo"]["state"] == "READY"
    client.unload_model("echo")
    eventually(lambda: not client.is_model_ready("echo"), "the front hears that the model is unloaded")
    assert client.infer("echo", [texts("c")]).as_numpy("text")[0] == b"c"


def send(method, path, body=b"", headers=None):
    request = urllib.request.Request(f"http://{HTTP}{path}", data=body if method == "POST" else None, method=method)
    request.remove_header("Content-type")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def bodies():
    call = json.dumps({"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": [["a"], ["b"]]}]}).encode()
    status, headers, body = send("POST", "/v2/models/echo/infer", call)
    headers = {name.lower(): value for name, value in headers.items()}
    assert status == 200 and headers["content-type"] == "application/json", (status, headers)
    assert "inference-header-content-length" not in headers, headers
    outputs = {output["name"]: output for output in json.loads(body)["outputs"]}
    assert outputs["text"]["data"] == ["a", "b"] and len(outputs["vector"]["data"]) == 8, outputs
    for packed, encoding in ((gzip.compress(call), "gzip"), (zlib.compress(call), "deflate")):
        status, _, same = send("POST", "/v2/models/echo/infer", packed, {"Content-Encoding": encoding})
        assert status == 200 and same == body, (status, same)
    mixed = json.loads(call)
    mixed["outputs"] = [{"name": "vector", "parameters": {"binary_data": True}}, {"name": "text"}]
    status, headers, body = send("POST", "/v2/models/echo/versions/3/infer", json.dumps(mixed).encode())
    length = int({name.lower(): value for name, value in headers.items()}["inference-header-content-length"])
    told = json.loads(body[:length])
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 32} and len(body) == length + 32, told
    assert told["outputs"][1]["data"] == ["a", "b"], told
    assert send("GET", "/v2/health/live")[2] == b"" and send("GET", "/v2/health/ready")[::2] == (200, b"")
    assert isinstance(json.loads(send("POST", "/v2/repository/index")[2]), list)
    ready = json.loads(send("POST", "/v2/repository/index", b'{"ready":true}')[2])
    assert all(model["state"] == "READY" for model in ready), ready
    raw = b'{"inputs":[{"name":"text","shape":[%d],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}'
    infer = "/v2/models/echo/infer"
    for expected, method, path, body, headers in (
        (404, "GET", "/v2/nothing", b"", {}),
        (405, "GET", infer, b"", {}),
        (400, "POST", infer, b"", {}),
        (400, "POST", infer, b"{", {}),
        (400, "POST", infer, b"\xff\xfe", {}),
        (400, "POST", infer, call, {"Inference-Header-Content-Length": "x"}),
        (400, "POST", infer, call, {"Inference-Header-Content-Length": str(len(call) + 1)}),
        (400, "POST", infer, call, {"Inference-Header-Content-Length": str(2**64)}),
        (400, "POST", infer, raw % (1, 8), {}),
        (400, "POST", infer, raw % (2**63 - 1, 0), {}),
        (400, "POST", infer, raw % (-1, 0), {}),
        (400, "POST", infer, b"not gzip", {"Content-Encoding": "gzip"}),
        (415, "POST", infer, call, {"Content-Encoding": "br"}),
        (413, "POST", infer, gzip.compress(b" " * 20_000_000), {"Content-Encoding": "gzip"}),
        (400, "GET", "/v2/models/echo", b"", {"motet-namespace": "no such name!"}),
        (400, "POST", "/v2/repository/index", b"[", {}),
    ):
        status, answered, told = send(method, path, body, headers)
        assert status == expected, (expected, status, method, path, told)
        error = json.loads(told)
        assert list(error) == ["error"] and error["error"], told


def stream():
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(40):
        client.async_stream_infer("echo" if number != 5 else "nobody", [texts(f"t{number}")], request_id=str(number))
    for number in range(40):
        result, error = answers.get(timeout=20)
        if number == 5:
            assert error is not None and "nobody" in str(error), error
        else:
            assert error is None, error
            told = result.get_response()
            assert (told.id, result.as_numpy("text")[0]) == (str(number), b"t%d" % number), told
    client.async_stream_infer("echo", [texts("last")], request_id="f", enable_empty_final_response=True)
    first, last = (answers.get(timeout=20)[0].get_response() for _ in range(2))
    assert len(first.outputs) == 1 + 1 and "triton_final_response" not in first.parameters, first
    assert last.id == "f" and not last.outputs and last.parameters["triton_final_response"].bool_param, last
    client.stop_stream()
    client.start_stream(lambda result, error: answers.put((result, error)), compression_algorithm="gzip")
    client.async_stream_infer("large", [texts("a")])
    assert len(answers.get(timeout=20)[0].as_numpy("text")[0]) == 300_000
    client.stop_stream()


def held():
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("echo", [texts("a")])
    assert answers.get(timeout=20)[1] is None
    print("open", flush=True)
    sys.stdin.read()


def typed():
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc import service_pb2_grpc as service

    stub = service.GRPCInferenceServiceStub(grpc.insecure_channel(GRPC))
    request = messages.ModelInferRequest(model_name="echo", id="7")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend([b"a", b"bc"])
    answer = stub.ModelInfer(request)
    assert answer.raw_output_contents[0] == b"\x01\0\0\0a\x02\0\0\0bc" and answer.id == "7", answer
    assert len(answer.raw_output_contents) == len(answer.outputs) == 2, answer
    assert not any(output.HasField("contents") for output in answer.outputs), answer

    def invalid(change, words):
        bad = messages.ModelInferRequest()
        bad.CopyFrom(request)
        change(bad)
        try:
            stub.ModelInfer(bad)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and words in error.details(), error
            return
        raise AssertionError(f"nothing was refused where {words} was expected")

    invalid(lambda bad: bad.raw_input_contents.append(b"\x01\0\0\0a"), "has contents beside raw_input_contents")
    invalid(lambda bad: bad.raw_input_contents.extend([b"", b""]), "2 raw_input_contents for 1 inputs")
    invalid(lambda bad: bad.inputs[0].shape.append(7), "BYTES")
    invalid(lambda bad: bad.inputs[0].contents.fp32_contents.append(1), "go into bytes_contents, not fp32_contents")
    invalid(lambda bad: setattr(bad.inputs[0], "datatype", "TEXT"), "")
    invalid(lambda bad: bad.inputs[0].shape.extend([2**62, 2**62]), "more elements than can be counted")


globals()[PART]()
