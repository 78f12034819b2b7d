"""A version's signature with all that can be prepared of it, so that usual requests and answers take a short way.

Usual is JSON in which every input has the very datatype of the signature, flat and complete: everything else goes the
long way of ``tensors.py``. Both end in the same arrays and the same bytes.
"""

import math
import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.contract.manifest import Signature, Tensor
from server.protocol.datatypes import DATATYPES, Arrays, Datatype
from server.protocol.messages import Parameters
from server.protocol.tensors import DecodedInputs, SelectedOutput, TensorLimits

# Structures are kept up to so many elements; beyond, numpy is the faster way to an array.
_FEW = 1024
# Of an input of a table.
_MOST_DIMENSIONS = 2
# How many shapes of an output have their beginning kept.
_SHAPES = 256

E = TypeVar("E")

_encode = msgspec.json.Encoder().encode


class _Given(msgspec.Struct, Generic[E], frozen=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[E]
    parameters: Parameters | None = None


_KINDS: dict[type, Any] = {float: _Given[float], int: _Given[int], str: _Given[str]}


class TensorForm:
    """A signature, and the short ways to its arrays and from them. ``selected`` are the outputs of whoever names none,
    None where they cannot all be had in JSON."""

    def __init__(self, model: str, version: str, signature: Signature) -> None:
        self.signature = signature
        specs = signature.outputs
        self.selected: list[SelectedOutput] | None = None
        if all(spec.datatype != "FP16" for spec in specs):
            self.selected = [SelectedOutput(spec.name, binary=False) for spec in specs]
        self._inputs = [_Input(spec) for spec in signature.inputs]
        self._decode = _typed_decoder(signature)
        self._outputs = [_Output(spec) for spec in specs]
        names = b'{"model_name":%b,"model_version":%b,"id":' % (_encode(model), _encode(version))
        self._before_id = names

    def read(self, inputs: msgspec.Raw, limits: TensorLimits) -> DecodedInputs | None:
        """Returns what ``decode_inputs`` does for usual inputs, None for others, which may still be right.

        Args:
            inputs: the request's ``inputs`` member.
            limits: what the request may be.
        """
        if self._decode is None or limits.nesting < _MOST_DIMENSIONS:
            return None
        try:
            given: tuple[_Given[Any], ...] = self._decode(inputs)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(given) == 1:
            [reader] = self._inputs
            array = reader.array(given[0])
            if array is None or len(array) > limits.rows or array.size > limits.elements:
                return None
            return DecodedInputs({reader.name: array}, len(array), inputs)
        arrays: Arrays = {}
        elements = 0
        rows = -1
        for reader, tensor in zip(self._inputs, given, strict=True):
            array = reader.array(tensor)
            if array is None:
                return None
            if len(array) != rows:
                if rows >= 0:
                    return None
                rows = len(array)
            elements += array.size
            arrays[tensor.name] = array
        if rows > limits.rows or elements > limits.elements:
            return None
        return DecodedInputs(arrays, rows, inputs)

    def tensors(self, outputs: Arrays) -> list[bytes]:
        """Returns what ``encode_outputs`` does when none is packed: each output in JSON, in the signature's order.

        Args:
            outputs: by name, of a version of this signature.
        """
        encoded = []
        for output in self._outputs:
            array = outputs[output.name]
            beginning = output.beginnings.get(array.shape) or output.beginning(array.shape)
            encoded.append(b"%b%b}" % (beginning, _encode(array.ravel().tolist())))
        return encoded

    def answer(self, request_id: str, outputs: bytes) -> bytes:
        """Returns the protocol's answer to whoever selects nothing.

        Args:
            request_id: the client's, or the one made for it.
            outputs: the JSON array of what ``tensors`` returns.
        """
        return b'%b%b,"outputs":%b}' % (self._before_id, _encode(request_id), outputs)


def _typed_decoder(signature: Signature) -> Callable[[msgspec.Raw], Any] | None:
    """Returns what decodes inputs in the signature's order with data of its types, None for one with others."""
    elements = [DATATYPES[spec.datatype].element for spec in signature.inputs]
    if signature.layout == "tensors" or any(
        element not in _KINDS or spec.datatype == "FP16"
        for element, spec in zip(elements, signature.inputs, strict=True)
    ):
        return None
    return msgspec.json.Decoder(tuple[tuple(_KINDS[element] for element in elements)]).decode  # type: ignore[misc]  # of as many as there are inputs


class _Input:
    """An input of a table: a column of shape (rows, 1), or a matrix of shape (rows, columns)."""

    def __init__(self, spec: Tensor) -> None:
        self.name = spec.name
        self._spec = spec
        self._datatype = DATATYPES[spec.datatype]
        self._width = spec.shape[-1] if len(spec.shape) == 2 else 0
        self._safe = self._datatype.exact / 2
        self._packs: dict[int, Callable[..., bytes]] = {}

    def array(self, tensor: _Given[Any]) -> NDArray[Any] | None:
        """Returns a tensor as the graph takes it, None when it is unusual."""
        spec, datatype, width = self._spec, self._datatype, self._width
        data: list[Any] = tensor.data
        if tensor.name != spec.name or tensor.datatype != spec.datatype or tensor.parameters is not None or not data:
            return None
        shape = tensor.shape
        if len(shape) == 2:
            rows, given = shape
            if given != width:
                return None
        elif len(shape) == 1 and width == 1:
            [rows] = shape
        else:
            return None
        if rows * width != len(data) or rows < 0:
            return None
        if datatype.element is float:
            # An integer beyond what the type holds exactly may be none of its values: the long way tells. No number
            # exceeds their norm, which is had in a third of the time that the least and the greatest take.
            if not math.hypot(*data) < self._safe:
                return None
        elif datatype.element is str:
            return np.array(data, dtype=np.object_).reshape(rows, width)
        pack = self._packs.get(len(data)) or self._pack(len(data), datatype)
        try:
            return np.ndarray((rows, width), datatype.dtype, pack(*data))
        except (struct.error, OverflowError):
            return None

    def _pack(self, elements: int, datatype: Datatype) -> Callable[..., bytes]:
        if elements > _FEW:
            return lambda *data: np.array(data, dtype=datatype.dtype).tobytes()
        pack = self._packs[elements] = struct.Struct(f"{elements}{datatype.dtype.char}").pack
        return pack


class _Output:
    """An output, whose beginning in JSON is made once for every shape."""

    def __init__(self, spec: Tensor) -> None:
        self.name = spec.name
        self._datatype = spec.datatype
        self.beginnings: dict[tuple[int, ...], bytes] = {}

    def beginning(self, shape: tuple[int, ...]) -> bytes:
        """Returns all that comes before the data of this shape, and keeps it."""
        if len(self.beginnings) >= _SHAPES:
            self.beginnings.clear()
        beginning = self.beginnings[shape] = b'{"name":%b,"shape":%b,"datatype":%b,"data":' % (
            *(_encode(self.name), _encode(shape), _encode(self._datatype)),
        )
        return beginning
