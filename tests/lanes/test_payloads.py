"""Every form of a payload, sound and refused: the fast lane answers, logs and counts what ASGI does."""

import gzip
import zlib

import pytest

from tests.lanes.pair import Pair
from tests.lanes.raw import again, chunked, post
from tests.lanes.requests import (
    DELAY,
    ECHO,
    FLIGHT,
    GRID,
    binary,
    delay,
    echo,
    flight,
    flight_with,
    grid,
    json,
    raw_rows,
)

PREDICT = "/v1/models/flight/predict"
INSTANCES = "/v1/models/grid:predict"
ROW = {"carrier": "UA", "temp": 12.5, "hour": 17, "distance": 900}
TWO = json(grid((1, 2), (3, 4)))
LARGE = grid(*[(number % 24, 900.5 + number) for number in range(300)])
ECHOED = echo("binary")
BINARY_OUT = {"binary_data_output": True}
WANTED = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]


def tensor(**changes: object) -> dict[str, object]:
    """Returns a request to `grid` with members of its input changed."""
    request = grid()
    return {**request, "inputs": [{**request["inputs"][0], **changes}]}


GOOD = {
    "V2": post(FLIGHT, flight()),
    "V2, version": post("/v2/models/flight/versions/2/infer", flight()),
    "V2, blanks and order": post(GRID, b' {"inputs" : [ {"data":[[1.0,\n2]], "datatype":"FP32","shape":[1,2],'
                                       b'"name":"input"} ] , "id":"spaced"} '),
    "rows": post(PREDICT, {"id": "r", "rows": [ROW, ROW]}),
    "rows of a regression": post("/v1/models/delay/predict", {"id": "r", "rows": [{"hour": 1, "distance": 2}]}),
    "row without what may be missing": post(PREDICT, {"id": "r", "rows": [{**ROW, "temp": None}]}),
    "rows with parameters": post(PREDICT, {"id": "r", "parameters": {"x": 1}, "rows": [ROW]}),
    "no rows": post(PREDICT, {"id": "r", "rows": []}),
    "instances as objects": post(INSTANCES, {"instances": [{"hour": 1, "distance": 2.0}]}),
    "instances as lists": post(INSTANCES, {"instances": [[1, 2.0], [20, 900.0]]}),
    "flat": post(GRID, grid((1, 2), (3, 4))),
    "nested": post(GRID, tensor(shape=[2, 2], data=[[1, 2], [3, 4]])),
    "columns of one dimension and of two": post(FLIGHT, flight_with("hour", shape=[1, 1], data=[[17]])),
    "zero rows": post(GRID, tensor(shape=[0, 2], data=[])),
    "many rows": post(GRID, LARGE),
    "FP64 for FP32": post(GRID, tensor(datatype="FP64")),
    "integers for FP32": post(GRID, tensor(datatype="INT64", data=[17, 900])),
    "largest exact integer": post(GRID, tensor(data=[2**24, 2**53])),
    "exponents": post(GRID, json(grid()).replace(b"900.0", b"-1E-3").replace(b"17", b"1e2")),
    "subnormal": post(GRID, tensor(data=[1e-45, 5e-324])),
    "missing where there may be": post(FLIGHT, flight_with("temp", data=[None])),
    "NaN where there may be": post(FLIGHT, json(flight()).replace(b"12.5", b"NaN")),
    "nulls count as absent": post(GRID, grid(id=None, outputs=None, parameters=None)),
    "no id": post(GRID, {"inputs": grid()["inputs"]}),
    "empty id": post(GRID, grid(id="")),
    "unknown members": post(GRID, {**grid(), "extra": {"deep": [1, {"a": None}]}, "parameters": {"x": {"y": [1]}}}),
    "a member twice": post(GRID, json(grid()).replace(b'{"id"', b'{"id":"first","id"')),
    "an unknown string": post(FLIGHT, flight_with("carrier", data=["Zürich \u2603 \U0001f600"])),
    "outputs chosen": post(GRID, grid(outputs=[{"name": "probabilities"}])),
    "outputs in another order": post(GRID, grid(outputs=[{"name": "probabilities"}, {"name": "label"}])),
    "no outputs chosen": post(GRID, grid(outputs=[])),
    "binary outputs": post(GRID, grid(parameters=BINARY_OUT)),
    "one binary output": post(GRID, grid(outputs=WANTED)),
    "one that is not binary": post(
        GRID, grid(parameters=BINARY_OUT, outputs=[{"name": "label", "parameters": {"binary_data": False}}]),
    ),
    "binary outputs of strings": binary(ECHO, *echo("json", parameters=BINARY_OUT, outputs=None)),
    "every datatype in JSON": binary(ECHO, *echo("json")),
    "every datatype in binary": binary(ECHO, *ECHOED),
    "every datatype, both ways": binary(ECHO, *echo("binary", parameters=BINARY_OUT, outputs=None)),
    "binary, header in capitals": binary(ECHO, *ECHOED).replace(b"Inference-Header", b"INFERENCE-HEADER"),
    "binary, chunked": chunked(ECHO, ECHOED[0], 100, f"Inference-Header-Content-Length: {ECHOED[1]}"),
    "all JSON, said as a length": binary(GRID, TWO, len(TWO)),
    "nothing but elements": binary(GRID, raw_rows((1, 2), (3, 4)), 0),
    "no elements": binary(GRID, b"", 0),
    "gzip": post(GRID, gzip.compress(TWO, mtime=0), "Content-Encoding: gzip"),
    "deflate": post(GRID, zlib.compress(TWO), "Content-Encoding: deflate"),
    "identity": post(GRID, TWO, "Content-Encoding: identity"),
    "no encoding": post(GRID, TWO, "Content-Encoding:"),
    "GZIP in capitals": post(GRID, gzip.compress(TWO, mtime=0), "CONTENT-ENCODING: GZIP"),
    "gzip, chunked": chunked(GRID, gzip.compress(TWO, mtime=0), 10, "Content-Encoding: gzip"),
    "gzip of binary": binary(ECHO, gzip.compress(ECHOED[0], mtime=0), ECHOED[1], "Content-Encoding: gzip"),
    "gzip of elements": binary(GRID, gzip.compress(raw_rows((1, 2)), mtime=0), 0, "Content-Encoding: gzip"),
    "a large answer in gzip": post(GRID, LARGE, "Accept-Encoding: gzip"),
    "a large answer in deflate": post(GRID, LARGE, "Accept-Encoding: gzip;q=0.1, deflate"),
    "a large answer in anything": post(GRID, LARGE, "Accept-Encoding: *"),
    "a large answer as it is": post(GRID, LARGE, "Accept-Encoding: br, identity"),
    "a large answer, gzip refused": post(GRID, LARGE, "Accept-Encoding: gzip;q=0, deflate;q=0"),
    "a large answer, two wishes": post(GRID, LARGE, "Accept-Encoding: gzip", "Accept-Encoding: identity"),
    "a large answer, binary and gzip": post(GRID, {**LARGE, "parameters": BINARY_OUT}, "Accept-Encoding: gzip"),
    "a small answer in gzip": post(GRID, grid(), "Accept-Encoding: gzip"),
    "a deadline that is far": post(GRID, grid(parameters={"timeout": 60_000_000}), "X-Request-Timeout-Ms: 60000"),
    "a time that nobody asked for": post(GRID, grid(parameters={"time": "noon"})),
    "a fixed number of rows": post(
        "/v2/models/four/infer",
        {"id": "4", "inputs": [{"name": "given", "shape": [4, 2], "datatype": "FP32", "data": [*range(8)]}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("request_", GOOD.values(), ids=GOOD)
def test_what_is_answered(pair: Pair, request_: bytes) -> None:
    """The same bytes, whatever the answer's form, and however often; the event splices the client's own."""
    assert "200 200 200 open" == pair.ask(*again(request_))


IDS = {
    "quotes": 'a"b\\c',
    "line ends": "a\r\nb",
    "control characters": "\x00\x01\x1f\x7f",
    "umlauts": "Zürich",
    "beyond the basic plane": "\U0001f600",
    "a slash": "</script>",
    "long": "x" * 5000,
    "blank": " ",
    "a number": "17",
    "line separators": "\u2028\u2029",
}


@pytest.mark.parametrize("identity", IDS.values(), ids=IDS)
@pytest.mark.parametrize("path", [FLIGHT, PREDICT])
def test_ids_of_clients(pair: Pair, path: str, identity: str) -> None:
    """Any text is an id: in the answer, the event and the assignment alike."""
    assert "200 open" == pair.ask(
        post(path, flight(id=identity) if path == FLIGHT else {"id": identity, "rows": [ROW]})
    )


REFUSED = {
    "no body": post(GRID, b""),
    "no JSON": post(GRID, b"{"),
    "an array": post(GRID, b"[]"),
    "null": post(GRID, b"null"),
    "not UTF-8": post(GRID, b'\xff{"inputs":[]}'),
    "UTF-16": post(GRID, '{"inputs":[]}'.encode("utf-16")),
    "a byte-order mark": post(GRID, b"\xef\xbb\xbf" + TWO),
    "half a surrogate": post(FLIGHT, json(flight()).replace(b'"UA"', b'"\\ud800"')),
    "an id of half a surrogate": post(GRID, json(grid()).replace(b'"id":"g"', b'"id":"\\ud800"')),
    "text behind": post(GRID, TWO + b"x"),
    "deep nesting": post(GRID, b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "nested data too deep": post(GRID, tensor(data=[[[1, 2]]])),
    "ragged data": post(GRID, tensor(shape=[2, 2], data=[[1, 2], [3]])),
    "no inputs": post(GRID, {}),
    "empty inputs": post(GRID, {"inputs": []}),
    "inputs that are none": post(GRID, {"inputs": 3}),
    "an id that is a number": post(GRID, grid(id=7)),
    "parameters that are none": post(GRID, grid(parameters=[1])),
    "outputs that are none": post(GRID, grid(outputs={"name": "label"})),
    "another name": post(GRID, tensor(name="nope")),
    "a name twice": post(GRID, {"inputs": grid()["inputs"] * 2}),
    "one input too many": post(GRID, {"inputs": [*grid()["inputs"], {**grid()["inputs"][0], "name": "more"}]}),
    "an input missing": post(FLIGHT, {"id": "f", "inputs": flight()["inputs"][1:]}),
    "an unknown output": post(GRID, grid(outputs=[{"name": "nope"}])),
    "an output twice": post(GRID, grid(outputs=[{"name": "label"}] * 2)),
    "another datatype": post(FLIGHT, flight_with("hour", datatype="FP32")),
    "no datatype": post(GRID, tensor(datatype="FP99")),
    "BYTES for numbers": post(GRID, tensor(datatype="BYTES", data=["1", "2"])),
    "shape that is negative": post(GRID, tensor(shape=[-1, 2])),
    "shape of a float": post(GRID, tensor(shape=[1.0, 2])),
    "shape beyond 64 bits": post(GRID, tensor(shape=[2**64, 2])),
    "shape that overflows": post(GRID, tensor(shape=[2**62, 2])),
    "shape without data": post(GRID, tensor(shape=[1_000_000_000, 2], data=[])),
    "other columns": post(GRID, tensor(shape=[1, 3], data=[1, 2, 3])),
    "another rank": post(GRID, tensor(shape=[2])),
    "no shape": post(GRID, tensor(shape=[])),
    "too few elements": post(GRID, tensor(data=[1])),
    "too many elements": post(GRID, tensor(data=[1, 2, 3])),
    "data that is none": post(GRID, tensor(data=7)),
    "data that is an object": post(GRID, tensor(data={"a": 1})),
    "no data": post(GRID, tensor(data=None)),
    "different rows": post(FLIGHT, flight_with("hour", shape=[2], data=[1, 2])),
    "null where none may be": post(GRID, tensor(data=[None, 1])),
    "NaN where none may be": post(GRID, json(grid()).replace(b"900.0", b"NaN")),
    "infinity": post(GRID, json(grid()).replace(b"900.0", b"Infinity")),
    "minus infinity": post(FLIGHT, json(flight()).replace(b"12.5", b"-Infinity")),
    "a number out of range": post(GRID, json(grid()).replace(b"900.0", b"1e999")),
    "overflow of FP32": post(GRID, tensor(data=[1e39, 1])),
    "an integer beyond FP32's": post(GRID, tensor(datatype="INT64", data=[2**24 + 1, 1])),
    "an integer beyond FP64's": post(GRID, tensor(data=[2**53 + 1, 1])),
    "a huge integer": post(GRID, json(grid()).replace(b"900.0", b"9" * 400)),
    "an integer beyond INT64": post(FLIGHT, flight_with("hour", data=[2**63])),
    "an integer beyond UINT64": post(FLIGHT, flight_with("hour", data=[2**64])),
    "a float for an integer": post(FLIGHT, flight_with("hour", data=[1.5])),
    "a bool for a number": post(GRID, tensor(data=[True, 1])),
    "a string for a number": post(GRID, tensor(data=["1", 1])),
    "a number for a string": post(FLIGHT, flight_with("carrier", data=[7])),
    "null for a string": post(FLIGHT, flight_with("carrier", data=[None])),
    "a timeout of 0": post(GRID, grid(parameters={"timeout": 0})),
    "a timeout below 0": post(GRID, grid(parameters={"timeout": -5})),
    "a timeout that is a string": post(GRID, grid(parameters={"timeout": "1"})),
    "a timeout header of 0": post(GRID, grid(), "X-Request-Timeout-Ms: 0"),
    "a timeout header that is none": post(GRID, grid(), "X-Request-Timeout-Ms: soon"),
    "a binary length that is none": binary(GRID, TWO, "x"),
    "a negative binary length": binary(GRID, TWO, -1),
    "a binary length beyond the body": binary(GRID, TWO, len(TWO) + 1),
    "a long binary length": binary(GRID, TWO, "9" * 30),
    "bytes behind all tensors": binary(GRID, TWO + b"\0\0", len(TWO)),
    "binary too short": binary(ECHO, ECHOED[0][:-1], ECHOED[1]),
    "binary too long": binary(ECHO, ECHOED[0] + b"\0", ECHOED[1]),
    "a binary size that lies": binary(ECHO, ECHOED[0].replace(b'_size":6', b'_size":5'), ECHOED[1]),
    "both data and a binary size": post(GRID, tensor(parameters={"binary_data_size": 8})),
    "half an element": binary(GRID, raw_rows((1, 2))[:-1], 0),
    "elements with NaN": binary(GRID, raw_rows((float("nan"), 2)), 0),
    "elements with infinity": binary(GRID, raw_rows((float("inf"), 2)), 0),
    "elements of several inputs": binary(FLIGHT, b"\0" * 8, 0),
    "FP16 wanted in JSON": binary(ECHO, *echo("json", outputs=[])),
    "FP16 in JSON": post(ECHO, b'{"inputs":[{"name":"fp16","shape":[1,1],"datatype":"FP16","data":[1]}]}'),
    "another fixed number of rows": post(
        "/v2/models/four/infer", {"inputs": [{"name": "given", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    ),
    "no gzip": post(GRID, TWO, "Content-Encoding: gzip"),
    "gzip that ends early": post(GRID, gzip.compress(TWO, mtime=0)[:-9], "Content-Encoding: gzip"),
    "gzip and more": post(GRID, gzip.compress(TWO, mtime=0) + b"x", "Content-Encoding: gzip"),
    "rows that are none": post(PREDICT, {"rows": 3}),
    "a row that is none": post(PREDICT, {"rows": [3]}),
    "an unknown column": post(PREDICT, {"id": "r", "rows": [{**ROW, "zz": 1}]}),
    "a missing column": post(PREDICT, {"id": "r", "rows": [{"carrier": "UA"}]}),
    "a mistyped column": post(PREDICT, {"id": "r", "rows": [{**ROW, "hour": "x"}]}),
    "a column of NaN": post(PREDICT, json({"rows": [ROW]}).replace(b"900", b"NaN")),
    "rows of tensors": post("/v1/models/echo/predict", {"rows": [{"fp32": 1}]}),
    "no instances": post(INSTANCES, {}),
    "an instance too short": post(INSTANCES, {"instances": [[1]]}),
    "mixed instances": post(INSTANCES, {"instances": [[1, 2], {"hour": 1}]}),
    "V2 for rows": post(PREDICT, flight()),
    "rows for V2": post(GRID, {"rows": [ROW]}),
}  # fmt: skip


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(pair: Pair, request_: bytes) -> None:
    """400, the same sentence, the same event, counted the same; the connection goes on."""
    assert "400 400 400 open" == pair.ask(*again(request_))


OTHERS = {
    "an unknown model": ("404", post("/v2/models/nobody/infer", grid())),
    "an unknown model, no JSON": ("404", post("/v2/models/nobody/infer", b"{")),
    "an unknown version": ("404", post("/v2/models/grid/versions/7/infer", grid())),
    "rows of an unknown model": ("404", post("/v1/models/nobody/predict", {"rows": []})),
    "instances of an unknown model": ("404", post("/v1/models/nobody:predict", {"instances": []})),
    "an unknown encoding": ("415", post(GRID, TWO, "Content-Encoding: br")),
    "two encodings": ("415", post(GRID, TWO, "Content-Encoding: gzip, gzip")),
    "rows that the graph fails on": ("500", post("/v2/models/delay/versions/2/infer", delay(24))),
    "rows of which the graph fails on one": (
        "500",
        post("/v2/models/delay/versions/2/infer", {"id": "x", "inputs": [
            {"name": "hour", "shape": [2], "datatype": "INT64", "data": [3, 99]},
            {"name": "distance", "shape": [2], "datatype": "FP32", "data": [1, 2]},
        ]}),
    ),
    "a chosen champion takes them": ("200", post("/v2/models/delay/versions/1/infer", delay(24))),
    "feedback": ("202", post("/v1/feedback", {"id": "g", "label": 1})),
    "the route decides": ("200", post(DELAY, delay(3, parameters={"customer": "a"}))),
}  # fmt: skip


@pytest.mark.parametrize(("outline", "request_"), OTHERS.values(), ids=OTHERS)
def test_other_answers(pair: Pair, outline: str, request_: bytes) -> None:
    """What is unknown, and what fails in the graph."""
    assert f"{outline} {outline} {outline} open" == pair.ask(*again(request_))
