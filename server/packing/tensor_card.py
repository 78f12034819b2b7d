"""The README.md of a bundle that is a graph alone: what it takes and gives, and how to call it."""

from typing import Any

from server.contract.manifest import EXAMPLES_FILE, Examples, ExampleTensor, Manifest, Tensor
from server.packing.model_card import HOST, curl, short_number

# Of all inputs of the call that the card shows; more would be a card of numbers.
_SHOWN_ELEMENTS = 100


def write_tensor_card(manifest: Manifest, examples: Examples) -> str:
    """Returns the model card as Markdown."""
    signature = manifest.signature
    return "\n".join(
        [
            f"# {manifest.model}, version {manifest.version}",
            "",
            f"{manifest.estimator}, packed {manifest.created_at:%Y-%m-%d %H:%M} UTC as it was: no estimator and no",
            "training table are known, so there is no baseline, and the monitor does not watch this version.",
            "",
            "## Inputs",
            "",
            *_table(signature.inputs),
            "",
            "## Outputs",
            "",
            *_table(signature.outputs),
            "",
            "Dimensions of one name have one size in a request; `?` is any size.",
            "",
            "## Calling it",
            "",
            *_call(manifest, examples),
            "",
        ]
    )


def _table(tensors: list[Tensor]) -> list[str]:
    rows = [f"| `{tensor.name}` | {tensor.datatype} | {_shape(tensor)} |" for tensor in tensors]
    return ["| name | datatype | shape |", "| --- | --- | --- |", *rows]


def _shape(tensor: Tensor) -> str:
    names = tensor.symbols or [""] * len(tensor.shape)
    sizes = [name or "?" if size == -1 else str(size) for name, size in zip(names, tensor.shape, strict=True)]
    return f"[{', '.join(sizes)}]"


def _call(manifest: Manifest, examples: Examples) -> list[str]:
    url = f"{HOST}/v2/models/{manifest.model}/versions/{manifest.version}/infer"
    halves = [tensor.name for tensor in manifest.signature.outputs if tensor.datatype == "FP16"]
    lines = ["Open Inference Protocol V2:", ""]
    if sum(len(tensor.data) for tensor in examples.inputs) <= _SHOWN_ELEMENTS:
        body: dict[str, Any] = {"inputs": [_shown(tensor) for tensor in examples.inputs]}
        if halves:
            body["parameters"] = {"binary_data_output": True}
        lines += curl(url, body)
        if halves:
            lines[-2] += " --output answer.bin"
    elif any(tensor.datatype == "FP16" for tensor in manifest.signature.inputs) or halves:
        return [f"By any client of the Open Inference Protocol V2 that sends binary tensors, at `{url}`."]
    else:
        lines += [f"`{EXAMPLES_FILE}` is a request too:", "", "```sh", f"curl {url} -d @{EXAMPLES_FILE}", "```"]
    if halves:
        lines += ["", "FP16 leaves in binary only: the answer is JSON, then the bytes of the outputs."]
    return lines


def _shown(tensor: ExampleTensor) -> dict[str, Any]:
    """Returns a tensor as a client may write it: halves are FP32 in JSON."""
    return {
        "name": tensor.name,
        "shape": tensor.shape,
        "datatype": "FP32" if tensor.datatype == "FP16" else tensor.datatype,
        "data": [short_number(value, tensor.datatype) for value in tensor.data],
    }
