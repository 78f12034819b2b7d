"""Requests in both codecs, for the suites that run over both."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from server.contract.manifest import Column, Signature, Tensor
from server.protocol.binary_codec import split_body, to_bytes
from server.protocol.datatypes import DATATYPES
from server.protocol.json_codec import decode_request
from server.protocol.tensors import DecodedInputs, TensorLimits, decode_inputs, decode_raw, select_outputs

FORMS = ["json", "binary"]
LIMITS = TensorLimits(elements=1000, rows=100, nesting=8)


def tensors_of(*inputs: Tensor, outputs: tuple[Tensor, ...] = ()) -> Signature:
    """Returns the signature of a graph packed by itself."""
    return Signature(layout="tensors", inputs=list(inputs), outputs=list(outputs))


def columns_of(*columns: Column) -> Signature:
    """Returns a table's signature, one input a column."""
    inputs = [Tensor(name=column.name, datatype=column.datatype, shape=[-1, 1]) for column in columns]
    return Signature(layout="columns", inputs=inputs, outputs=[], columns=list(columns))


def column(name: str, datatype: str, nullable: bool = False) -> Column:
    return Column(name=name, datatype=datatype, kind="numeric", nullable=nullable)


def as_json(name: str, datatype: str, array: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """Returns an input with its data in JSON."""
    return {"name": name, "shape": array.shape, "datatype": datatype, "data": array.ravel().tolist()}, b""


def as_binary(name: str, datatype: str, array: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """Returns an input without data, and its bytes."""
    data = bytes(to_bytes(array, DATATYPES[datatype]))
    parameters = {"binary_data_size": len(data)}
    return {"name": name, "shape": array.shape, "datatype": datatype, "parameters": parameters}, data


WRITERS = {"json": as_json, "binary": as_binary}


def body_of(*inputs: tuple[Mapping[str, Any], bytes], **members: Any) -> tuple[bytes, int]:
    """Returns a body and the length of its JSON."""
    head = msgspec.json.encode({"inputs": [tensor for tensor, _ in inputs], **members})
    return head + b"".join(data for _, data in inputs), len(head)


def read(body: bytes, header_length: int | None, signature: Signature, limits: TensorLimits = LIMITS) -> DecodedInputs:
    """Returns what a body is decoded into, its selected outputs looked at as well."""
    if header_length == 0:
        select_outputs(None, signature)
        return decode_raw(body, signature, limits)
    head, tail = (body, None) if header_length is None else split_body(body, header_length)
    request = decode_request(head, limits.nesting)
    select_outputs(request, signature)
    return decode_inputs(request.inputs, tail, signature, limits)


def send(form: str, datatype: str, array: np.ndarray, signature: Signature, limits: TensorLimits = LIMITS) -> Any:
    """Returns what the first input of a signature is decoded into."""
    name = signature.inputs[0].name
    body, header_length = body_of(WRITERS[form](name, datatype, array))
    return read(body, header_length, signature, limits).arrays[name]
