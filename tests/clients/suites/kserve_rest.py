"""kserve.InferenceRESTClient: the V2 protocol as JSON and binary, and KServe's V1 protocol."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from known import Arrays, Known, assert_same
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import from_np_dtype

Run = Callable[[Awaitable[Any]], Any]
DATATYPES = ["bool", *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)), "fp16", "fp32"]
DATATYPES += ["fp64", "bytes"]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def url(host: str) -> str:
    return f"http://{host}"


def client_of(run: Run, protocol: str, token: str) -> Iterator[InferenceRESTClient]:
    def sign(request: httpx.Request) -> httpx.Request:
        request.headers["authorization"] = f"Bearer {token}"
        return request

    async def open_client() -> InferenceRESTClient:
        return InferenceRESTClient(RESTConfig(protocol=protocol, auth=sign))

    client = run(open_client())
    yield client
    run(client.close())


@pytest.fixture(scope="module")
def client(run: Run, token: str) -> Iterator[InferenceRESTClient]:
    yield from client_of(run, "v2", token)


@pytest.fixture(scope="module")
def v1(run: Run, token: str) -> Iterator[InferenceRESTClient]:
    yield from client_of(run, "v1", token)


def inputs_of(arrays: Arrays, binary: bool) -> list[InferInput]:
    inputs = []
    for name, array in arrays.items():
        tensor = InferInput(name, list(array.shape), from_np_dtype(array.dtype))
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return inputs


def check(known: Known, response: InferResponse) -> None:
    """Fails unless the response holds every known output and no other."""
    assert list(known.outputs) == [output.name for output in response.outputs]
    for name, expected in known.outputs.items():
        assert_same(expected, response.get_output_by_name(name).as_numpy())


def refused(run: Run, call: Awaitable[Any]) -> tuple[int, str]:
    """Returns the status and message of the error that a call raises."""
    with pytest.raises(httpx.HTTPStatusError) as caught:
        run(call)
    return caught.value.response.status_code, str(caught.value)


def test_health(run: Run, client: InferenceRESTClient, url: str) -> None:
    """The server says in its bodies, which this client reads, that it lives and is ready."""
    assert True is run(client.is_server_live(url))
    assert True is run(client.is_server_ready(url))


def test_model_is_ready(run: Run, client: InferenceRESTClient, url: str) -> None:
    """A model is ready when it can answer, and an unknown one is not."""
    assert True is run(client.is_model_ready(url, "flight"))
    assert False is run(client.is_model_ready(url, "nowhere"))


@pytest.mark.parametrize("answer", ["binary", "json"])
@pytest.mark.parametrize("request_as", ["binary", "json"])
@pytest.mark.parametrize("model", ["flight-1", "flight-missing", "grid-1", "delay-1", "image-small"])
def test_models(
    run: Run,
    client: InferenceRESTClient,
    url: str,
    known: Callable[[str], Known],
    model: str,
    request_as: str,
    answer: str,
) -> None:
    """Tables and images answer what onnxruntime answers, with tensors as binary or JSON, both ways."""
    expected = known(model)
    name = model.partition("-")[0]
    request = InferRequest(
        name,
        inputs_of(expected.inputs, binary=request_as == "binary"),
        request_id="mine",
        parameters={"binary_data_output": answer == "binary"},
    )

    response = run(client.infer(url, request, model_name=name))

    check(expected, response)
    assert ("mine", name) == (response.id, response.model_name)


@pytest.mark.parametrize("answer", ["binary", "json"])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_datatypes(
    run: Run, client: InferenceRESTClient, url: str, known: Callable[[str], Known], datatype: str, answer: str
) -> None:
    """A tensor of every datatype comes back as it went; FP16, which this client sends as binary only, as binary."""
    echo = known("echo-1")
    request = InferRequest(
        "echo",
        [
            tensor
            for name, array in echo.inputs.items()
            for tensor in inputs_of({name: array}, binary=name == "fp16" or answer == "binary")
        ],
        request_outputs=[RequestedOutput(f"{datatype}_out", {"binary_data": answer == "binary"})],
    )

    if (datatype, answer) == ("fp16", "json"):
        status, message = refused(run, client.infer(url, request, model_name="echo"))
        assert 400 == status
        assert "FP16" in message
        return
    response = run(client.infer(url, request, model_name="echo"))

    [output] = response.outputs
    assert_same(echo.outputs[f"{datatype}_out"], output.as_numpy())


def test_zero_rows(run: Run, client: InferenceRESTClient, url: str, known: Callable[[str], Known]) -> None:
    """No rows in are no rows out, even in the client's own form of an empty binary tensor: no data and no header."""
    empty = {name: array[:0] for name, array in known("grid-1").inputs.items()}
    for binary in (True, False):
        response = run(client.infer(url, InferRequest("grid", inputs_of(empty, binary=binary)), model_name="grid"))

        assert [[0], [0, 2]] == [output.shape for output in response.outputs]


def test_plain_dictionaries(run: Run, client: InferenceRESTClient, url: str, known: Callable[[str], Known]) -> None:
    """A request given as a dictionary, with the members that pydantic leaves null, is answered."""
    delay = known("delay-1")
    data = {
        "id": None,
        "parameters": None,
        "outputs": None,
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": from_np_dtype(array.dtype),
                "parameters": None,
                "data": array.tolist(),
            }
            for name, array in delay.inputs.items()
        ],
    }
    headers: dict[str, str] = {}

    response = run(client.infer(url, data, model_name="delay", response_headers=headers))
    graph = run(client.infer(f"{url}/v2/models/delay/infer", data, is_graph_endpoint=True))

    check(delay, response)
    assert response.id
    assert "application/json" == headers["content-type"]
    assert "delay" == graph["model_name"]
    assert response.outputs[0].data == graph["outputs"][0]["data"]


def test_refusals(run: Run, client: InferenceRESTClient, url: str, known: Callable[[str], Known]) -> None:
    """This client shows a refusal's sentence, which it reads from bodies of exactly application/json."""
    grid = known("grid-1").inputs["input"]
    request = InferRequest("grid", inputs_of({"input": grid}, binary=True))
    narrow = InferRequest("grid", inputs_of({"input": grid[:, :1]}, binary=True))
    token = {"authorization": "Bearer wrong"}

    async def infer_unsigned() -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as unsigned:
            await unsigned.infer(url, request, model_name="grid", headers=token)

    cases = [
        (404, "'nowhere'", lambda: client.infer(url, request, model_name="nowhere")),
        (400, "expected shape [-1, 2]", lambda: client.infer(url, narrow, model_name="grid")),
        (401, "token", infer_unsigned),
    ]
    for expected_status, expected_words, call in cases:
        status, message = refused(run, call())

        assert (expected_status, True) == (status, expected_words in message), message


@pytest.mark.parametrize("form", ["dictionaries", "lists"])
@pytest.mark.parametrize("model", ["flight", "grid", "delay"])
def test_v1_predict(
    run: Run, v1: InferenceRESTClient, url: str, known: Callable[[str], Known], model: str, form: str
) -> None:
    """Instances of the V1 protocol, as rows by name or by position, answer one prediction each."""
    expected = known(f"{model}-1")
    columns = {name: array[:, at].tolist() for name, array in expected.inputs.items() for at in range(array.shape[1])}
    if model == "grid":
        columns = dict(zip(["hour", "distance"], expected.inputs["input"].T.tolist(), strict=True))
    rows: list[Any] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if form == "lists":
        rows = [list(row.values()) for row in rows]

    answer = run(v1.infer(url, {"instances": rows}, model_name=model))

    predictions = expected.outputs["value" if model == "delay" else "label"].ravel()
    assert ["predictions"] == list(answer)
    np.testing.assert_allclose(answer["predictions"], predictions, rtol=1e-5)


def test_v1_health(run: Run, v1: InferenceRESTClient, url: str) -> None:
    """The V1 protocol's questions have their answers: the server is alive, a model ready or unknown."""
    assert True is run(v1.is_server_live(url))
    assert True is run(v1.is_model_ready(url, "flight"))
    assert 404 == refused(run, v1.is_model_ready(url, "nowhere"))[0]


def test_v1_explain(run: Run, v1: InferenceRESTClient, url: str) -> None:
    """An explanation, which no model here gives, is refused with a sentence."""
    status, message = refused(run, v1.explain(url, "flight", {"instances": []}))

    assert 404 == status
    assert "/v1/models/flight:explain" in message.partition(", '")[0]
