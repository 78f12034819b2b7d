"""Everything that can go wrong while packing, as one tree.

TiltyardError
└── PackingError
    ├── EstimatorError    no estimator there, or one that is not fitted or cannot be served
    ├── TableError        the training table cannot be read, or holds what no client could send
    ├── ConversionError   skl2onnx or onnxruntime cannot turn the estimator into a graph
    ├── GraphError        an ONNX file that is no graph, or none that can be served
    ├── ExamplesError     the inputs of examples cannot be read, do not fit the graph, or have no steady answer
    ├── ParityError       the graph answers otherwise than the estimator
    └── PlacementError    the bundle's name cannot be used, its version exists, or it cannot be written
"""

from server.errors import TiltyardError


class PackingError(TiltyardError):
    """A bundle that could not be made."""


class EstimatorError(PackingError):
    """There is no estimator, or it is not a fitted classifier with probabilities or regressor."""


class TableError(PackingError):
    """A training table that cannot be read, or that holds what no client could send."""


class ConversionError(PackingError):
    """An estimator that could not be turned into a graph that onnxruntime runs."""


class GraphError(PackingError):
    """An ONNX file that cannot be read, or whose graph cannot be served."""


class ExamplesError(PackingError):
    """Inputs of examples that cannot be read, do not fit the graph, or to which it has no steady answer."""


class ParityError(PackingError):
    """A graph that answers otherwise than the estimator it was made from."""


class PlacementError(PackingError):
    """A bundle that cannot be put where it was wanted."""
