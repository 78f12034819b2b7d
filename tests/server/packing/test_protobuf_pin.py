import re
import subprocess
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"

# In a process of its own, since protobuf warns a few times only and then falls silent.
CONVERT_TREES = """
import sys, warnings
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from server.packing.conversion import BOOLEAN_WARNING, to_graph
from server.packing.graph_edges import InnerInput

rows = np.random.default_rng(0).normal(size=(60, 2))
trees = HistGradientBoostingClassifier(max_iter=1).fit(rows, rows[:, 0] > 0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    to_graph(trees, [InnerInput(name="input", datatype="FP32", columns=["a", "b"])])
print(any(str(one.message).startswith(BOOLEAN_WARNING) for one in caught))
"""


def test_protobuf_is_pinned_as_long_as_skl2onnx_writes_booleans_for_integers() -> None:
    """protobuf 6 warns of the booleans that skl2onnx's trees put into integer attributes, 7 refuses them.

    When this fails because nothing warned, skl2onnx or onnx has mended it: take ``protobuf<7`` out
    of pyproject.toml, the filter out of ``server/packing/conversion.py``, and this test with them.
    """
    requirements = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]["pack"]
    pinned = any(re.fullmatch(r"protobuf\s*<\s*7", one) for one in requirements)

    ran = subprocess.run(
        [sys.executable, "-c", CONVERT_TREES], capture_output=True, text=True, check=True, cwd=PYPROJECT.parent
    )

    assert ran.stdout.strip() == str(pinned)
