"""An atheris target: any bytes, as a request with binary tensors, are arrays within the limits or the client's fault.

Run by ``test_binary_decoder.py``; by hand: ``python -m tests.fuzz.binary_decoder CORPUS [-max_total_time=60]``.
The first two bytes of an input are the length of the JSON, the rest is the body.
"""

import struct
import sys

import atheris

with atheris.instrument_imports(include=["server.protocol"]):
    from server.contract.manifest import Column, Signature, Tensor
    from server.errors import TiltyardError
    from server.protocol.binary_codec import split_body
    from server.protocol.datatypes import DATATYPES
    from server.protocol.json_codec import decode_request
    from server.protocol.status import status_of
    from server.protocol.tensors import DecodedInputs, TensorLimits, decode_inputs, decode_raw, select_outputs

LIMITS = TensorLimits(elements=10_000, rows=1_000, nesting=16)
LENGTH = struct.Struct("<H")
EVERY = Signature(
    layout="tensors",
    inputs=[Tensor(name=name, datatype=name, shape=[-1, -1]) for name in DATATYPES],
    outputs=[Tensor(name="y", datatype="FP32", shape=[-1])],
)
ROWS = [
    Signature(
        layout="columns",
        inputs=[Tensor(name="x", datatype=datatype, shape=[-1, 1])],
        outputs=[Tensor(name="y", datatype="FP32", shape=[-1])],
        columns=[Column(name="x", datatype=datatype, kind="numeric", nullable=True)],
    )
    for datatype in DATATYPES
]


def decode(data: bytes) -> None:
    """Raises for bytes that end in anything but arrays or a refusal."""
    if len(data) < LENGTH.size:
        return
    header_length = LENGTH.unpack_from(data)[0]
    body = data[LENGTH.size :]
    if header_length == 0:
        for signature in ROWS:
            check(signature, body, header_length)
        return
    for signature in (EVERY, *ROWS):
        check(signature, body, header_length)


def check(signature: Signature, body: bytes, header_length: int) -> None:
    """Decodes a body for a signature, and looks at what comes out."""
    try:
        decoded = _decoded(signature, body, header_length)
    except TiltyardError as error:
        if status_of(error) >= 500 or len(str(error)) > 10_000:
            raise RuntimeError("the server's fault, or an endless sentence") from error
        return
    elements = sum(array.size for array in decoded.arrays.values())
    if elements > LIMITS.elements or decoded.rows > LIMITS.rows or b"\n" in bytes(decoded.logged):
        raise RuntimeError("arrays beyond the limits, or an event of several lines")


def _decoded(signature: Signature, body: bytes, header_length: int) -> DecodedInputs:
    if header_length == 0:
        return decode_raw(body, signature, LIMITS)
    head, tail = split_body(body, header_length)
    request = decode_request(head, LIMITS.nesting)
    select_outputs(request, signature)
    return decode_inputs(request.inputs, tail, signature, LIMITS)


if __name__ == "__main__":
    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()
