"""Rows of named values, and instances of KServe's V1 protocol, as the arrays that a table's signature takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from server.contract.manifest import Column, Signature
from server.errors import InvalidRequestError
from server.protocol.datatypes import DATATYPES, Arrays
from server.protocol.elements import values_array
from server.protocol.json_body import check_nesting, decode_json
from server.protocol.messages import InstancesRequest, RowsRequest
from server.protocol.tensors import TensorLimits

Row = dict[str, Any] | list[Any]

_rows_decoder = msgspec.json.Decoder(RowsRequest)
_instances_decoder = msgspec.json.Decoder(InstancesRequest)


def decode_rows_request(body: bytes, nesting: int) -> RowsRequest:
    """Returns the body of a request of rows, or raises InvalidRequestError; nesting: of its parameters at most."""
    request = decode_json(_rows_decoder, body)
    check_nesting(request.parameters, nesting, "parameters")
    return request


def decode_instances(body: bytes) -> list[Row]:
    """Returns the instances of a request of KServe's V1 protocol, or raises InvalidRequestError."""
    return decode_json(_instances_decoder, body).instances


def rows_to_arrays(rows: Sequence[Row], signature: Signature, limits: TensorLimits) -> Arrays:
    """Returns the arrays the graph takes for rows of values.

    Args:
        rows: objects of named columns, in which an absent column is missing, or lists in the columns' order.
        signature: of a table.
        limits: on rows and elements.

    Raises:
        InvalidRequestError: a model without a table, too many rows, an unknown column, a missing
            value where none is allowed, or a value of another type than the column's.
    """
    columns = signature.columns
    if signature.layout == "tensors":
        raise InvalidRequestError(
            "this model takes tensors, not rows of a table: send them to POST /v2/models/{model}/infer"
        )
    limits.check_rows(len(rows))
    limits.check_elements(len(rows) * len(columns))
    names = [column.name for column in columns]
    known = frozenset(names)
    named = [_named(row, place, names, known) for place, row in enumerate(rows)]
    arrays = [_column_array([row.get(column.name) for row in named], column) for column in columns]
    if signature.layout == "matrix":
        return {signature.inputs[0].name: np.stack(arrays, axis=1)}
    return {column.name: array.reshape(-1, 1) for column, array in zip(columns, arrays, strict=True)}


def _named(row: Row, place: int, names: list[str], known: frozenset[str]) -> Mapping[str, Any]:
    if isinstance(row, list):
        if len(row) != len(names):
            raise InvalidRequestError(f"row {place}: expected {len(names)} values, of columns {names}, got {len(row)}")
        return dict(zip(names, row, strict=True))
    if not row.keys() <= known:
        unknown = ", ".join(repr(name) for name in sorted(row.keys() - known))
        raise InvalidRequestError(f"row {place}: expected columns among {sorted(names)}, got unknown {unknown[:200]}")
    return row


def _column_array(values: list[Any], column: Column) -> np.ndarray[Any, np.dtype[Any]]:
    datatype = DATATYPES[column.datatype]
    return values_array(values, datatype, datatype, [column], f"column {column.name!r}")
