"""What the manifest says of an estimator: its class, its hyperparameters, the packages that made it."""

import math
from collections.abc import Sequence
from importlib import metadata
from typing import Any

ESTIMATOR_PACKAGES = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "pandas", "tiltyard")
GRAPH_PACKAGES = ("onnx", "onnxruntime", "numpy", "tiltyard")
_LONGEST = 200


def describe_estimator(estimator: Any) -> str:
    """Returns the classes that matter: of a pipeline its steps.

    Example:
        >>> from sklearn.linear_model import Ridge
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> describe_estimator(make_pipeline(StandardScaler(), Ridge()))
        'Pipeline(StandardScaler, Ridge)'
    """
    name = type(estimator).__name__
    steps = getattr(estimator, "steps", None)
    return f"{name}({', '.join(describe_estimator(step) for _, step in steps)})" if steps else name


def hyperparameters(estimator: Any) -> dict[str, Any]:
    """Returns ``get_params(deep=True)`` in what JSON can hold; estimators are named by their class."""
    return {name: _plain(value) for name, value in sorted(estimator.get_params(deep=True).items())}


def package_versions(packages: Sequence[str] = ESTIMATOR_PACKAGES) -> dict[str, str]:
    """Returns the versions of those packages that are installed: they had a part in the bundle."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if hasattr(value, "get_params"):
        return describe_estimator(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return repr(value)[:_LONGEST]
