import msgspec
import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from server.packing.estimator_description import describe_estimator, hyperparameters, package_versions


def test_hyperparameters_fit_into_json() -> None:
    """Estimators, types, functions, arrays and NaN all have a readable form, and numbers stay numbers."""
    columns = ColumnTransformer([("c", OneHotEncoder(categories=[np.array(["a", "b"])]), ["x"])])
    estimator = make_pipeline(columns, FunctionTransformer(np.log1p), LogisticRegression(C=0.5, tol=float("inf")))

    plain = hyperparameters(estimator)

    assert msgspec.json.decode(msgspec.json.encode(plain)) == plain
    assert plain["logisticregression__C"] == 0.5
    assert plain["logisticregression__tol"] == "inf"
    assert plain["functiontransformer__func"] == "log1p"
    assert plain["columntransformer__c__dtype"] == "float64"
    assert plain["columntransformer__c__categories"] == [["a", "b"]]
    assert plain["columntransformer__c"] == "OneHotEncoder"


def test_a_pipeline_is_described_by_its_steps() -> None:
    """The card says more than "Pipeline"."""
    assert describe_estimator(make_pipeline(FunctionTransformer(), LogisticRegression())) == (
        "Pipeline(FunctionTransformer, LogisticRegression)"
    )


def test_the_versions_of_what_made_the_bundle_are_known() -> None:
    """A conversion can be repeated with the same packages."""
    assert {"scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "pandas"} <= set(package_versions())
