"""The elements of a tensor: JSON values into arrays, and arrays of one datatype into another.

Both codecs end here, so a value means the same in JSON and in binary: floats are rounded to the
wanted type, integers are taken only where nothing is lost, missing values only where the column allows them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.contract.manifest import Column
from server.errors import InvalidRequestError
from server.protocol.datatypes import Datatype

# Up to so many numbers Python compares faster than numpy.
_FEW = 40
_NUMBERS = frozenset((float, int))


def typed_array(values: list[Any], given: Datatype, wanted: Datatype, where: str) -> NDArray[Any] | None:
    """Returns values as a flat array of the wanted datatype, or None when they must be looked at one by one.

    Args:
        values: all of the given datatype's element; those of a float type may be integers, or have been.
        given: the datatype that the values were declared as.
        wanted: the datatype of the array, one that ``given`` converts to.
        where: what the values belong to, for errors.

    Raises:
        InvalidRequestError: a value is none of the wanted datatype.
    """
    # Python's floats are FP64, so those need no array of their own before they are rounded.
    first = wanted if given.name == "FP64" else given
    try:
        array = np.array(values, dtype=first.dtype) if first.element is not float else _small_floats(values, first)
    except OverflowError:
        return None
    return array if array is None or first is wanted else convert(array, first, wanted, where)


def _small_floats(values: list[Any], datatype: Datatype) -> NDArray[Any] | None:
    """Returns numbers as floats when all are so small that each integer among them is exact.

    One at the bound may have been an integer beyond it before the JSON decoder rounded it.
    """
    exact = datatype.exact
    if len(values) > _FEW:
        array = np.array(values, dtype=np.float64)
        return array.astype(datatype.dtype) if np.abs(array).max() < exact else None
    if not values or (-exact < min(values) and max(values) < exact):
        return np.array(values, dtype=datatype.dtype)
    return None


def values_array(
    values: list[Any], given: Datatype, wanted: Datatype, columns: Sequence[Column], where: str
) -> NDArray[Any]:
    """Returns flat JSON values as an array; null is a missing value.

    Args:
        values: as the JSON decoder gave them.
        given: the datatype that the values were declared as.
        wanted: the datatype of the array, one that ``given`` converts to.
        columns: of the table, which repeat along the values; without any, none may be missing.
        where: what the values belong to, for errors.

    Raises:
        InvalidRequestError: an element is of another type, out of range, inexact, or missing where
            that is not allowed.
    """
    kinds = set(map(type, values))
    if kinds <= {given.element} or (given.element is float and kinds <= _NUMBERS):
        array = typed_array(values, given, wanted, where)
        if array is not None:
            return array
    return each_value(values, given, wanted, columns, where)


def each_value(
    values: list[Any], given: Datatype, wanted: Datatype, columns: Sequence[Column], where: str
) -> NDArray[Any]:
    """Returns what ``values_array`` does, having looked at every value."""
    present, places = values, list(range(len(values)))
    if given.element is not float or not set(map(type, values)) <= {float}:
        present, places = [], []
        for place, value in enumerate(values):
            if value is None:
                _check_missing("null", place, wanted, columns, where)
                continue
            if type(value) is not given.element or given.element is int:
                _check_value(value, given, place, where)
            present.append(value)
            places.append(place)
    with np.errstate(over="ignore"):
        array = np.array(present, dtype=given.dtype)
    if given.element is float:
        _refuse_first(~np.isfinite(array), f"{where}: expected a value within {given.name}", present, places)
    array = convert(array, given, wanted, where, places)
    if len(places) == len(values):
        return array
    whole = np.full(len(values), "" if wanted.element is str else math.nan, dtype=wanted.dtype)
    whole[places] = array
    return whole


def check_missing(array: NDArray[Any], columns: Sequence[Column], where: str) -> None:
    """Refuses infinities in a flat float array, and NaN where its column allows no missing value."""
    finite = np.isfinite(array)
    if finite.all():
        return
    places = np.flatnonzero(~finite)
    infinite = np.isinf(array[places])
    if infinite.any():
        place = int(places[infinite][0])
        raise InvalidRequestError(
            f"{where}: expected finite numbers, got {array[place]} at element {place}; send NaN for a missing value"
        )
    nullable = np.array([column.nullable for column in columns] or [False])
    refused = places[~nullable[places % len(nullable)]]
    if refused.size:
        _refuse_missing("NaN", int(refused[0]), columns, where)


def convert(
    array: NDArray[Any], given: Datatype, wanted: Datatype, where: str, places: Sequence[int] | None = None
) -> NDArray[Any]:
    """Returns a flat array of one datatype as another that it converts to; NaN stays NaN.

    Args:
        array: of ``given``, without infinities.
        given: what it is.
        wanted: what it becomes.
        where: what it belongs to, for errors.
        places: the elements' numbers in errors, where they are not 0, 1, 2, …

    Raises:
        InvalidRequestError: a number is out of range, or an integer is none of the float type's.
    """
    if given is wanted:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(wanted.dtype)
    if wanted.element is int:
        wrong, expected = (array < wanted.least) | (array > wanted.greatest), f"a value within {wanted.name}"
    elif given.element is int:
        wrong, expected = _inexact(array, wanted), f"an integer that {wanted.name} holds exactly"
    else:
        wrong, expected = np.isinf(converted), f"a value within {wanted.name}"
    _refuse_first(wrong, f"{where}: expected {expected}", array, places)
    return converted


def shown(value: Any) -> str:
    """Returns a value's type and, for a number, the value: a payload is never echoed."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "int beyond 256 bits"
    if isinstance(value, (bool, int, float)):
        return f"{type(value).__name__} {value}"
    kinds: dict[type, str] = {str: "a string", list: "an array", dict: "an object", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)


def _inexact(array: NDArray[Any], wanted: Datatype) -> NDArray[np.bool_]:
    """Returns which integers a float type does not hold: those whose odd part has too many bits, or too great."""
    if not array.size or (-wanted.exact <= array.min() and array.max() <= wanted.exact):
        return np.zeros(array.shape, dtype=np.bool_)
    # The least int64 has no positive int64, but its bits are the right ones of a uint64.
    size = np.abs(array).astype(np.uint64)
    lowest_bit = np.maximum(size & (~size + np.uint64(1)), np.uint64(1))
    inexact: NDArray[np.bool_] = (size // lowest_bit > wanted.exact) | (size.astype(np.float64) > wanted.greatest)
    return inexact


def _check_value(value: Any, datatype: Datatype, place: int, where: str) -> None:
    if type(value) is int and datatype.element is int:
        fits = datatype.least <= value <= datatype.greatest
    elif type(value) is int and datatype.element is float:
        _check_integer(value, datatype, place, where)
        return
    else:
        fits = type(value) is datatype.element
    if not fits:
        raise InvalidRequestError(f"{where}: expected {datatype.name} at element {place}, got {shown(value)}")


def _check_integer(value: int, datatype: Datatype, place: int, where: str) -> None:
    """Refuses an integer in a tensor of floats that is none of them."""
    if abs(value) > datatype.greatest:
        expected = f"a value within {datatype.name}"
    elif abs(value) // max(value & -value, 1) > datatype.exact:
        expected = f"an integer that {datatype.name} holds exactly"
    else:
        return
    raise InvalidRequestError(f"{where}: expected {expected}, got {shown(value)} at element {place}")


def _refuse_first(wrong: NDArray[np.bool_], sentence: str, values: Any, places: Sequence[int] | None) -> None:
    if wrong.any():
        first = int(np.argmax(wrong))
        place = first if places is None else places[first]
        raise InvalidRequestError(f"{sentence}, got {values[first]} at element {place}")


def _check_missing(written: str, place: int, wanted: Datatype, columns: Sequence[Column], where: str) -> None:
    if not columns or not columns[place % len(columns)].nullable:
        _refuse_missing(written, place, columns, where)
    if wanted.element in (int, bool):
        raise InvalidRequestError(
            f"{where}: expected {wanted.name} at element {place}, got {written}, which {wanted.name} cannot hold"
        )


def _refuse_missing(written: str, place: int, columns: Sequence[Column], where: str) -> None:
    sentence = f"{where}: expected a value at element {place}, got {written}"
    if columns:
        sentence += f"; column {columns[place % len(columns)].name!r} had no missing values in training"
    raise InvalidRequestError(sentence)
