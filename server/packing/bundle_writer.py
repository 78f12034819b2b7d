"""From an estimator and its training table to a bundle: convert, check, describe, write."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from server.contract.manifest import (
    BASELINE_FILE,
    CARD_FILE,
    EXAMPLES_FILE,
    MODEL_FILE,
    Manifest,
    TrainingData,
)
from server.packing.baseline_builder import build_baseline
from server.packing.client_tensors import client_tensors
from server.packing.conversion import convert, signature_for
from server.packing.estimator_description import describe_estimator, hyperparameters, package_versions
from server.packing.estimator_source import classes_of, feature_names, task_of
from server.packing.examples_builder import build_examples
from server.packing.importance import permutation_importance
from server.packing.model_card import write_card
from server.packing.onnx_model import OnnxModel
from server.packing.options import PackOptions
from server.packing.parity import check_parity
from server.packing.placement import choose_folder, write_bundle
from server.packing.sealing import sealed
from server.packing.table import choose_features, digest_of, drop_unlabelled, infer_columns, period_of
from server.packing.training_metrics import measure, read_truth

Progress = Callable[[str], None]


def pack_bundle(
    estimator: Any, table: pd.DataFrame, options: PackOptions, progress: Progress = lambda stage: None
) -> Path:
    """Returns the folder of a new bundle of a fitted scikit-learn estimator and its training table.

    Nothing is written unless all went well.

    Args:
        estimator: fitted classifier with ``predict_proba``, or regressor; often a Pipeline.
        table: the training rows; those without a target are left out.
        options: everything else.
        progress: called with the name of each stage as it begins.

    Raises:
        PackingError: as the tree in ``server.packing.errors`` says.
    """
    folder = choose_folder(options.out, options.model, options.version)

    progress("reading the table's columns")
    task = task_of(estimator)
    classes = [] if task == "regression" else classes_of(estimator)
    features = choose_features(table, options, feature_names(estimator))
    start, end = period_of(table, options.time)
    table = drop_unlabelled(table.reset_index(drop=True), options.target)
    truth = read_truth(table, options.target, task, classes)
    signature = signature_for(infer_columns(table, features, options.datatype), task, classes, options)

    progress("converting the estimator to ONNX")
    graph = convert(estimator, table, signature, options)
    model = OnnxModel(graph, signature, classes)

    progress("checking the graph against the estimator")
    parity = check_parity(estimator, table, model, task, classes, options.seed)

    progress("scoring the training table")
    tensors = client_tensors(table, signature)
    answers = model.answer(tensors)
    metrics = measure(truth, answers, task)

    progress("measuring how much each feature matters")
    importances = permutation_importance(model, tensors, truth, task, options.seed)

    progress("counting the baseline")
    baseline = build_baseline(table, signature.columns, importances, answers, task, classes, options.seed)
    examples = build_examples(table, model, answers, options.seed)

    progress("writing the bundle")
    manifest = Manifest(
        model=options.model,
        version=folder.name,
        created_at=datetime.now(UTC).replace(microsecond=0),
        task=task,
        target=options.target,
        classes=classes,
        signature=signature,
        estimator=describe_estimator(estimator),
        hyperparameters=hyperparameters(estimator),
        packages=package_versions(),
        data=TrainingData(
            name=options.data_name,
            sha256=options.data_sha256 or digest_of(table[[*features, options.target]]),
            rows=len(table),
            start=start,
            end=end,
        ),
        metrics=metrics,
        parity=parity,
        files={},
    )
    files = {
        MODEL_FILE: graph,
        BASELINE_FILE: msgspec.json.encode(baseline),
        EXAMPLES_FILE: msgspec.json.encode(examples),
        CARD_FILE: write_card(manifest, baseline, examples).encode(),
    }
    write_bundle(folder, sealed(manifest, files))
    return folder
