"""Every way in which HTTP can carry a request that scores, or fail to: the fast lane answers what ASGI answers."""

import pytest

from tests.lanes.pair import Pair
from tests.lanes.raw import Awaited, Step, chunked, head, pieces, post
from tests.lanes.requests import DELAY, FLIGHT, GRID, delay, flight, grid, json

GOOD = post(GRID, grid())
BAD = post(GRID, b"{")
UNKNOWN = post("/v2/models/nobody/infer", grid())
READY = head("GET", "/v2/health/ready")
CLOSING = post(GRID, grid(id="closing"), "Connection: close")
ROWS = post("/v1/models/grid/predict", {"id": "r", "rows": [{"hour": 1, "distance": 2.0}]})
INSTANCES = post("/v1/models/grid:predict", {"instances": [[1, 2.0]]})
LONG = post(GRID, grid(*[(1.5, 2.5)] * 3000, id="long"))
EXPECT = "Expect: 100-continue"
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAE")
CONTENT = json(grid())


def split(request: bytes, *sizes: int) -> tuple[bytes, ...]:
    """Returns a request in writes of the given sizes, then the rest."""
    parts, start = [], 0
    for size in sizes:
        parts.append(request[start : start + size])
        start += size
    return (*parts, request[start:])


def head_and_body(request: bytes) -> tuple[bytes, bytes]:
    start = request.index(b"\r\n\r\n") + 4
    return request[:start], request[start:]


ALONE: dict[str, tuple[str, tuple[Step, ...]]] = {
    "one write": ("200 open", (GOOD,)),
    "head and body apart": ("200 open", head_and_body(GOOD)),
    "head in pieces": ("200 open", (*pieces(head_and_body(GOOD)[0], 9), head_and_body(GOOD)[1])),
    "body in pieces": ("200 open", (head_and_body(GOOD)[0], *pieces(head_and_body(GOOD)[1], 11))),
    "byte by byte": ("200 open", tuple(pieces(GOOD, 1))),
    "cut in the empty line": ("200 open", split(GOOD, GOOD.index(b"\r\n\r\n") + 3)),
    "cut in the method": ("200 open", split(GOOD, 2)),
    "cut in the target": ("200 open", split(GOOD, 12)),
    "large body": ("200 open", tuple(pieces(LONG, 20_000))),
    "one chunk": ("200 open", (chunked(GRID, grid(), 10_000),)),
    "small chunks": ("200 open", (chunked(GRID, grid(), 7),)),
    "chunks in pieces": ("200 open", tuple(pieces(chunked(GRID, grid(), 30), 13))),
    "chunk extensions": (
        "200 open",
        (head("POST", GRID, "Transfer-Encoding: chunked") + b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT),),
    ),
    "trailers": ("200 open", (chunked(GRID, grid(), 50, end=b"X-Late: 1\r\nAuthorization: Bearer x\r\n"),)),
    "a trailer that would be a length": (
        "200 open", (chunked(GRID, grid(), 50, end=b"Inference-Header-Content-Length: 3\r\n"),),
    ),
    "chunked is written otherwise": ("200 open", (chunked(GRID, grid(), 50).replace(b"chunked", b"Chunked"),)),
    "no chunks": ("400 open", (chunked(GRID, b"", 1),)),
    "no length": ("400 open", (head("POST", GRID),)),
    "length 0": ("400 open", (post(GRID, b""),)),
    "more body than its length": ("200 400 closed", (GOOD + b"{}",)),
    "HTTP/1.0": ("200 closed", (post(GRID, grid(), version="1.0"),)),
    "HTTP/1.0 kept alive": ("200 closed", (post(GRID, grid(), "Connection: keep-alive", version="1.0"),)),
    "HTTP/1.0 without a length": ("400 closed", (head("POST", GRID, version="1.0"),)),
    "HTTP/1.0 without a host": ("200 closed", (post(GRID, grid(), version="1.0").replace(b"Host: h\r\n", b""),)),
    "no host": ("200 open", (GOOD.replace(b"Host: h\r\n", b""),)),
    "HTTP/2.0": ("400 closed", (post(GRID, grid(), version="2.0"),)),
    "HTTP/0.9": ("400 closed", (b"POST " + GRID.encode() + b"\r\n\r\n",)),
    "close": ("200 closed", (CLOSING,)),
    "close in capitals": ("200 closed", (post(GRID, grid(), "Connection: CLOSE"),)),
    "close among others": ("200 closed", (post(GRID, grid(), "Connection: keep-alive, close"),)),
    "close on a refusal": ("400 closed", (post(GRID, b"{", "Connection: close"),)),
    "keep-alive": ("200 open", (post(GRID, grid(), "Connection: keep-alive"),)),
    "leading empty lines": ("200 open", (b"\r\n\r\n" + GOOD,)),
    "expects": ("100 200 open", (post(GRID, grid(), EXPECT),)),
    "expects and waits": (
        "100 200 open",
        (head("POST", GRID, f"Content-Length: {len(CONTENT)}", EXPECT), Awaited(b"100 Continue\r\n\r\n"), CONTENT),
    ),
    "expects, chunked": (
        "100 200 open",
        (
            head("POST", GRID, "Transfer-Encoding: chunked", EXPECT),
            Awaited(b"100 Continue\r\n\r\n"),
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT),
        ),
    ),
    "expects, in capitals": ("100 200 open", (post(GRID, grid(), "EXPECT: 100-CONTINUE"),)),
    "expects, no body": ("100 400 open", (post(GRID, b"", EXPECT),)),
    "expects something else": ("200 open", (post(GRID, grid(), "Expect: 200-ok"),)),
    "expects, HTTP/1.0": ("100 200 closed", (post(GRID, grid(), EXPECT, version="1.0"),)),
    "expects, unknown model": ("100 404 open", (post("/v2/models/nobody/infer", grid(), EXPECT),)),
    "HEAD": ("405 open", (head("HEAD", GRID),)),
    "GET": ("405 open", (head("GET", GRID),)),
    "GET with a body": ("405 open", (GOOD.replace(b"POST", b"GET"),)),
    "OPTIONS": ("405 open", (head("OPTIONS", GRID),)),
    "OPTIONS *": ("404 open", (head("OPTIONS", "*"),)),
    "PUT": ("405 open", (GOOD.replace(b"POST", b"PUT"),)),
    "DELETE": ("405 open", (head("DELETE", GRID),)),
    "PATCH": ("405 open", (GOOD.replace(b"POST", b"PATCH"),)),
    "HEAD of rows": ("405 open", (head("HEAD", "/v1/models/grid/predict"),)),
    "OPTIONS of instances": ("405 open", (head("OPTIONS", "/v1/models/grid:predict"),)),
    "method in small letters": ("400 closed", (GOOD.replace(b"POST", b"post"),)),
    "CONNECT": ("400 closed", (head("CONNECT", "h:80"),)),
    "offers h2c": ("200 open", (post(GRID, grid(), *H2C),)),
    "offers h2c, in pieces": ("200 open", tuple(pieces(post(GRID, grid(), *H2C), 31))),
    "offers h2c and a request behind": ("200 200 open", (post(GRID, grid(), *H2C) + ROWS,)),
    "offers h2c twice": ("200 200 open", (post(GRID, grid(), *H2C) * 2,)),
    "offers h2c behind a request": ("200 200 200 open", (GOOD + post(GRID, grid(), *H2C) + GOOD,)),
    "offers websocket": ("200 open", (post(GRID, grid(), "Connection: Upgrade", "Upgrade: websocket"),)),
    "offers h2c, chunked": ("200 open", (chunked(GRID, grid(), 20, *H2C),)),
    "offers h2c and expects": ("100 200 open", (post(GRID, grid(), *H2C, EXPECT),)),
    "HTTP/2 itself": ("400 closed", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",)),
    "folded header": ("400 closed", (GOOD.replace(b"Host: h", b"Host: h\r\n folded"),)),
    "blank before the colon": ("400 closed", (GOOD.replace(b"Host: h", b"Host : h"),)),
    "bare line feeds": ("400 closed", (GOOD.replace(b"\r\n", b"\n"),)),
    "control character in a header": ("400 closed", (post(GRID, grid(), "X: a\x00b"),)),
    "header without a value": ("200 open", (post(GRID, grid(), "X-Nothing:"),)),
    "header of Latin-1": ("200 open", (post(GRID, grid(), "X-Name: Zürich"),)),
    "content type of something else": ("200 open", (post(GRID, grid(), "Content-Type: text/plain; charset=x"),)),
    "two content types": ("200 open", (post(GRID, grid(), "Content-Type: a/b", "Content-Type: c/d"),)),
    "two equal binary lengths": (
        "200 open",
        (post(GRID, grid(), *[f"Inference-Header-Content-Length: {len(CONTENT)}"] * 2),),
    ),
    "two different binary lengths": (
        "400 open",
        (post(GRID, grid(), "Inference-Header-Content-Length: 1", "Inference-Header-Content-Length: 2"),),
    ),
    "two different timeouts": (
        "400 open", (post(GRID, grid(), "X-Request-Timeout-Ms: 1000", "X-Request-Timeout-Ms: 2000"),),
    ),
    "two different tokens": ("400 open", (post(GRID, grid(), "Authorization: a", "Authorization: b"),)),
    "two equal lengths": ("400 closed", (GOOD.replace(b"Host: h", b"Content-Length: %d" % len(CONTENT)),)),
    "two lengths": ("400 closed", (GOOD.replace(b"Host: h", b"Content-Length: 3"),)),
    "length and chunks": (
        "400 closed", (chunked(GRID, grid(), 20).replace(b"Host: h", b"Content-Length: 3"),),
    ),
    "chunks and length": (
        "400 closed", (GOOD.replace(b"Host: h", b"Transfer-Encoding: chunked"),),
    ),
    "chunked twice": ("400 closed", (chunked(GRID, grid(), 20, "Transfer-Encoding: chunked"),)),
    "unknown coding": ("400 closed", (GOOD.replace(b"Host: h", b"Transfer-Encoding: gzip"),)),
    "hidden chunks": ("400 closed", (chunked(GRID, grid(), 20).replace(b"g: chunked", b"g: xchunked"),)),
    "negative length": ("400 closed", (head("POST", GRID, "Content-Length: -3") + b"abc",)),
    "length with a plus": ("400 closed", (head("POST", GRID, "Content-Length: +3") + b"abc",)),
    "length in hexadecimal": ("400 closed", (head("POST", GRID, "Content-Length: 0x3") + b"abc",)),
    "length without digits": ("400 closed", (head("POST", GRID, "Content-Length: ") + b"abc",)),
    "enormous length": ("400 closed", (head("POST", GRID, "Content-Length: 99999999999999999999999"),)),
    "length beyond the limit": ("413 closed", (head("POST", GRID, "Content-Length: 999999999", "Connection: close"),)),
    "chunk size that is none": ("400 closed", (head("POST", GRID, "Transfer-Encoding: chunked") + b"xyz\r\n",)),
    "chunk that is longer than it says": (
        "400 closed", (head("POST", GRID, "Transfer-Encoding: chunked") + b"2\r\nabcd\r\n0\r\n\r\n",),
    ),
    "TLS to a plain port": ("400 closed", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",)),
}  # fmt: skip


@pytest.mark.parametrize(("outline", "steps"), ALONE.values(), ids=ALONE)
def test_a_request_in_every_form_of_http(pair: Pair, outline: str, steps: tuple[Step, ...]) -> None:
    """The same bytes come back, the same events are logged, the same is counted; what comes back is what it should."""
    assert outline == pair.ask(*steps)


TARGETS = {
    "absolute": ("200 open", "http://h" + GRID),
    "absolute, another host": ("200 open", "http://other:81" + GRID),
    "absolute, https": ("200 open", "https://h" + GRID),
    "absolute, malformed": ("400 closed", "http://[x" + GRID),
    "query": ("200 open", GRID + "?a=b&c"),
    "empty query": ("200 open", GRID + "?"),
    "question marks": ("200 open", GRID + "??/x?"),
    "fragment": ("200 open", GRID + "#x"),
    "percent-encoded letter": ("200 open", "/v2/models/gr%69d/infer"),
    "percent-encoded verb": ("200 open", "/v2/models/grid/inf%65r"),
    "percent-encoded slash": ("200 open", "/v2/models/grid%2Finfer"),
    "percent-encoded slash in the name": ("404 open", "/v2/models/a%2Fb/infer"),
    "percent-encoded question mark": ("404 open", GRID + "%3Fa=b"),
    "percent-encoded twice": ("404 open", "/v2/models/gr%2569d/infer"),
    "percent without digits": ("404 open", "/v2/models/gr%/infer"),
    "percent-encoded no UTF-8": ("404 open", "/v2/models/gr%ff/infer"),
    "percent-encoded zero": ("404 open", "/v2/models/gr%00id/infer"),
    "percent-encoded line": ("404 open", "/v2/models/gr%0d%0aid/infer"),
    "percent-encoded umlaut": ("404 open", "/v2/models/Z%C3%BCrich/infer"),
    "bytes beyond ASCII": ("400 closed", "/v2/models/Zürich/infer".encode()),
    "blank": ("400 closed", "/v2/models/gr id/infer"),
    "slash at the end": ("404 open", GRID + "/"),
    "two slashes": ("404 open", "//v2/models/grid/infer"),
    "two slashes within": ("404 open", "/v2//models/grid/infer"),
    "no name": ("404 open", "/v2/models//infer"),
    "dots": ("404 open", "/v2/models/../models/grid/infer"),
    "capitals": ("404 open", "/V2/models/grid/infer"),
    "name in capitals": ("404 open", "/v2/models/GRID/infer"),
    "only slash": ("405 open", "/"),
    "no slash": ("400 closed", "v2/models/grid/infer"),
    "version": ("200 open", "/v2/models/grid/versions/1/infer"),
    "version, percent-encoded": ("200 open", "/v2/models/grid/versions/%31/infer"),
    "unknown version": ("404 open", "/v2/models/grid/versions/9/infer"),
    "no version": ("404 open", "/v2/models/grid/versions//infer"),
    "version with zeros": ("404 open", "/v2/models/grid/versions/01/infer"),
    "model named versions": ("404 open", "/v2/models/versions/infer"),
    "version of an unknown model": ("404 open", "/v2/models/nobody/versions/1/infer"),
    "unknown verb": ("404 open", "/v2/models/grid/explain"),
    "verb of V1": ("404 open", "/v1/models/grid:explain"),
    "colon, percent-encoded": ("400 open", "/v1/models/grid%3Apredict"),
    "colons": ("404 open", "/v1/models/a:b:predict"),
    "V1 verb behind a slash in V2": ("404 open", "/v2/models/grid/predict"),
    "V2 verb in V1": ("404 open", "/v1/models/grid/infer"),
    "generate": ("404 open", "/v2/models/grid/generate"),
    "long name": ("404 open", f"/v2/models/{'x' * 2000}/infer"),
}


@pytest.mark.parametrize(("outline", "target"), TARGETS.values(), ids=TARGETS)
def test_targets(pair: Pair, outline: str, target: str | bytes) -> None:
    """Plain, odd and wrong ones: found and missed alike."""
    assert outline == pair.ask(post(target, grid()))


PIPELINES = {
    "two": ("200 200 open", GOOD + GOOD),
    "thirty": (" ".join(["200"] * 30 + ["open"]), b"".join(post(DELAY, delay(hour % 24)) for hour in range(30))),
    "every endpoint": ("200 200 200 200 open", GOOD + ROWS + INSTANCES + post(FLIGHT, flight())),
    "good and bad": ("200 400 200 404 200 open", GOOD + BAD + GOOD + UNKNOWN + ROWS),
    "other endpoints between": ("200 200 200 200 405 200 open", GOOD + READY + GOOD + READY + head("GET", GRID) + GOOD),
    "HEAD between": ("200 405 200 open", GOOD + head("HEAD", GRID) + GOOD),
    "chunks between": ("200 200 200 open", GOOD + chunked(GRID, grid(id="c"), 9) + ROWS),
    "expecting between": ("200 100 200 200 open", GOOD + post(GRID, grid(id="x"), EXPECT) + GOOD),
    "failing between": (
        "200 200 500 200 open",
        GOOD + post(DELAY, delay(30, parameters={"customer": 1})) + post("/v2/models/delay/versions/2/infer", delay(30))
        + GOOD,
    ),
    "a large one between": ("200 200 200 open", GOOD + LONG + GOOD),
    "many large ones": ("200 200 200 200 open", LONG * 4),
    "more than buffers hold": (" ".join(["200"] * 40 + ["open"]), LONG * 40),
    "close in the middle": ("200 200 closed", GOOD + CLOSING + GOOD + ROWS),
    "close in the middle, refused": ("200 400 closed", GOOD + post(GRID, b"{", "Connection: close") + GOOD),
    "close of another endpoint in the middle": (
        "200 200 closed", GOOD + head("GET", "/v2/health/ready", "Connection: close") + GOOD,
    ),
    "HTTP/1.0 in the middle": ("200 200 closed", GOOD + post(GRID, grid(), version="1.0") + GOOD),
    "garbage behind": ("200 400 closed", GOOD + b"GARBAGE\r\n\r\n"),
    "garbage behind three": ("200 400 200 400 closed", GOOD + BAD + GOOD + b"\x00\x01"),
    "garbage behind another endpoint": ("200 200 400 closed", GOOD + READY + b"GARBAGE\r\n\r\n"),
    "garbage between": ("200 400 closed", GOOD + b"GARBAGE\r\n\r\n" + GOOD),
    "two lengths behind": ("200 400 closed", GOOD + GOOD.replace(b"Host: h", b"Content-Length: 3")),
    "bad chunks behind": ("200 400 closed", GOOD + head("POST", GRID, "Transfer-Encoding: chunked") + b"xyz\r\n"),
    "a bad target behind": ("200 400 closed", GOOD + post("http://[x/", b"")),
    "a request in the body of a chunk": (
        "400 200 open", head("POST", GRID, "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
        + GOOD,
    ),
    "too long a head behind": ("200 431 closed", GOOD + post(GRID, grid(), "X: " + "x" * 70_000)),
    "empty lines between": ("200 200 open", GOOD + b"\r\n\r\n" + GOOD),
}  # fmt: skip


@pytest.mark.parametrize(("outline", "data"), PIPELINES.values(), ids=PIPELINES)
@pytest.mark.parametrize("size", [None, 401], ids=["at once", "in pieces"])
def test_pipelines(pair: Pair, outline: str, data: bytes, size: int | None) -> None:
    """Answers keep the order of their requests, and one that is refused spoils no other."""
    steps = [data] if size is None else pieces(data, size if len(data) < 20_000 else 20_011)

    assert outline == pair.ask(*steps)


def test_requests_behind_each_other_in_time(pair: Pair) -> None:
    """Each is sent when the one before is answered: kept alive, through good and bad ones."""
    steps: list[Step] = []
    for number in range(6):
        steps += [post(GRID, grid((number, 1.5), id=f"turn-{number}")), Awaited(b'"id":"turn-%d"' % number), BAD]

    assert " ".join(["200 400"] * 6 + ["open"]) == pair.ask(*steps)
