"""tritonclient[http]: each call that its synchronous and its asyncio client both make, over both."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from known import Arrays, Known, assert_same
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Client = Any
DATATYPES = ["bool", *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)), "fp16", "fp32"]
DATATYPES += ["fp64", "bytes"]


class Bearer(triton.InferenceServerClientPlugin):
    """Puts a token on every call, the way tritonclient means it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> None:
        request.headers["authorization"] = f"Bearer {self._token}"


class Awaited:
    """The asyncio client with each of its calls awaited, so that one suite runs over both."""

    def __init__(self, host: str) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._open(host))

    async def _open(self, host: str) -> Client:
        return triton_aio.InferenceServerClient(host)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if not inspect.iscoroutinefunction(call):
            return call
        return lambda *args, **options: self._runner.run(call(*args, **options))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(scope="module", params=[triton.InferenceServerClient, Awaited], ids=["sync", "asyncio"])
def anonymous(request: pytest.FixtureRequest, host: str) -> Iterator[Client]:
    client = request.param(host)
    yield client
    client.close()


@pytest.fixture
def client(anonymous: Client, token: str) -> Iterator[Client]:
    anonymous.register_plugin(Bearer(token))
    yield anonymous
    anonymous.unregister_plugin()


def inputs_of(arrays: Arrays, binary: bool = True) -> list[triton.InferInput]:
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        inputs.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return inputs


def check(known: Known, result: triton.InferResult) -> None:
    """Fails unless the result holds every known output and no other."""
    assert list(known.outputs) == [output["name"] for output in result.get_response()["outputs"]]
    for name, expected in known.outputs.items():
        assert_same(expected, result.as_numpy(name))


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """Returns the status and sentence of the error that a call raises."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value.status()), caught.value.message()


# Health, metadata, repository


def test_server_is_live_and_ready(client: Client) -> None:
    """A running server says that it lives and is ready."""
    assert (True, True) == (client.is_server_live(), client.is_server_ready())


@pytest.mark.parametrize(
    ("model", "version", "ready"),
    [
        ("flight", "", True),
        ("flight", "2", True),
        ("flight", "9", False),
        ("nowhere", "", False),
        ("../flight", "", False),
    ],
)
def test_model_is_ready(client: Client, model: str, version: str, ready: bool) -> None:
    """A model or version is ready exactly when it can answer."""
    assert ready is client.is_model_ready(model, version)


def test_server_metadata(client: Client) -> None:
    """The server names itself and the extensions it has."""
    metadata = client.get_server_metadata()

    assert "tiltyard" == metadata["name"]
    assert {"binary_tensor_data", "model_configuration", "model_repository", "statistics"} <= {*metadata["extensions"]}


@pytest.mark.parametrize("version", ["", "2"])
def test_model_metadata(client: Client, version: str) -> None:
    """A model's metadata names its versions and each tensor with datatype and shape."""
    metadata = client.get_model_metadata("flight", version)

    assert ("flight", ["1", "2"]) == (metadata["name"], metadata["versions"])
    assert [
        {"name": "carrier", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "temp", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "hour", "datatype": "INT64", "shape": [-1, 1]},
        {"name": "distance", "datatype": "FP32", "shape": [-1, 1]},
    ] == metadata["inputs"]
    assert [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
    ] == metadata["outputs"]


def test_metadata_of_images(client: Client) -> None:
    """Free dimensions of any rank are -1 in the metadata."""
    metadata = client.get_model_metadata("image")

    assert [[-1, -1, -1, 3], [3]] == [tensor["shape"] for tensor in metadata["inputs"]]
    assert [[-1, 3], [-1, 3, -1, -1]] == [tensor["shape"] for tensor in metadata["outputs"]]


@pytest.mark.parametrize("version", ["", "1"])
def test_model_config(client: Client, version: str) -> None:
    """The configuration names each tensor with Triton's word for its type, without the batch's dimension."""
    config = client.get_model_config("flight", version)

    assert "flight" == config["name"]
    assert config["max_batch_size"] > 1
    assert [("carrier", "TYPE_STRING", [1]), ("temp", "TYPE_FP32", [1])] == [
        (tensor["name"], tensor["data_type"], tensor["dims"]) for tensor in config["input"][:2]
    ]
    assert [("label", "TYPE_INT64"), ("probabilities", "TYPE_FP32")] == [
        (tensor["name"], tensor["data_type"]) for tensor in config["output"]
    ]


def test_repository_index(client: Client) -> None:
    """The index holds every version with its state."""
    index = client.get_model_repository_index()

    states = {(entry["name"], entry["version"]): entry["state"] for entry in index}
    assert {"flight", "grid", "delay", "echo", "image", "spare", "text"} == {name for name, _ in states}
    assert ("READY", "READY") == (states["flight", "1"], states["flight", "2"])


def test_unload_and_load(client: Client, known: Callable[[str], Known]) -> None:
    """An unloaded model answers 404 until it is loaded; then it answers as before."""
    spare = known("spare-1")
    client.unload_model("spare", unload_dependents=True)

    assert not client.is_model_ready("spare")
    assert "404" == refused(lambda: client.infer("spare", inputs_of(spare.inputs)))[0]

    client.load_model("spare")

    assert client.is_model_ready("spare")
    check(spare, client.infer("spare", inputs_of(spare.inputs)))


def test_load_what_is_loaded(client: Client) -> None:
    """Loading a model that serves already changes nothing and fails nothing."""
    client.load_model("spare")

    assert client.is_model_ready("spare")


def test_load_and_unload_of_unknown_models(client: Client) -> None:
    """Loading or unloading a model that is nowhere answers 404 and names it."""
    for call in (client.load_model, client.unload_model):
        status, message = refused(lambda call=call: call("nowhere"))

        assert "404" == status
        assert "'nowhere'" in message


def test_unload_what_a_route_names(client: Client) -> None:
    """A model whose route document names its versions cannot be unloaded, and still answers."""
    status, message = refused(lambda: client.unload_model("flight"))

    assert "409" == status
    assert "route" in message
    assert client.is_model_ready("flight")


@pytest.mark.parametrize(
    "options",
    [{"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"onnx"}}],
    ids=["config", "files"],
)
def test_load_from_the_request(client: Client, options: dict[str, Any]) -> None:
    """A model that comes in the request itself is refused with a sentence: bundles come from the repository."""
    if "files" in options:
        options = {**options, "files": dict(options["files"])}
    status, message = refused(lambda: client.load_model("spare", **options))

    assert "400" == status
    assert "expected a bundle of the repository" in message


def test_statistics(client: Client, known: Callable[[str], Known]) -> None:
    """Statistics of a model, a version and all models count the rows that were scored."""
    grid = known("grid-1")

    def counted(*of: str) -> int:
        stats = client.get_inference_statistics(*of)["model_stats"]
        [found] = [each for each in stats if each["name"] == "grid"]
        assert "1" == found["version"]
        return int(found["inference_count"])

    before = [counted(), counted("grid"), counted("grid", "1")]
    client.infer("grid", inputs_of(grid.inputs))
    after = [counted(), counted("grid"), counted("grid", "1")]

    rows = len(grid.inputs["input"])
    assert [count + rows for count in before] == after
    assert len({*after}) == 1


# Inference


@pytest.mark.parametrize("answer", ["binary", "json"])
@pytest.mark.parametrize("request_as", ["binary", "json"])
@pytest.mark.parametrize("model", ["flight", "grid", "delay"])
def test_tables(client: Client, known: Callable[[str], Known], model: str, request_as: str, answer: str) -> None:
    """Tables answer what onnxruntime answers, with tensors as binary or JSON, both ways."""
    expected = known(f"{model}-1")
    outputs = [triton.InferRequestedOutput(name, binary_data=answer == "binary") for name in expected.outputs]

    result = client.infer(model, inputs_of(expected.inputs, binary=request_as == "binary"), outputs=outputs)

    check(expected, result)
    assert all(("data" in output) is (answer == "json") for output in result.get_response()["outputs"])
    assert (model, "1") == (result.get_response()["model_name"], result.get_response()["model_version"])


def test_outputs_are_binary_by_default(client: Client, known: Callable[[str], Known]) -> None:
    """Without a word about outputs tritonclient asks for all of them in binary, and gets them so."""
    flight = known("flight-1")

    result = client.infer("flight", inputs_of(flight.inputs))

    check(flight, result)
    assert all(output["parameters"]["binary_data_size"] > 0 for output in result.get_response()["outputs"])


@pytest.mark.parametrize("answer", ["binary", "json"])
@pytest.mark.parametrize("request_as", ["binary", "json"])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_datatypes(client: Client, known: Callable[[str], Known], datatype: str, request_as: str, answer: str) -> None:
    """A tensor of every datatype comes back as it went, the edges of its range included; FP16 is binary only."""
    echo = known("echo-1")
    inputs = inputs_of({name: array for name, array in echo.inputs.items() if name != datatype})
    inputs += inputs_of({datatype: echo.inputs[datatype]}, binary=request_as == "binary")
    outputs = [triton.InferRequestedOutput(f"{datatype}_out", binary_data=answer == "binary")]

    if datatype == "fp16" and "json" in (request_as, answer):
        status, message = refused(lambda: client.infer("echo", inputs, outputs=outputs))
        assert "400" == status
        assert "FP16" in message
        return
    result = client.infer("echo", inputs, outputs=outputs)

    assert [f"{datatype}_out"] == [output["name"] for output in result.get_response()["outputs"]]
    got = result.as_numpy(f"{datatype}_out")
    if echo.inputs[datatype].dtype == object:
        assert_same(echo.inputs[datatype], got)
    else:
        np.testing.assert_array_equal(got, echo.inputs[datatype], strict=True)


def test_binary_and_json_mixed(client: Client, known: Callable[[str], Known]) -> None:
    """In one request some inputs and outputs are binary and the others JSON, in any order."""
    echo = known("echo-1")
    inputs = [
        *inputs_of({"fp16": echo.inputs["fp16"]}),
        *(
            tensor
            for index, (name, array) in enumerate(reversed(echo.inputs.items()))
            if name != "fp16"
            for tensor in inputs_of({name: array}, binary=index % 2 == 0)
        ),
    ]
    names = ["int8_out", "fp16_out", "bytes_out", "fp64_out", "bool_out"]
    outputs = [triton.InferRequestedOutput(name, binary_data=name not in ("int8_out", "fp64_out")) for name in names]

    result = client.infer("echo", inputs, outputs=outputs)

    assert names == [output["name"] for output in result.get_response()["outputs"]]
    for name in names:
        assert_same(echo.outputs[name], result.as_numpy(name))


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("size", ["small", "wide"])
def test_images(client: Client, known: Callable[[str], Known], size: str, binary: bool) -> None:
    """Images of two sizes go through one model: four dimensions, three of them free, and a second input."""
    image = known(f"image-{size}")

    result = client.infer("image", inputs_of(image.inputs, binary=binary))

    check(image, result)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_zero_rows(client: Client, known: Callable[[str], Known], binary: bool) -> None:
    """No rows in are no rows out."""
    inputs = {name: array[:0] for name, array in known("flight-1").inputs.items()}
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]

    result = client.infer("flight", inputs_of(inputs, binary=binary), outputs=outputs)

    assert ((0,), (0, 2)) == (result.as_numpy("label").shape, result.as_numpy("probabilities").shape)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_many_rows(client: Client, known: Callable[[str], Known], binary: bool) -> None:
    """Twenty thousand rows in one request answer what the same rows answer a few at a time."""
    grid = known("grid-1")
    times = 20_000 // len(grid.inputs["input"])

    result = client.infer("grid", inputs_of({"input": np.tile(grid.inputs["input"], (times, 1))}, binary=binary))

    assert_same(np.tile(grid.outputs["probabilities"], (times, 1)), result.as_numpy("probabilities"))


def test_selected_outputs(client: Client, known: Callable[[str], Known]) -> None:
    """The outputs a client names are the ones it gets, in its order."""
    flight = known("flight-1")
    inputs = inputs_of(flight.inputs)
    both = [triton.InferRequestedOutput("probabilities", binary_data=False), triton.InferRequestedOutput("label")]

    one = client.infer("flight", inputs, outputs=both[:1])
    reordered = client.infer("flight", inputs, outputs=both)

    assert (None, None) == (one.get_output("label"), one.as_numpy("label"))
    assert_same(flight.outputs["probabilities"], one.as_numpy("probabilities"))
    assert ["probabilities", "label"] == [output["name"] for output in reordered.get_response()["outputs"]]
    for name, expected in flight.outputs.items():
        assert_same(expected, reordered.as_numpy(name))


@pytest.mark.parametrize("version", ["1", "2"])
def test_versions(client: Client, known: Callable[[str], Known], version: str) -> None:
    """The version a client names is the one that answers."""
    expected = known(f"flight-{version}")

    result = client.infer("flight", inputs_of(expected.inputs), model_version=version)

    check(expected, result)
    assert version == result.get_response()["model_version"]


def test_request_ids(client: Client, known: Callable[[str], Known]) -> None:
    """A request's id comes back; a request without one is given one, another each time."""
    inputs = inputs_of(known("grid-1").inputs)

    assert "my request/1" == client.infer("grid", inputs, request_id="my request/1").get_response()["id"]
    given = {client.infer("grid", inputs).get_response()["id"] for _ in range(2)}
    assert 2 == len(given)
    assert all(given)


def test_parameters(client: Client, known: Callable[[str], Known]) -> None:
    """Parameters that mean nothing here, sequences and priority among them, do no harm."""
    grid = known("grid-1")

    result = client.infer(
        "grid",
        inputs_of(grid.inputs),
        parameters={"customer": "c-1", "weight": 0.5, "count": 3, "flag": True},
        sequence_id=7,
        sequence_start=True,
        sequence_end=True,
        priority=2,
        query_params={"a": ["1", "2"], "b": "3"},
        headers={"x-customer": "c-1"},
    )

    check(grid, result)


def test_timeout(client: Client, known: Callable[[str], Known]) -> None:
    """A timeout of a minute lets a request pass; one of a microsecond is over before execution: 504."""
    grid = known("grid-1")
    inputs = inputs_of(grid.inputs)

    check(grid, client.infer("grid", inputs, timeout=60_000_000))
    assert "504" == refused(lambda: client.infer("grid", inputs, timeout=1))[0]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("answer", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_as", [None, "gzip", "deflate"])
def test_compression(
    client: Client, known: Callable[[str], Known], request_as: str | None, answer: str | None, binary: bool
) -> None:
    """Requests and answers compressed either way, or not at all, carry the same tensors."""
    image = known("image-wide")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in image.outputs]

    result = client.infer(
        "image",
        inputs_of(image.inputs, binary=binary),
        outputs=outputs,
        request_compression_algorithm=request_as,
        response_compression_algorithm=answer,
    )

    check(image, result)


@pytest.mark.parametrize("answer", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_bodies_by_hand(
    client: Client, host: str, token: str, known: Callable[[str], Known], binary: bool, answer: str
) -> None:
    """A body that tritonclient only makes, posted by other means, gets an answer that tritonclient only reads."""
    image = known("image-wide")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in image.outputs]
    body, header_length = client.generate_request_body(inputs_of(image.inputs, binary=binary), outputs=outputs)
    headers = {"authorization": f"Bearer {token}", "accept-encoding": answer}
    if header_length is not None:
        headers["inference-header-content-length"] = str(header_length)

    connection = HTTPConnection(host, timeout=30)
    connection.request("POST", "/v2/models/image/infer", body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()

    length = response.headers["inference-header-content-length"]
    assert (200, answer, binary) == (response.status, response.headers["content-encoding"], length is not None)
    check(
        image,
        client.parse_response_body(
            content, header_length=None if length is None else int(length), content_encoding=answer
        ),
    )


def test_missing_values(client: Client, known: Callable[[str], Known]) -> None:
    """NaN means missing, as binary and as the bare NaN of tritonclient's JSON, where the model allows it."""
    missing = known("flight-missing")
    assert np.isnan(missing.inputs["temp"]).any()

    for binary in (True, False):
        check(missing, client.infer("flight", inputs_of(missing.inputs, binary=binary)))


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize(("column", "value"), [("distance", np.nan), ("distance", np.inf), ("temp", -np.inf)])
def test_values_that_are_no_numbers(
    client: Client, known: Callable[[str], Known], column: str, value: float, binary: bool
) -> None:
    """NaN where the model allows no missing value, and infinities everywhere, are refused by name."""
    inputs = known("flight-1").inputs
    spoilt = inputs[column].copy()
    spoilt[0, 0] = value

    status, message = refused(lambda: client.infer("flight", inputs_of({**inputs, column: spoilt}, binary=binary)))

    assert "400" == status
    # An infinity makes the whole body no JSON: it is then named itself, not its input.
    assert ("Infinity" if np.isinf(value) and not binary else column) in message


# Refusals


def test_refused_requests(client: Client, known: Callable[[str], Known]) -> None:
    """What cannot be answered raises tritonclient's own exception, with a status and a sentence that says why."""
    flight = known("flight-1").inputs
    grid = known("grid-1").inputs["input"]
    few = {name: array[:1] for name, array in flight.items()}
    classes = [triton.InferRequestedOutput("probabilities", class_count=2)]
    unknown = [triton.InferRequestedOutput("logits")]
    remote = triton.InferInput("input", [1, 2], "FP32")
    remote.set_shared_memory("region", 8)
    cases: list[tuple[str, str, Callable[[], object]]] = [
        ("404", "'nowhere'", lambda: client.infer("nowhere", inputs_of(flight))),
        ("404", "'9'", lambda: client.infer("flight", inputs_of(flight), model_version="9")),
        ("404", "'nowhere'", lambda: client.get_model_metadata("nowhere")),
        ("404", "'nowhere'", lambda: client.get_model_config("nowhere")),
        ("404", "'nowhere'", lambda: client.get_inference_statistics("nowhere")),
        ("400", "[-1, 2]", lambda: client.infer("grid", inputs_of({"input": grid[:, :1]}))),
        ("400", "'input'", lambda: client.infer("grid", inputs_of({"input": grid.astype(str).astype(object)}))),
        ("400", "'other'", lambda: client.infer("grid", inputs_of({"other": grid}))),
        ("400", "'distance'", lambda: client.infer("flight", inputs_of({k: flight[k] for k in list(flight)[:3]}))),
        ("400", "'hour'", lambda: client.infer("flight", inputs_of({**flight, "hour": few["hour"]}))),
        ("400", "'logits'", lambda: client.infer("flight", inputs_of(flight), outputs=unknown)),
        ("400", "classification", lambda: client.infer("flight", inputs_of(flight), outputs=classes)),
        ("400", "shared", lambda: client.infer("grid", [remote])),
    ]
    for expected_status, expected_words, call in cases:
        status, message = refused(call)

        assert (expected_status, True) == (status, expected_words in message), message
        assert "exception occurred in the client" not in message


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("get_trace_settings", []),
        ("get_trace_settings", ["flight"]),
        ("update_trace_settings", ["flight", {"trace_level": ["TIMESTAMPS"]}]),
        ("get_log_settings", []),
        ("update_log_settings", [{"log_verbose_level": 1}]),
        ("get_system_shared_memory_status", []),
        ("get_system_shared_memory_status", ["region"]),
        ("register_system_shared_memory", ["region", "/key", 8]),
        ("unregister_system_shared_memory", ["region"]),
        ("get_cuda_shared_memory_status", []),
        ("register_cuda_shared_memory", ["region", "aGFuZGxl", 0, 8]),
        ("unregister_cuda_shared_memory", []),
    ],
)
def test_unsupported_calls(client: Client, name: str, arguments: list[Any]) -> None:
    """Calls of Triton's extensions that are not here raise with a sentence that says so."""
    status, message = refused(lambda: getattr(client, name)(*arguments))

    assert "404" == status
    assert "extension is not supported" in message


def test_tokens(anonymous: Client, token: str, reader: str, known: Callable[[str], Known]) -> None:
    """Without a token nothing but health answers; a token counts for its scopes and comes as a header."""
    grid = known("grid-1")
    inputs = inputs_of(grid.inputs)

    def bearer(each: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {each}"}

    assert anonymous.is_server_live()
    assert "401" == refused(lambda: anonymous.infer("grid", inputs))[0]
    assert "401" == refused(lambda: anonymous.infer("grid", inputs, headers=bearer("wrong")))[0]
    check(grid, anonymous.infer("grid", inputs, headers=bearer(reader)))
    assert "403" == refused(lambda: anonymous.unload_model("spare", headers=bearer(reader)))[0]
    assert "grid" == anonymous.get_model_metadata("grid", headers=bearer(token))["name"]


# What only one of the two clients has


def test_greenlets(host: str, token: str, known: Callable[[str], Known]) -> None:
    """The synchronous client's requests in flight together each get their own answer."""
    grid = known("grid-1")
    client = triton.InferenceServerClient(host, concurrency=8)
    client.register_plugin(Bearer(token))

    waiting = [
        client.async_infer("grid", inputs_of({"input": grid.inputs["input"][row : row + 1]}), request_id=str(row))
        for row in range(len(grid.inputs["input"]))
    ]
    results = [each.get_result(timeout=30) for each in waiting]
    wrong = client.async_infer("nowhere", inputs_of(grid.inputs))

    assert [str(row) for row in range(len(results))] == [result.get_response()["id"] for result in results]
    assert_same(grid.outputs["probabilities"], np.concatenate([each.as_numpy("probabilities") for each in results]))
    assert "404" == refused(wrong.get_result)[0]
    client.close()


def test_gathered(host: str, token: str, known: Callable[[str], Known]) -> None:
    """The asyncio client's requests in flight together each get their own answer."""
    grid = known("grid-1")
    rows = [grid.inputs["input"][row : row + 1] for row in range(len(grid.inputs["input"]))]

    async def ask() -> list[triton.InferResult]:
        async with triton_aio.InferenceServerClient(host) as client:
            client.register_plugin(Bearer(token))
            return await asyncio.gather(*(client.infer("grid", inputs_of({"input": row})) for row in rows))

    results = asyncio.run(ask())

    assert_same(grid.outputs["probabilities"], np.concatenate([each.as_numpy("probabilities") for each in results]))
