"""MLServer's codecs: they build the request's body and decode the answer; and its batch command."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from known import Known, assert_same
from mlserver.codecs import (
    Base64Codec,
    DatetimeCodec,
    NumpyCodec,
    NumpyRequestCodec,
    PandasCodec,
    StringCodec,
    StringRequestCodec,
)
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, RequestOutput, ResponseOutput

Post = Callable[..., InferenceResponse]


@pytest.fixture
def post(host: str, token: str) -> Post:
    """Posts a request as MLServer writes it, null members and all, and returns MLServer's reading of the answer."""

    def ask(model: str, request: InferenceRequest, **dump: bool) -> InferenceResponse:
        connection = HTTPConnection(host, timeout=30)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request("POST", f"/v2/models/{model}/infer", request.model_dump_json(**dump).encode(), headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        assert 200 == response.status, content
        return InferenceResponse.model_validate_json(content)

    return ask


def frame_of(known: Known) -> pd.DataFrame:
    return pd.DataFrame({name: array.ravel() for name, array in known.inputs.items()})


def output(response: InferenceResponse, name: str) -> ResponseOutput:
    [found] = [each for each in response.outputs if each.name == name]
    return found


def check(known: Known, response: InferenceResponse) -> None:
    """Fails unless the response, decoded as numpy arrays, holds every known output and no other."""
    assert list(known.outputs) == [each.name for each in response.outputs]
    for name, expected in known.outputs.items():
        assert_same(expected, NumpyCodec.decode_output(output(response, name)))


@pytest.mark.parametrize("dump", [{}, {"exclude_none": True}], ids=["nulls", "no-nulls"])
@pytest.mark.parametrize("use_bytes", [True, False], ids=["bytes", "str"])
@pytest.mark.parametrize("model", ["flight-1", "flight-missing", "delay-1"])
def test_pandas(post: Post, known: Callable[[str], Known], model: str, use_bytes: bool, dump: dict[str, bool]) -> None:
    """A data frame becomes a request, missing values included, and the answer's columns become one."""
    expected = known(model)
    request = PandasCodec.encode_request(frame_of(expected), use_bytes=use_bytes)

    response = post(model.partition("-")[0], request, **dump)

    check(expected, response)
    value = "value" if model == "delay-1" else "label"
    decoded = PandasCodec.decode_response(InferenceResponse(model_name="", outputs=[output(response, value)]))
    assert_same(expected.outputs[value].ravel(), decoded[value].to_numpy())


def test_numpy_request(post: Post, known: Callable[[str], Known]) -> None:
    """One matrix becomes a whole request, and the answer's first output becomes one again."""
    grid = known("grid-1")
    request = NumpyRequestCodec.encode_request(grid.inputs["input"])
    request.inputs[0].name = "input"
    request.outputs = [RequestOutput(name="probabilities")]

    response = post("grid", request)

    assert_same(grid.outputs["probabilities"], NumpyRequestCodec.decode_response(response))
    assert ("grid", "1") == (response.model_name, response.model_version)


def test_doubles(post: Post, known: Callable[[str], Known]) -> None:
    """A matrix of numpy's own float64 is taken by a model of float32."""
    grid = known("grid-1")

    response = post(
        "grid", InferenceRequest(inputs=[NumpyCodec.encode_input("input", grid.inputs["input"].astype(float))])
    )

    check(grid, response)


def test_numpy_images(post: Post, known: Callable[[str], Known]) -> None:
    """Arrays of four dimensions and of one, to which the codec adds another, become a model's inputs and outputs."""
    image = known("image-small")
    inputs = [NumpyCodec.encode_input(name, array) for name, array in image.inputs.items()]
    inputs[1].shape = [3]

    check(image, post("image", InferenceRequest(inputs=inputs)))


@pytest.mark.parametrize("use_bytes", [True, False], ids=["bytes", "str"])
def test_columns(post: Post, known: Callable[[str], Known], use_bytes: bool) -> None:
    """Strings by their own codec stand beside numbers by numpy's, in shapes [n, 1]."""
    flight = known("flight-1")
    carriers = StringCodec.encode_input("carrier", flight.inputs["carrier"].ravel().tolist(), use_bytes=use_bytes)
    numbers = [
        NumpyCodec.encode_input(name, array.ravel()) for name, array in flight.inputs.items() if name != "carrier"
    ]

    response = post("flight", InferenceRequest(id="mine", inputs=[*numbers, carriers]))

    check(flight, response)
    assert "mine" == response.id


def test_strings(post: Post) -> None:
    """Strings, base64 of any bytes, and times come back as their codecs sent them."""
    words = ["", "Zürich", "漢字", '"\\\n']
    raw = [b"", b"\x00\xff\xfe", b"plain text"]
    times = [datetime(2026, 1, 2, 3, 4, 5, 678, UTC), datetime(2026, 1, 2, tzinfo=UTC)]

    strings = post("text", _named("bytes", StringRequestCodec.encode_request(words)))
    encoded = post("text", InferenceRequest(inputs=[Base64Codec.encode_input("bytes", raw)]))
    dates = post("text", InferenceRequest(inputs=[DatetimeCodec.encode_input("bytes", times)]))

    assert words == StringRequestCodec.decode_response(strings)
    assert raw == Base64Codec.decode_output(encoded.outputs[0])
    assert times == DatetimeCodec.decode_output(dates.outputs[0])


def test_unknown_content_types(post: Post, known: Callable[[str], Known]) -> None:
    """Parameters of MLServer's own, an object as a value among them, are tolerated on request, inputs and outputs."""
    grid = known("grid-1")
    request = InferenceRequest(
        parameters=Parameters(content_type="np", headers={"x-a": "b"}),
        inputs=[NumpyCodec.encode_input("input", grid.inputs["input"])],
        outputs=[RequestOutput(name=name, parameters=Parameters(content_type="np")) for name in grid.outputs],
    )

    check(grid, post("grid", request))


@pytest.mark.parametrize(("batch_size", "binary"), [(1, []), (3, ["--binary-data"])], ids=["json", "binary"])
def test_infer_command(
    host: str, token: str, known: Callable[[str], Known], tmp_path: Path, binary: list[str], batch_size: int
) -> None:
    """`mlserver infer` scores a file of requests, alone or in batches, and writes every answer."""
    grid = known("grid-1")
    rows = [grid.inputs["input"][at : at + 1] for at in range(6)]
    requests = [
        InferenceRequest(
            id=f"row-{at}",
            inputs=[NumpyCodec.encode_input("input", row)],
            outputs=[RequestOutput(name="probabilities")],
        )
        for at, row in enumerate(rows)
    ]
    (tmp_path / "in.jsonl").write_text("".join(request.model_dump_json() + "\n" for request in requests))
    command = [Path(sys.executable).with_name("mlserver"), "infer", "--url", host, "--model-name", "grid", *binary]
    files = ["--input-data-path", tmp_path / "in.jsonl", "--output-data-path", tmp_path / "out.jsonl"]
    options = ["--batch-size", str(batch_size), "--workers", "2", "--retries", "1"]

    subprocess.run(
        [*command, *files, *options, "--request-headers", f"authorization: Bearer {token}"],
        check=True,
        capture_output=True,
        timeout=60,
    )

    answers = [
        InferenceResponse.model_validate_json(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ]
    by_row = {answer.id: NumpyCodec.decode_output(output(answer, "probabilities")) for answer in answers}
    assert {f"row-{at}" for at in range(6)} == {*by_row}
    assert_same(
        grid.outputs["probabilities"][:6], np.concatenate([by_row[f"row-{at}"] for at in range(6)]).astype(np.float32)
    )


def _named(name: str, request: InferenceRequest) -> InferenceRequest:
    request.inputs[0].name = name
    return request
