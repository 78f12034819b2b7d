"""Tokens, their rates, the guard, and the command that makes them."""

import hashlib
import itertools
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from server.errors import ForbiddenError, RateLimitedError, SettingsError, UnauthorizedError
from server.protection.cli import app
from server.protection.guard import Guard, exposed_host
from server.protection.rate_limit import RateLimit
from server.protection.tokens import Tokens, new_token, read_tokens

HASH = hashlib.sha256(b"secret").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def entry(name: str = "a", sha256: str = HASH, scopes: str = '["infer"]', rest: str = "") -> str:
    return f'[[token]]\nname = "{name}"\nsha256 = "{sha256}"\nscopes = {scopes}\n{rest}\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[token", "Expected"),
        ("[[token]]\nname = 'a'", "missing required field"),
        (entry(rest="colour = 1"), "unknown field `colour`"),
        (entry(scopes='["root"]'), "Invalid enum value 'root'"),
        (entry(scopes="[]"), "at least one scope"),
        (entry(sha256="ab"), "64 hexadecimal digits"),
        (entry(sha256="g" * 64), "64 hexadecimal digits"),
        (entry() + entry(sha256=OTHER), "a name of its own"),
        (entry() + entry("b", HASH.upper()), "a hash of its own"),
        (entry(rest="requests_per_s = 0"), "requests_per_s above 0"),
        (entry(rest="requests_per_s = inf"), "requests_per_s above 0"),
        (entry(rest="burst = 3"), "beside requests_per_s"),
        (entry(rest="requests_per_s = 1\nburst = 0"), "burst of 1 or more"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    """Each fault in one sentence, and no secret in it."""
    file = tmp_path / "tokens.toml"
    file.write_text(text)

    with pytest.raises(SettingsError) as caught:
        read_tokens(file)

    assert str(file) in str(caught.value)
    assert sentence.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (None, "no such header"),
        (b"", "another scheme"),
        (b"Basic secret", "another scheme"),
        (b"Bearer", "known"),
        (b"Bearer wrong", "known"),
        (b"Bearer " + HASH.encode(), "known"),
    ],
)
def test_who_shows_no_token_is_refused(tmp_path: Path, header: bytes | None, sentence: str) -> None:
    """Missing, of another scheme, unknown, and the hash in place of the secret."""
    (tmp_path / "t").write_text(entry())

    with pytest.raises(UnauthorizedError, match=sentence):
        Tokens(tmp_path / "t").authenticate(header)


def test_a_hash_that_only_begins_like_it_is_not_enough(tmp_path: Path) -> None:
    """The whole hash decides, not the part by which it is looked up."""
    (tmp_path / "t").write_text(entry(sha256=HASH[:60] + ("0000" if HASH[60:] != "0000" else "1111")))

    with pytest.raises(UnauthorizedError, match="known"):
        Tokens(tmp_path / "t").authenticate(b"Bearer secret")


def test_a_file_that_others_may_write_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may write it can let himself in; its owner alone is as it should be."""
    (tmp_path / "t").write_text(entry())
    for mode, told in ((0o600, 0), (0o644, 0), (0o660, 1), (0o602, 2)):
        (tmp_path / "t").chmod(mode)
        Tokens(tmp_path / "t")
        assert len(caplog.records) == told


def test_new_tokens_differ() -> None:
    """256 random bits, and a prefix by which scanners find one that has leaked."""
    made = {new_token() for _ in range(100)}

    assert (len(made), {token[:4] for token in made}, min(map(len, made)) >= 47) == (100, {"tyd_"}, True)


def test_a_token_is_known_by_its_hash_in_either_case(tmp_path: Path) -> None:
    """The scheme's case does not matter either."""
    (tmp_path / "t").write_text(entry(sha256=HASH.upper()))
    tokens = Tokens(tmp_path / "t")

    assert [tokens.authenticate(header).name for header in (b"Bearer secret", b"bearer  secret ")] == ["a", "a"]


def test_a_changed_file_is_read_again_and_a_faulty_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Revoked is revoked; a file that is faulty or gone is told once and keeps the gates as they are."""
    file = tmp_path / "t"
    file.write_text(entry())
    tokens = Tokens(file)
    file.write_text(entry("b", OTHER))

    assert (tokens.reload_if_changed(), tokens.reload_if_changed()) == (True, False)
    assert tokens.authenticate(b"Bearer other").name == "b"
    with pytest.raises(UnauthorizedError):
        tokens.authenticate(b"Bearer secret")
    file.write_text("[")
    assert (tokens.reload_if_changed(), tokens.reload_if_changed()) == (False, False)
    file.unlink()
    assert (tokens.reload_if_changed(), tokens.reload_if_changed()) == (False, False)
    assert tokens.authenticate(b"Bearer other").name == "b"
    assert len([record for record in caplog.records if "stay valid" in record.getMessage()]) == 2


def test_what_is_remembered_of_headers_is_bounded_and_true(tmp_path: Path) -> None:
    """A known token opens however it is written and however often; an unknown or revoked one does not."""
    file = tmp_path / "t"
    file.write_text(entry() + entry("b", OTHER))
    tokens = Tokens(file)
    schemes = ["".join(letters).encode() for letters in itertools.product("bB", "eE", "aA", "rR", "eE", "rR")]
    written = [scheme + b" " * spaces + b"secret" for spaces in [*range(1, 30), 1000] for scheme in schemes]

    assert {tokens.authenticate(header).name for header in [*written, *written]} == {"a"}
    assert len(tokens._known) <= 1024
    assert max(map(len, tokens._known)) <= 256
    assert [tokens.authenticate(b"Bearer other").name for _ in range(2)] == ["b", "b"]
    for header in (b"Bearer wrong", b"Bearer wrong", b"Basic secret", b"Basic secret", None, None):
        with pytest.raises(UnauthorizedError):
            tokens.authenticate(header)
    assert all(known is not None and known.endswith((b"secret", b"other")) for known in tokens._known)
    file.write_text(entry("b", OTHER))
    tokens.reload_if_changed()
    for header in written:
        with pytest.raises(UnauthorizedError):
            tokens.authenticate(header)
    assert tokens.authenticate(b"Bearer other").name == "b"


@given(st.floats(0.1, 1000), st.integers(1, 50), st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=200))
def test_no_window_holds_more_than_burst_and_rate(rate: float, burst: int, gaps: list[float]) -> None:
    """Over any stretch of time at most burst + rate x time pass, and the time to wait is enough."""
    limit = RateLimit(rate, burst, 0.0)
    now, passed = 0.0, []
    for gap in gaps:
        now += gap
        try:
            limit.take(now)
        except RateLimitedError as error:
            assert error.retry_after_s >= 1
            continue
        passed.append(now)

    for first, start in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert last - first + 1 <= burst + rate * (end - start) + 1e-6


def test_a_rest_saves_up_no_more_than_a_burst_and_a_clock_that_goes_back_gives_nothing() -> None:
    """After an hour of rest the burst passes and no more; time never runs twice; nobody is told to wait 0 s."""

    def passes(limit: RateLimit, now_s: float) -> int:
        count = 0
        while True:
            try:
                limit.take(now_s)
            except RateLimitedError as error:
                assert error.retry_after_s >= 1
                return count
            count += 1

    rested, turned = RateLimit(1000.0, 3, 0.0), RateLimit(1.0, 3, 100.0)

    assert (passes(rested, 0.0), passes(rested, 3600.0)) == (3, 3)
    assert [passes(turned, now_s) for now_s in (100.0, 50.0, 100.0, 101.5)] == [3, 0, 0, 1]


def test_the_wait_is_until_there_is_one_again() -> None:
    """What has come back since counts, and seconds are whole: of 16 seconds 3.5 are left."""
    limit = RateLimit(1 / 16, 1, 0.0)
    limit.take(0.0)

    with pytest.raises(RateLimitedError) as caught:
        limit.take(12.5)
    assert caught.value.retry_after_s == 4


def test_a_changed_rate_begins_anew_and_other_tokens_go_on(tmp_path: Path) -> None:
    """The file gives one token more: it has it at once; another's empty bucket stays empty."""
    file = tmp_path / "t"
    slow = entry("b", OTHER, rest="requests_per_s = 0.1\nburst = 1")
    file.write_text(entry(rest="requests_per_s = 0.1\nburst = 1") + slow)
    tokens = Tokens(file)
    guard = Guard(tokens, exposed=False)
    for header in (b"Bearer secret", b"Bearer other"):
        guard.admit(header, "infer", 0.0)
    file.write_text(entry(rest="requests_per_s = 0.1\nburst = 2") + slow)
    tokens.reload_if_changed()

    assert [guard.admit(b"Bearer secret", "infer", 0.0) for _ in range(2)] == ["a", "a"]
    assert len(guard._limits) == 2  # what is no longer granted is not remembered
    for header in (b"Bearer secret", b"Bearer other"):
        with pytest.raises(RateLimitedError):
            guard.admit(header, "infer", 0.0)


def test_the_guard_holds_scopes_rates_and_the_open_port(tmp_path: Path) -> None:
    """Each rule once on either side of it; a worker grants its share of the rate."""
    file = tmp_path / "t"
    file.write_text(entry(rest="requests_per_s = 1\nburst = 4"))
    guard = Guard(Tokens(file), exposed=True, share=0.5)
    header = b"Bearer secret"

    assert [guard.admit(header, "infer", 0.0) for _ in range(2)] == ["a", "a"]
    with pytest.raises(RateLimitedError) as caught:
        guard.admit(header, "infer", 0.0)
    assert caught.value.retry_after_s == 2
    assert guard.admit(header, None, 0.0) == "a"
    assert guard.admit(header, "infer", 2.1) == "a"
    with pytest.raises(ForbiddenError, match="scope admin, got 'a'"):
        guard.admit(header, "admin", 9.0)
    with pytest.raises(UnauthorizedError):
        guard.admit(None, None, 9.0)
    assert Guard(None, exposed=False).admit(None, "admin", 0.0) == ""
    assert Guard(None, exposed=True).admit(None, "infer", 0.0) == ""
    with pytest.raises(ForbiddenError, match="no token is configured"):
        Guard(None, exposed=True).admit(header, "admin", 0.0)


def test_a_share_of_a_small_burst_still_lets_one_in(tmp_path: Path) -> None:
    """Of a burst of 2 each of four workers grants one: none would never let the token in at all."""
    file = tmp_path / "t"
    file.write_text(entry(rest="requests_per_s = 1\nburst = 2"))
    guard = Guard(Tokens(file), exposed=False, share=0.25)

    assert guard.admit(b"Bearer secret", "infer", 0.0) == "a"
    with pytest.raises(RateLimitedError):
        guard.admit(b"Bearer secret", "infer", 0.0)


@pytest.mark.parametrize(
    ("host", "exposed"),
    [
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("::1", False),
        ("::1%1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("", True),
        ("a..b", True),
    ],
)
def test_where_a_server_is_reached_from(host: str, exposed: bool) -> None:
    """Loopback is not exposed, everything else is, a name that is none too."""
    assert exposed_host(host) is exposed


def test_a_name_that_is_loopback_and_more_is_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address that others reach is enough."""
    found = [(2, 1, 6, "", (address, 0)) for address in ("127.0.0.1", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given: found)

    assert exposed_host("box")


def test_the_command_makes_lists_and_revokes(tmp_path: Path) -> None:
    """The token is shown once and works; the file has its hash; other entries and comments stay as they are."""
    file = tmp_path / "tokens.toml"
    run = CliRunner().invoke

    made = run(app, ["new", "one", "--scope", "infer", "--scope", "admin", "--rate", "5", "--file", str(file)])
    token = made.stdout.strip()
    mode = file.stat().st_mode & 0o777
    kept = Tokens(file).authenticate(f"Bearer {token}".encode())
    file.write_text("# ours\n" + file.read_text() + "\n# theirs\n" + entry("two", OTHER))
    listed = run(app, ["list", "--file", str(file)])
    again = run(app, ["new", "one", "--scope", "infer", "--file", str(file)])
    revoked = run(app, ["revoke", "one", "--file", str(file)])

    assert (made.exit_code, kept.name, kept.scopes, kept.requests_per_s) == (0, "one", ["infer", "admin"], 5)
    assert (mode, token in file.read_text(), token in listed.stdout) == (0o600, False, False)
    assert ("one" in listed.stdout, again.exit_code, revoked.exit_code) == (True, 1, 0)
    assert file.read_text().startswith("# ours\n")
    assert "# theirs" in file.read_text()
    assert [each.name for each in Tokens(file).all] == ["two"]
    assert run(app, ["revoke", "one", "--file", str(file)]).exit_code == 1


def test_the_command_refuses_what_it_cannot_do_well(tmp_path: Path) -> None:
    """A burst without a rate; a file too odd to edit, which stays as it is; the mode of a file is kept."""
    file = tmp_path / "tokens.toml"
    run = CliRunner().invoke
    odd = entry() + "[[ token ]]\nname = 'b'\nsha256 = '" + OTHER + "'\nscopes = ['infer']\n"
    file.write_text(odd)
    file.chmod(0o640)

    refused = run(app, ["revoke", "b", "--file", str(file)])
    without_rate = run(app, ["new", "c", "--scope", "infer", "--burst", "2", "--file", str(file)])
    kept = file.read_text()
    made = run(app, ["new", "c", "--scope", "infer", "--file", str(file)])

    assert (refused.exit_code, without_rate.exit_code, kept) == (1, 1, odd)
    assert "by hand" in refused.stderr
    assert (made.exit_code, file.stat().st_mode & 0o777) == (0, 0o640)
