"""Small parts: ids, settings, statuses."""

import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import errors
from server.errors import SettingsError, TiltyardError
from server.identifiers import random_texts, uuid7
from server.protocol.status import STATUS, status_of
from server.settings import load_settings


def test_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    """Any UUID library reads them, and their first 48 bits are the milliseconds."""
    made = [uuid7() for _ in range(1000)]

    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in made} == {(7, uuid.RFC_4122)}
    assert [text[:13] for text in made] == sorted(text[:13] for text in made)
    assert len(set(made)) == 1000


def test_every_id_has_the_time_at_which_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a clock was set back, and when many are made in one millisecond."""
    moments_ms = [7, 7, 8, 7, 2**48 - 1, 0x017F22E279B0]

    for moment_ms in moments_ms:
        monkeypatch.setattr(time, "time_ns", lambda moment_ms=moment_ms: moment_ms * 1_000_000 + 999_999)
        assert uuid.UUID(uuid7()).int >> 80 == moment_ms


@given(st.lists(st.text("0123456789abcdef", min_size=19, max_size=19)))
def test_ids_share_no_chance(drawn: list[str]) -> None:
    """Of digits drawn together each id has its own, all of them and in their order."""
    texts = random_texts("".join(drawn).encode())

    variants = [int(digits[3], 16) % 4 for digits in drawn]
    assert texts == [
        f"-7{digits[:3]}-{'89ab'[variant]}{digits[4:7]}-{digits[7:]}"
        for digits, variant in zip(drawn, variants, strict=True)
    ]


def test_threads_never_make_the_same_id() -> None:
    """They draw from what was drawn in advance, each its own."""
    with ThreadPoolExecutor(8) as pool:
        made = [text for texts in pool.map(lambda _: [uuid7() for _ in range(5_000)], range(8)) for text in texts]

    assert len(set(made)) == 8 * 5_000


def test_a_forked_process_makes_ids_of_its_own() -> None:
    """Nothing that was drawn in advance is used on both sides of a fork."""
    script = """
import os, sys
from server.identifiers import random_texts, uuid7

uuid7()
child = os.fork()
print(*(uuid7() for _ in range(300)), file=sys.stdout if child else sys.stderr, flush=True)
if child:
    os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    made = [*done.stdout.split(), *done.stderr.split()]
    assert len(made) == 600
    assert len({text[14:] for text in made}) == 600


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four sources, one order; the monitor's table is not the server's business."""
    file = tmp_path / "tiltyard.toml"
    file.write_text('port = 1\nhost = "a"\nmodels = "m"\n[events]\nwhen_full = "block"\n[monitor]\nport = 9\n')
    monkeypatch.setenv("TILTYARD_PORT", "2")
    monkeypatch.setenv("TILTYARD_HOST", "b")
    monkeypatch.setenv("TILTYARD_EVENTS__DURABILITY", "commit")

    settings = load_settings(file, port=3, host=None)

    assert (settings.port, settings.host, settings.models, settings.drain_s) == (3, "b", "m", 10.0)
    assert (settings.events.when_full, settings.events.durability) == ("block", "commit")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = 'x'", "port: "),
        ("prot = 1", "prot: Extra inputs"),
        ("[events]\nwhen_full = 'maybe'", "events.when_full: "),
        ("port = ", "expected TOML"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    """A typing error in the file does not pass in silence."""
    file = tmp_path / "tiltyard.toml"
    file.write_text(text)

    with pytest.raises(SettingsError, match=re.escape(sentence)):
        load_settings(file)


def kinds(kind: type[TiltyardError]) -> list[type[TiltyardError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in kinds(child))]


@pytest.mark.parametrize(
    "kind",
    [found for found in kinds(TiltyardError) if found.__module__ == errors.__name__],
    ids=lambda kind: kind.__name__,
)
def test_every_error_has_its_status(kind: type[TiltyardError]) -> None:
    """What a request can end in stands in the table; the rest ends a start or a shipment and never meets a client."""
    no_answers = {errors.TiltyardError, errors.SettingsError, errors.TopicError, errors.TopicRefusedError}
    error = errors.RateLimitedError("x", 1) if kind is errors.RateLimitedError else kind("x")

    assert (status_of(error) == 500) == (kind in no_answers | {errors.RequestError, errors.ExecutionError})
    assert kind in STATUS or kind in no_answers | {errors.RequestError}
    assert kind.__name__ in str(errors.__doc__).split()
