"""A body's bytes as JSON: decoded into what a decoder wants, or refused in a sentence."""

import json
import math
from typing import Any, TypeVar

import msgspec

from server.errors import InvalidRequestError

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


def on_one_line(body: bytes) -> bytes:
    """Returns a body fit to become part of an event: UTF-8 throughout and without line ends.

    The decoder skips members it does not know without reading their strings, and the log has one
    event a line. A line end within a string is no JSON, so none of them means anything.

    Raises:
        InvalidRequestError: the body is not UTF-8.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"expected JSON in UTF-8, got a body that is not: {error.reason}") from error
    return body.replace(b"\n", b" ") if b"\n" in body else body


def decode_json(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Returns what the decoder makes of a body, or raises InvalidRequestError.

    A bare NaN, which is not JSON but which clients send, is read as null, on a slower path.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"invalid request: {error}") from error
    except msgspec.DecodeError as error:
        if b"NaN" in bytes(body) or b"Infinity" in bytes(body):
            return decode_json(decoder, _without_constants(bytes(body)))
        raise InvalidRequestError(f"expected JSON, got a body that is not: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"expected JSON in UTF-8, got a body that is not: {error.reason}") from error
    except RecursionError as error:
        raise InvalidRequestError("expected JSON of modest depth, got a body nested too deeply") from error


def check_nesting(value: dict[str, Any] | None, limit: int, where: str) -> None:
    """Refuses an object whose arrays and objects, itself included, are nested deeper than the limit."""
    level: list[Any] = [] if value is None else [value]
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            raise InvalidRequestError(f"{where}: expected at most {limit} levels of arrays and objects, got more")
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]


def _without_constants(body: bytes) -> bytes:
    """Returns the body with null for every bare NaN."""

    def constant(name: str) -> None:
        if name != "NaN":
            raise InvalidRequestError(f"expected finite numbers, got {name}; send null for a missing value")

    def number(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise InvalidRequestError(f"expected finite numbers, got {text[:40]}; send null for a missing value")
        return value

    try:
        return _encoder.encode(json.loads(body, parse_constant=constant, parse_float=number))
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequestError(f"expected JSON, got a body that is not: {error}") from error
