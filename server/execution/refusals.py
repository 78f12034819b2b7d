"""What onnxruntime says when it refuses a graph or the inputs of one, in a sentence fit to be shown."""

import re

from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from server.protocol.datatypes import Arrays

_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
# A check of its source: file and line, the function's signature, the condition.
_CHECK = re.compile(r"^\S+\.(?:h|cc|cpp):\d+ (?:.*? was false\. |[^(]*\([^)]*\) )?")
_NODE = re.compile(r"while running (\w+) node\. Name:'(.*?)' Status Message: (.*)", re.DOTALL)
_NO_MEMORY = "Failed to allocate memory"
# Where a sentence comes to values: numbers, quotations, brackets.
_VALUES = re.compile(r"""[^.,:;]*["'\d{}\[\]<>|&=].*""", re.DOTALL)
_SHOWN_CHARACTERS = 300


def reason_of(error: Exception) -> str:
    """Returns onnxruntime's reason on one line, without its code and without the place in its source."""
    said, node = _CODE.sub("", str(error).strip()), ""
    found = _NODE.search(said)
    if found is not None:
        said, node = found[3].strip(), f"its {_node(found)} says: "
    return node + _CHECK.sub("", said).partition("\n")[0]


def input_refusal(error: Exception, arrays: Arrays) -> str | None:
    """Returns a sentence about inputs that a graph refused, None when they are not to blame.

    A graph that runs on its examples fails on others by their sizes, or by values that lead out of a
    table. The sentence has the inputs' shapes and the node's words before the first value.

    Args:
        error: as onnxruntime raised it.
        arrays: the inputs by name.
    """
    found = _NODE.search(str(error))
    if not isinstance(error, (InvalidArgument, Fail)) or found is None or _NO_MEMORY in found[3]:
        return None
    shapes = _cut(", ".join(f"{name!r} {list(array.shape)}" for name, array in arrays.items()))
    said = _words(found[3], arrays)
    sentence = f"expected inputs that fit the graph, got shapes {shapes}, which its {_node(found)} refuses"
    return f"{sentence}: {said}" if said else sentence


def _node(found: re.Match[str]) -> str:
    return f"{found[1]} node {_cut(found[2])!r}" if found[2] else f"{found[1]} node"


def _words(message: str, arrays: Arrays) -> str:
    """Returns what a node says before it comes to values, "" where strings could be among its words."""
    if any(array.dtype.hasobject for array in arrays.values()):
        return ""
    return _cut(_VALUES.sub("", _CHECK.sub("", message.strip())).strip(" .,:;\n"))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
