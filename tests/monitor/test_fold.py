import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.comparison.paired import PairedCells
from monitor.fold import ComparisonKey, Delta, Fold, FoldLimits, PaneKey
from monitor.judge import Interval, judge
from monitor.pane import Pane
from monitor.performance.cells import RegressionCells
from monitor.version_profile import VersionProfile
from server.contract.histogram import as_numbers
from tests.monitor.conftest import make_bundle

_LIMITS = FoldLimits(pane_us=60_000_000, grace_us=0, ttl_us=3_600_000_000, max_open=10_000)
_START_US = 1_767_614_400_000_000  # conftest's beginning, a whole minute


@pytest.fixture(scope="module")
def stream(module_events: Any) -> list[tuple[int, bytes]]:
    """Two versions over five panes: labels late and early, corrections, duplicates, weights, hidden columns, junk."""
    random = np.random.default_rng(3)
    found: list[Any] = []
    for number in range(120):
        name, at_s, p = f"r{number}", float(random.uniform(0, 300)), [float(x) for x in random.random(number % 3 + 1)]
        kind: dict[str, Any] = {"weight": (1, 1, 4)[number % 3]}
        if number % 7 == 0:
            kind |= {"redacted": {"carrier": "hash"}, "inputs_omitted": "masked"}
        answer = module_events.answer(name, at_s, p=p, **kind)
        shadow = module_events.answer(name, at_s, p=p[::-1], version="2", role="shadow", **kind)
        labels = [module_events.label(name, [int(x > 0.4) for x in p]), module_events.label(name, 1, row=0)]
        parts = [answer, shadow, labels[0], answer, labels[number % 2]]
        found += [parts[place] for place in random.permutation(len(parts))]
    found += [b"junk", module_events.answer("x", version="9"), module_events.answer("y", 20, status=500)]
    found += [module_events.answer("z", 20, inputs=[]), module_events.label("r1", "no class", row=0)]
    order = random.permutation(len(found))
    lines: list[tuple[int, bytes]] = module_events.lines([found[place] for place in order])
    return lines


@pytest.fixture(scope="module")
def profiles(module_profile_of: Callable[..., VersionProfile]) -> dict[Any, VersionProfile]:
    found = [module_profile_of(version=version) for version in ("1", "2")]
    return {profile.key: profile for profile in found}


def _merge(deltas: list[Delta]) -> tuple[Any, Any, dict[str, int], list[int]]:
    panes: dict[PaneKey, Pane] = {}
    comparisons: dict[ComparisonKey, PairedCells] = {}
    whole = Delta()
    for delta in deltas:
        for key, pane in delta.panes.items():
            panes[key] = panes.get(key, Pane.empty()).merge(pane)
        for pair, cells in delta.comparisons.items():
            comparisons.setdefault(pair, PairedCells.empty()).merge(cells)
        whole.counters.update(delta.counters)
        whole.dead_letters += delta.dead_letters
    return panes, comparisons, dict(whole.counters), [letter.offset for letter in whole.dead_letters]


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 605), max_size=8))
def test_any_cut_into_batches_gives_the_same_panes(
    stream: list[tuple[int, bytes]], profiles: dict[Any, VersionProfile], cuts: list[int]
) -> None:
    """Panes, comparisons, counters, dead letters, open requests and watermark do not depend on how the log was cut."""
    whole, cut = Fold(profiles, _LIMITS), Fold(profiles, _LIMITS)
    edges = [0, *sorted(cuts), len(stream)]

    expected = _merge([whole.fold_lines(stream)])
    actual = _merge([cut.fold_lines(stream[a:b]) for a, b in pairwise(edges)])

    assert expected == actual
    assert whole.watermark_us == cut.watermark_us
    assert {name: whole.join.record(name) for name in whole.join.changed} == {
        name: cut.join.record(name) for name in cut.join.changed
    }
    assert {"duplicates", "malformed", "unknown_version", "invalid_labels", "late"} <= expected[2].keys()


def test_rows_are_counted_in_the_baselines_bins(events: Any, profile_of: Callable[..., VersionProfile]) -> None:
    """A pane's counts are what the bins count for the values as the model saw them."""
    profile = profile_of()
    distances, winds = [39.02, None, 1e300, 1000], [None, 0, -1.5, 3]
    inputs = [
        {"name": "carrier", "shape": [4], "datatype": "BYTES", "data": ["UA", "ZZ", None, "UA"]},
        {"name": "distance", "shape": [4, 1], "datatype": "FP32", "data": [[value] for value in distances]},
        {"name": "wind", "shape": [4], "datatype": "FP32", "data": winds},
    ]
    p = [0.1, 0.5, 0.7, 1.0]

    delta = Fold({profile.key: profile}, _LIMITS).fold_lines(events.lines([events.answer("a", p=p, inputs=inputs)]))

    pane = delta.panes[PaneKey("delay", "1", _START_US)]
    expected = [
        profile.features[0].bins.count(as_numbers(distances, "FP32")),
        profile.features[1].bins.count(as_numbers(winds, "FP32")),
        np.array([0, 0, 2, 1, 1]),
        profile.score_bins.count(as_numbers(p, "FP32")),
    ]
    assert np.concatenate(expected).tolist() == pane.counts.tolist()
    assert [2, 2] == pane.classes.tolist()
    assert (1, 4, {"champion": 1}, 4) == (pane.requests, pane.rows, pane.roles, pane.scored)
    assert pytest.approx(2.3, abs=1e-6) == pane.score_sum / 2**24


@pytest.mark.parametrize("data", [[[1, 2], [3, None]], [1, 2, 3, None]], ids=["nested", "flat"])
def test_a_matrix_is_read_by_columns(events: Any, profile_of: Callable[..., VersionProfile], data: list[Any]) -> None:
    """In layout matrix, flat or nested data go to the columns in the signature's order."""
    profile = profile_of(layout="matrix", categorical=False)
    inputs = [{"name": "rows", "shape": [2, 2], "datatype": "FP32", "data": data}]

    delta = Fold({profile.key: profile}, _LIMITS).fold_lines(
        events.lines([events.answer("a", p=[0.2, 0.3], inputs=inputs)])
    )

    counts = delta.panes[PaneKey("delay", "1", _START_US)].counts
    assert profile.features[0].bins.count(np.array([1.0, 3.0])).tolist() == counts[profile.slices[0]].tolist()
    assert profile.features[1].bins.count(np.array([2.0, np.nan])).tolist() == counts[profile.slices[1]].tolist()


def _tensor(name: str, datatype: str, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": datatype, "data": data}


_GOOD = [_tensor("distance", "FP32", [1.0]), _tensor("wind", "FP32", [2.0]), _tensor("carrier", "BYTES", ["UA"])]


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        "text",
        _GOOD[:2],
        [*_GOOD, _tensor("more", "FP32", [1.0])],
        [*_GOOD[:2], _tensor("carrier", "BYTES", ["UA", "AA"])],
        [*_GOOD[:2], _tensor("carrier", "INT64", [1])],
        [*_GOOD[:2], _tensor("carrier", "BYTES", [1])],
        [*_GOOD[:2], _tensor("carrier", "INT64", ["UA"])],
        [_tensor("distance", "BYTES", [1.0]), *_GOOD[1:]],
        [_tensor("distance", "FP32", ["1.0"]), *_GOOD[1:]],
        [_tensor("distance", "FP32", [10**400]), *_GOOD[1:]],
        [_tensor("distance", "FP32", [{"a": 1}]), *_GOOD[1:]],
        [{"name": "distance"}, *_GOOD[1:]],
    ],
    ids=str,
)
def test_inputs_that_do_not_fit_are_counted(
    events: Any, profile_of: Callable[..., VersionProfile], inputs: Any
) -> None:
    """An answer whose inputs contradict the signature counts as one, its features do not, its neighbours do."""
    profile = profile_of()
    fold = Fold({profile.key: profile}, _LIMITS)

    delta = fold.fold_lines(
        events.lines([events.answer("good", inputs=_GOOD), events.answer("bad", inputs=inputs), events.answer("fine")])
    )

    pane = delta.panes[PaneKey("delay", "1", _START_US)]
    assert (3, 1, 3) == (pane.requests, pane.type_errors, pane.scored)
    assert [2, 2, 2, 3] == [int(pane.counts[cut].sum()) for cut in profile.slices]


def test_omitted_inputs_and_failed_answers_leave_features_alone(
    events: Any, profile_of: Callable[..., VersionProfile]
) -> None:
    """Masked inputs are no drift, cut ones no type error, and a failed answer is an error only."""
    profile = profile_of()
    found = [
        events.answer("a", inputs_omitted="masked"),
        events.answer("b", inputs_omitted="cut", **{"inputs": []}),
        events.answer("c", status=500),
    ]

    pane = Fold({profile.key: profile}, _LIMITS).fold_lines(events.lines(found)).panes[PaneKey("delay", "1", _START_US)]

    assert (3, 2, 1, 0) == (pane.requests, pane.rows, pane.errors, pane.type_errors)
    assert [0, 0, 0, 2] == [int(pane.counts[cut].sum()) for cut in profile.slices]


def test_performance_belongs_to_the_predictions_pane(events: Any, profile_of: Callable[..., VersionProfile]) -> None:
    """A label that comes panes later counts where the prediction was made, and a correction is exact there."""
    profile = profile_of()
    fold = Fold({profile.key: profile}, _LIMITS)
    first = fold.fold_lines(events.lines([events.answer("a", 0, p=[0.8]), events.answer("b", 600, p=[0.1])]))
    wrong = fold.fold_lines(events.lines([events.label("a", 0, 700)], 2))
    right = fold.fold_lines(events.lines([events.label("a", 1, 710)], 3))
    straight = Fold({profile.key: profile}, _LIMITS).fold_lines(
        events.lines([events.answer("a", 0, p=[0.8]), events.answer("b", 600, p=[0.1]), events.label("a", 1)])
    )

    assert {PaneKey("delay", "1", _START_US)} == set(wrong.panes) == set(right.panes)
    assert _merge([first, wrong, right])[0] == straight.panes


@pytest.mark.parametrize(
    ("classes", "label", "counted"),
    [
        ((0, 1), 1.0, True),
        ((0, 1), True, True),
        ((0, 1), "1", False),
        ((False, True), 1, True),
        (("no", "yes"), "yes", True),
        (("no", "yes"), 1, False),
        ((0, 1), 2, False),
        ((0, 1), 10**40, False),
    ],
)
def test_labels_match_classes_by_value(
    events: Any, profile_of: Callable[..., VersionProfile], classes: Any, label: Any, counted: bool
) -> None:
    """Numbers match by value, strings only strings; what is no class is counted and ignored."""
    profile = profile_of(classes=classes)
    answer = events.answer("a", p=[0.8])
    outputs = json.loads(bytes(answer.data.outputs))
    outputs[0]["data"] = [classes[1]]
    data = msgspec.structs.replace(answer.data, outputs=msgspec.Raw(json.dumps(outputs).encode()))

    delta = Fold({profile.key: profile}, _LIMITS).fold_lines(
        events.lines([msgspec.structs.replace(answer, data=data), events.label("a", label)])
    )

    assert counted == (delta.panes[PaneKey("delay", "1", _START_US)].labelled == 1)
    assert (not counted) == delta.counters["invalid_labels"]


@pytest.mark.parametrize("changes", [{"row": 1}, {"row": -1}, {"row": 10**30}])
def test_a_label_of_no_row_is_counted(
    events: Any, profile_of: Callable[..., VersionProfile], changes: dict[str, Any]
) -> None:
    """A label about a row that the answer does not have is counted and ignored."""
    profile = profile_of()

    delta = Fold({profile.key: profile}, _LIMITS).fold_lines(
        events.lines([events.answer("a"), events.label("a", 1, **changes)])
    )

    assert delta.counters["invalid_labels"] == 1
    assert delta.panes[PaneKey("delay", "1", _START_US)].labelled == 0


def _regression(events: Any, name: str, value: Any, **changes: Any) -> Any:
    outputs = [{"name": "value", "shape": [1, 1], "datatype": "FP32", "data": [value]}]
    return events.answer(name, outputs=msgspec.Raw(json.dumps(outputs).encode()), **changes)


@pytest.mark.parametrize("label", [10**400, -(10**400)])
def test_a_number_no_float_holds_is_an_invalid_label(
    events: Any, profile_of: Callable[..., VersionProfile], label: int
) -> None:
    """A regression's label beyond any float is counted and ignored, and what comes after it is folded."""
    profile = profile_of(task="regression")
    lines = [_regression(events, "a", 0.5), _regression(events, "b", 0.5)]
    huge = events.label("a", 1)
    huge = msgspec.structs.replace(huge, data=msgspec.structs.replace(huge.data, label=label))

    delta = Fold({profile.key: profile}, _LIMITS).fold_lines(events.lines([*lines, huge, events.label("b", 0.25)]))

    assert delta.counters["invalid_labels"] == 1
    assert delta.panes[PaneKey("delay", "1", _START_US)].labelled == 1


def test_a_regression_is_measured_in_its_own_cells(events: Any, profile_of: Callable[..., VersionProfile]) -> None:
    """Values are scores, errors are summed, and of two versions the closer one wins the pair."""
    profiles = {
        profile.key: profile for version in "12" for profile in [profile_of(task="regression", version=version)]
    }
    found = [
        _regression(events, "a", 0.5),
        _regression(events, "a", 0.25, version="2", role="shadow"),
        events.label("a", 0.75),
        _regression(events, "b", None),
        events.label("b", True),
        _regression(events, "c", 1e300),
    ]

    delta = Fold(profiles, _LIMITS).fold_lines(events.lines(found))

    pane = delta.panes[PaneKey("delay", "1", _START_US)]
    expected = RegressionCells.empty()
    expected.add(np.array([0.75]), np.array([0.5]))
    assert expected == pane.performance
    assert (1, 3, 1) == (pane.scored, pane.rows, delta.counters["invalid_labels"])
    pair = delta.comparisons[ComparisonKey("delay", "1", "2", _START_US)]
    assert (1, 1, 0) == (pair.n, pair.champion_only, pair.challenger_only)
    assert pair.gain_sum < 0


def test_probabilities_alone_predict_the_likeliest_class(
    events: Any, profile_of: Callable[..., VersionProfile]
) -> None:
    """Without a label output, as when a client asks for probabilities only, the likeliest class is predicted."""
    profile = profile_of(classes=("a", "b", "c"))
    outputs = [{"name": "probabilities", "shape": [1, 3], "datatype": "FP32", "data": [0.2, 0.7, 0.1]}]

    delta = Fold({profile.key: profile}, _LIMITS).fold_lines(
        events.lines([events.answer("a", outputs=msgspec.Raw(json.dumps(outputs).encode())), events.label("a", "b")])
    )

    pane = delta.panes[PaneKey("delay", "1", _START_US)]
    assert [0, 1, 0] == pane.classes.tolist()
    assert pytest.approx(0.7) == pane.score_sum / 2**24
    assert pane.labelled == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff\xfe",
        b'{"type":"tiltyard.prediction.v2"}',
        b"[" * 100_000,
        b'{"type":"tiltyard.label.v1","id":"a","source":"/","time":"2026-01-01T00:00:00","subject":"a","partitionkey":"a","data":{}}',
    ],
    ids=range(7),
)
def test_a_line_that_is_no_event_is_kept_aside(profiles: dict[Any, VersionProfile], line: bytes) -> None:
    """Anything may stand in the log: what is no event of a known type is refused with a reason, no more."""
    delta = Fold(profiles, _LIMITS).fold_lines([(7, line)])

    (letter,) = delta.dead_letters
    assert (7, "malformed", line) == (letter.offset, letter.reason, letter.payload)
    assert letter.detail
    assert {"malformed": 1} == dict(delta.counters)


@pytest.mark.parametrize("rows", [-1, 10**30])
def test_an_impossible_number_of_rows_is_malformed(events: Any, profiles: dict[Any, VersionProfile], rows: int) -> None:
    """A row count that no answer can have is refused before anything is counted with it."""
    delta = Fold(profiles, _LIMITS).fold_lines(events.lines([events.answer("a", rows=rows)]))

    assert ["malformed"] == [letter.reason for letter in delta.dead_letters]
    assert not delta.panes


def test_an_answer_of_an_unknown_version_is_kept_aside(events: Any, profiles: dict[Any, VersionProfile]) -> None:
    """Without a bundle there is no baseline: the answer is counted, kept, and joins nothing."""
    fold = Fold(profiles, _LIMITS)

    delta = fold.fold_lines(events.lines([events.answer("a", version="9")], 4))

    assert [(4, "unknown_version")] == [(letter.offset, letter.reason) for letter in delta.dead_letters]
    assert (1, 0) == (delta.counters["unknown_version"], len(fold.join))


def test_a_repeated_answer_is_counted_once(events: Any, profiles: dict[Any, VersionProfile]) -> None:
    """The same event twice is one request; the same request id in another event is another request."""
    found = [events.answer("a"), events.answer("a"), events.answer("a", event_id="other")]

    delta = Fold(profiles, _LIMITS).fold_lines(events.lines(found))

    assert (2, 1) == (delta.panes[PaneKey("delay", "1", _START_US)].requests, delta.counters["duplicates"])


def test_only_predictions_move_the_watermark(events: Any, profiles: dict[Any, VersionProfile]) -> None:
    """Neither a shadow nor a label, whose time its sender chooses, says how late it is."""
    fold = Fold(profiles, _LIMITS)
    found = [events.answer("a", 5), events.answer("a", 900, version="2", role="shadow"), events.label("a", 1, 10**6)]

    fold.fold_lines(events.lines(found))

    assert _START_US + 5_000_000 == fold.watermark_us


def test_requests_expire_while_events_pass(events: Any, profiles: dict[Any, VersionProfile]) -> None:
    """A label that comes after its request was given up finds nothing, and is an orphan in its turn."""
    fold = Fold(profiles, _LIMITS._replace(ttl_us=60_000_000))
    found = [events.answer("a", 0), events.answer("b", 61), events.label("a", 1, 61), events.answer("c", 200)]

    delta = fold.fold_lines(events.lines(found))

    assert (2, 1, 1) == (delta.counters["expired"], delta.counters["orphan_labels"], len(fold.join))
    assert delta.panes[PaneKey("delay", "1", _START_US)].labelled == 0


def test_an_answer_to_a_closed_pane_still_merges(events: Any, profiles: dict[Any, VersionProfile]) -> None:
    """An answer behind the watermark by more than a pane and the grace is counted as late and merged."""
    limits = _LIMITS._replace(grace_us=5_000_000)
    delta = Fold(profiles, limits).fold_lines(
        events.lines([events.answer("a", 64.9), events.answer("b", 0), events.answer("c", 65), events.answer("d", 1)])
    )

    assert delta.counters["late"] == 1
    assert delta.panes[PaneKey("delay", "1", _START_US)].requests == 2


_FULL = [
    {"name": "distance", "shape": [2], "datatype": "FP32", "data": [900.0, 1000.0]},
    {"name": "wind", "shape": [2], "datatype": "FP32", "data": [None, 3.0]},
    {"name": "carrier", "shape": [2], "datatype": "BYTES", "data": ["UA", "AA"]},
]
_HIDDEN = {
    "mask": [*_FULL[:1], {**_FULL[1], "data": [None, None]}, {**_FULL[2], "data": [None, None]}],
    "hash": [*_FULL[:1], {**_FULL[1], "datatype": "BYTES", "data": [None, "0f"]}, {**_FULL[2], "data": ["1e", "2d"]}],
    "drop": _FULL[:1],
}


@pytest.mark.parametrize("how", _HIDDEN)
def test_a_hidden_column_is_not_observed(how: str, events: Any, profile_of: Callable[..., VersionProfile]) -> None:
    """Neither missing nor a new category nor a type error: it is in no histogram, and findings say so."""
    profile = profile_of()
    redacted = {"wind": how, "carrier": how, "other": how}
    answer = events.answer("a", p=[0.2, 0.3], inputs=_HIDDEN[how], redacted=redacted, inputs_omitted="masked", weight=2)

    pane = (
        Fold({profile.key: profile}, _LIMITS).fold_lines(events.lines([answer])).panes[PaneKey("delay", "1", _START_US)]
    )

    assert [int(pane.counts[cut].sum()) for cut in profile.slices] == [4, 0, 0, 4]
    assert (pane.type_errors, pane.rows, pane.hidden) == (0, 4, {"wind": 4, "carrier": 4})
    assert pane.weight_excess.tolist() == [4, 0, 0, 4]
    found = judge(pane, profile, Interval(start_us=0, end_us=1, closed=True, matured=True), 0.5, 0.0)
    assert [(each.name, each.observed, each.hidden) for each in found.features] == [
        ("distance", True, 0),
        ("wind", False, 4),
        ("carrier", False, 4),
    ]
    assert [(each.drift.drifted, each.quality.issues) for each in found.features[1:]] == [(False, [])] * 2
    # Once some rows tell it again, it is observed by those.
    told = events.answer("b", p=[0.2, 0.3], inputs=_FULL)
    again = (
        Fold({profile.key: profile}, _LIMITS)
        .fold_lines(events.lines([answer, told]))
        .panes[PaneKey("delay", "1", _START_US)]
    )
    found = judge(again, profile, Interval(start_us=0, end_us=1, closed=True, matured=True), 0.5, 0.0)
    assert [(each.observed, each.hidden, each.drift.n) for each in found.features] == [
        (True, 0, 6),
        (True, 4, 2),
        (True, 4, 2),
    ]


def test_a_matrix_with_hidden_columns_is_read_by_name(events: Any, profile_of: Callable[..., VersionProfile]) -> None:
    """The server tells such a matrix column by column; one that is whole comes as it always did."""
    profile = profile_of(layout="matrix", categorical=False)
    kept = [{"name": "distance", "shape": [2, 1], "datatype": "FP32", "data": [1.0, 3.0]}]
    whole = [{"name": "rows", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, None]}]
    found = [
        events.answer("a", p=[0.2, 0.3], inputs=kept, redacted={"wind": "drop"}, inputs_omitted="masked"),
        events.answer("b", p=[0.2, 0.3], inputs=whole),
        events.answer("c", p=[0.2], inputs=[], redacted={"wind": "drop", "distance": "drop"}, inputs_omitted="masked"),
    ]

    pane = Fold({profile.key: profile}, _LIMITS).fold_lines(events.lines(found)).panes[PaneKey("delay", "1", _START_US)]

    assert [int(pane.counts[cut].sum()) for cut in profile.slices] == [4, 2, 5]
    assert (pane.type_errors, pane.hidden) == (0, {"distance": 1, "wind": 3})
    assert (2 * profile.features[0].bins.count(np.array([1.0, 3.0]))).tolist() == pane.counts[
        profile.slices[0]
    ].tolist()


def test_an_empty_string_is_missing_where_values_may_be(events: Any) -> None:
    """Binary and rows have no other form for a missing string; where none may be missing it is a new category."""
    inputs = [*_FULL[:2], {**_FULL[2], "data": ["", "UA"]}]
    counts = []
    for nullable in (True, False):
        manifest, baseline = make_bundle()
        columns = [
            *manifest.signature.columns[:2],
            msgspec.structs.replace(manifest.signature.columns[2], nullable=nullable),
        ]
        signature = msgspec.structs.replace(manifest.signature, columns=columns)
        profile = VersionProfile(msgspec.structs.replace(manifest, signature=signature), baseline)
        pane = (
            Fold({profile.key: profile}, _LIMITS)
            .fold_lines(events.lines([events.answer("a", p=[0.2, 0.3], inputs=inputs)]))
            .panes[PaneKey("delay", "1", _START_US)]
        )
        counts.append(pane.counts[profile.slices[2]].tolist())

    assert counts == [[0, 0, 1, 0, 1], [0, 0, 1, 1, 0]]
