"""``tiltyard route`` against a server."""

import asyncio
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from starlette.responses import Response
from typer.testing import CliRunner

from server.audit import audit_line, route_line
from server.eventlog.outbox import Outbox
from server.routes.cli import app
from server.routes.client import AwayError, Held, RouteClient, plain, promoting
from server.routes.watch import Away, Back, Changed, follow
from server.routing.changes import replaced, with_shares
from server.routing.document import Challenger, Route, decode_route
from server.routing.revision import Revision
from server.settings import EventSettings
from tests.server.certificates import Authority
from tests.server.routes.admin_double import FIRST, MODEL, TOKEN, Double

Command = Callable[..., Result]
COMMAND = [sys.executable, "-m", "server.cli", "route"]


@pytest.fixture
def run(admin_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command on the server, without a terminal."""
    for name in ("TILTYARD_TOKEN", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TILTYARD_URL", admin_url)

    def invoke(*arguments: str, **given: Any) -> Result:
        return CliRunner().invoke(app, list(arguments), **given)

    return invoke


def held(url: str) -> Route:
    """Returns the route that holds."""
    return decode_route(httpx.get(f"{url}/v1/models/{MODEL}/route").content)


def share_of(route: Route, version: str) -> float:
    """Returns a challenger's share."""
    return next(each.share for each in route.challengers if each.version == version)


def words(text: str) -> str:
    """Returns a text with single spaces."""
    return " ".join(text.split())


@pytest.mark.parametrize(
    "part",
    [
        "flight-delay, revision 7",
        "unit parameter:customer",
        "salt flight-delay (the model's name)",
        "overrides x-tester: red → 3",
        "1 champion 95 % 5-100 %",
        "2 shadow 100 %",
        "3 split 5 % 0-5 % failed > 2 %; over 200 ms > 5 %; of 50 or more in 60 s",
    ],
)
def test_show_says_who_answers_whom(run: Command, part: str) -> None:
    """Roles, shares, parts of the units and guards of all versions, and the rules."""
    assert part in words(run("show", MODEL).stdout)


def test_show_says_where_there_is_no_document(run: Command, double: Double) -> None:
    """Revision 0 is the newest version by default."""
    double.route = Route(champion="2")

    assert "no document yet" in run("show", MODEL).stdout


@pytest.mark.parametrize("form", ["json", "toml", "stdin json", "stdin toml"])
def test_set_replaces_the_route_by_a_document(run: Command, admin_url: str, tmp_path: Path, form: str) -> None:
    """A file of either kind or standard input; what changes is shown, and the reason kept."""
    text = '{"champion": "1", "challengers": [{"version": "3", "mode": "split", "share": 0.2}], "unit": null}'
    if form.endswith("toml"):
        text = 'champion = "1"\n[[challengers]]\nversion = "3"\nmode = "split"\nshare = 0.2\n'
    file = tmp_path / f"route.{form}"
    file.write_text(text)

    name, given = ("-", text) if form.startswith("stdin") else (str(file), None)
    result = run("set", MODEL, name, "--reason", "more & more", input=given)

    assert (result.exit_code, result.stderr) == (0, "")
    shown = words(result.stdout)
    assert "1 champion 95 % champion 80 %" in shown
    assert "2 shadow 100 % not there" in shown
    assert "unit (now the request id), overrides, guard of 3" in shown
    assert "Every unit gets a new place" in shown
    assert "revision 8 holds, after 7" in shown
    assert (held(admin_url).revision, share_of(held(admin_url), "3")) == (8, 0.2)
    assert json.loads(run("history", MODEL, "--limit", "1", "--json").stdout)[0]["reason"] == "more & more"


def test_what_show_prints_set_takes_back(run: Command, admin_url: str) -> None:
    """The document is whole: nothing differs, and no revision is made."""
    document = run("show", MODEL, "--json").stdout

    again = run("set", MODEL, "-", input=document)

    assert decode_route(document.encode()) == held(admin_url) == FIRST
    assert "Nothing differs." in again.stdout
    assert "revision 7 stays" in again.stdout


@pytest.mark.parametrize("text", ["0.1", "10%", "10 %", "1e-1"])
def test_shares_are_fractions_or_percent(run: Command, admin_url: str, text: str) -> None:
    """Both mean the same to the billionth; what moves is told."""
    result = run("shares", MODEL, f"3={text}", "2=50%")

    assert result.exit_code == 0
    assert "5 % of the units move from version 1 to version 3." in result.stdout
    assert (share_of(held(admin_url), "3"), share_of(held(admin_url), "2")) == (0.1, 0.5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["3"], "expected VERSION=SHARE"),
        (["=1"], "expected VERSION=SHARE"),
        (["3=10"], "from 0 to 1, or from 0% to 100%, got 10"),
        (["3=101%"], "got 101%"),
        (["3=nan"], "got nan"),
        (["3=much"], "got much"),
        (["3=0.1", "3=0.2"], "got 3 twice"),
    ],
)
def test_shares_that_are_none_are_not_sent(run: Command, double: Double, arguments: list[str], sentence: str) -> None:
    """One sentence each, and the server is not asked."""
    result = run("shares", MODEL, *arguments)

    assert (result.exit_code, result.stdout, double.asked) == (1, "", [])
    assert sentence in result.stderr


def test_promote_and_rollback(run: Command, admin_url: str) -> None:
    """A version becomes champion; the revision before comes back as a new one."""
    promoted = run("promote", MODEL, "3", "--reason", "better")
    champion = held(admin_url).champion
    back = run("rollback", MODEL, "7", "--reason", "worse")

    assert (promoted.exit_code, back.exit_code, champion) == (0, 0, "3")
    assert "95 % of the units move from version 1 to version 3." in promoted.stdout
    assert "revision 9 holds, after 8" in back.stdout
    assert (held(admin_url).champion, held(admin_url).revision) == ("1", 9)
    entries = json.loads(run("history", MODEL, "--json").stdout)
    assert [(each["action"], each["reason"]) for each in entries[:2]] == [("rollback", "worse"), ("promote", "better")]


CHANGES = [["set", MODEL, "-"], ["shares", MODEL, "3=0.3"], ["promote", MODEL, "3"], ["rollback", MODEL, "7"]]
DOCUMENT = b'{"champion": "2"}'


@pytest.mark.parametrize("command", CHANGES, ids=lambda command: command[0])
def test_a_dry_run_changes_nothing(run: Command, admin_url: str, double: Double, command: list[str]) -> None:
    """What would change is shown, as text and as JSON."""
    double.change(with_shares(FIRST, {"3": 0.1}))
    before = held(admin_url)

    text = run(*command, "--dry-run", input=DOCUMENT)
    answer = json.loads(run(*command, "--dry-run", "--json", input=DOCUMENT).stdout)

    assert (text.exit_code, held(admin_url)) == (0, before)
    assert "a dry run, revision 8 still holds" in text.stdout
    assert "% of the units move" in text.stdout or "gets a new place" in text.stdout
    assert (answer["dry_run"], answer["route"]["revision"], len(double.history)) == (True, 9, 2)


@pytest.mark.parametrize("command", CHANGES, ids=lambda command: command[0])
def test_json_of_a_change_is_the_servers_answer(run: Command, double: Double, command: list[str]) -> None:
    """Nothing else is on standard output."""
    double.change(with_shares(FIRST, {"3": 0.1}))

    answer = json.loads(run(*command, "--json", "--yes", input=DOCUMENT).stdout)

    assert (answer["dry_run"], answer["route"]["revision"]) == (False, 9)
    assert answer["difference"]["versions"]


@pytest.mark.parametrize("command", CHANGES, ids=lambda command: command[0])
def test_a_change_in_between_is_not_overwritten(run: Command, double: Double, command: list[str]) -> None:
    """Another's change between reading and writing: nothing is shown or done, and it is said why."""
    theirs = with_shares(FIRST, {"3": 0.4})
    double.before_change = lambda: double.change(theirs) if double.route is FIRST else None

    result = run(*command, input=DOCUMENT)

    assert (result.exit_code, result.stdout, double.route) == (1, "", theirs)
    assert "somebody changed the route of 'flight-delay' meanwhile: revision 8 holds" in result.stderr


def test_a_base_that_is_named_is_the_one_that_must_hold(run: Command, double: Double) -> None:
    """--revision goes to the server as it is, and the route is not read first."""
    stale = run("shares", MODEL, "3=0.3", "--revision", "6")
    methods = [request.method for request in double.asked]
    fitting = run("shares", MODEL, "3=0.3", "--revision", "7")

    assert (stale.exit_code, methods, fitting.exit_code, double.route.revision) == (1, ["POST"], 0, 8)
    assert double.asked[0].headers["if-match"] == '"6"'


def test_every_fault_has_a_line(run: Command) -> None:
    """What the server names is named, each by itself."""
    document = b'{"champion": "1", "unit": "x", "challengers": [{"version": "3", "mode": "split", "share": 2}]}'

    result = run("set", MODEL, "-", input=document)

    assert (result.exit_code, result.stdout) == (1, "")
    first, *faults = result.stderr.splitlines()
    assert first == "tiltyard route: the server refused the route; its faults:"
    assert [fault.split(":")[0] for fault in faults] == ["  challenger '3'", "  unit"]


def test_history_shows_the_newest_first(run: Command, double: Double) -> None:
    """Who, when, what and why, a line for each in a pipe; no more than wanted."""
    double.change(with_shares(FIRST, {"3": 0.125}), "shares", "rollout", "[bold]looks\x1b[31m good[/bold]")

    lines = run("history", MODEL).stdout.splitlines()

    assert words(lines[1]) == words(
        "8 2026-03-01 12:01:00 shares by rollout 1 champion 87.5 %, 2 shadow 100 %, 3 split 12.5 % "
        "[bold]looks�[31m good[/bold]"
    )
    assert (len(lines), words(lines[2])[:29]) == (3, "7 2026-03-01 12:00:00 set by ")
    assert len(run("history", MODEL, "--limit", "1").stdout.splitlines()) == 2


def test_an_empty_history_is_said(run: Command, double: Double) -> None:
    """As a sentence beside the output, which stays empty."""
    double.history = []

    result = run("history", MODEL)

    assert (result.exit_code, result.stdout) == (0, "")
    assert "nobody has changed" in result.stderr


def test_the_schema_is_printed(run: Command, double: Double) -> None:
    """No server is asked for it."""
    assert json.loads(run("schema").stdout)["$schema"].startswith("https://json-schema.org/")
    assert double.asked == []


@pytest.mark.parametrize("way", ["file", "variable"])
def test_a_token_lets_in(run: Command, double: Double, tmp_path: Path, way: str) -> None:
    """From a file or the variable."""
    double.tokens = {TOKEN: ["admin"]}
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    arguments, env = (
        (["--token-file", str(tmp_path / "token")], {}) if way == "file" else ([], {"TILTYARD_TOKEN": TOKEN})
    )

    results = [run(*command, *arguments, env=env) for command in (["show", MODEL], ["shares", MODEL, "3=0.1"])]

    assert [result.exit_code for result in results] == [0, 0]
    assert all(TOKEN not in result.output for result in results)


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        (None, "answered 401: expected a token that is known"),
        ("tyd_wrong", "answered 401: expected a token that is known"),
        ("tyd_reader", "answered 403: expected a token of scope admin"),
        ("tyd_br\noken", "expected visible ASCII characters"),
        ("tyd_brökön", "expected visible ASCII characters"),
    ],
)
def test_a_token_that_does_not_let_in_is_never_shown(
    run: Command, double: Double, token: str | None, sentence: str
) -> None:
    """Missing, unknown, of another scope, and one that no header holds."""
    double.tokens = {TOKEN: ["admin"], "tyd_reader": ["infer"]}

    result = run("show", MODEL, env={"TILTYARD_TOKEN": token})

    assert (result.exit_code, "tyd_" in result.output) == (1, False)
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_token_in_the_command_is_refused(run: Command, double: Double) -> None:
    """Others read a process's arguments; help shows neither option nor value."""
    refused = run("show", MODEL, "--token", TOKEN)
    shown = run("show", "--help", env={"TILTYARD_TOKEN": TOKEN}).output

    assert (refused.exit_code, double.asked) == (1, [])
    assert TOKEN not in refused.output + shown
    assert "--token " not in shown
    assert "TILTYARD_TOKEN" in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "trains"], "among flight-delay, grid, got 'trains'"),
        (["show", "../x y"], "got '../x y'"),
        (["show", f"{MODEL}/route?"], f"got '{MODEL}/route?'"),
        (["promote", "trains", "2"], "among flight-delay, grid, got 'trains'"),
        (["set", MODEL, "nowhere.json"], "nowhere.json: expected a readable file, got: No such file"),
        (["set", MODEL, "route.yaml"], "expected a .json or .toml file"),
        (["show", MODEL, "--token-file", "nowhere"], "nowhere: expected a readable file"),
        (["show", MODEL, "--url", "localhost:8080"], "expected a URL such as"),
        (["show", MODEL, "--url", "http://a:b@c"], "without a password"),
        (["show", MODEL, "--url", "http://a:port"], "expected a URL such as"),
        (["show", MODEL, "--ca", "nowhere"], "nowhere: expected certificates as PEM, got: No such file"),
        (["show", MODEL, "--ca", __file__], "expected certificates as PEM"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run: Command, arguments: list[str], sentence: str) -> None:
    """On standard error, with status 1."""
    result = run(*arguments)

    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert result.stderr.startswith("tiltyard route: ")
    assert sentence in result.stderr


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Response("<html>", 200, {"etag": '"7"'}), "expected a Tiltyard server at"),
        (Response("{}", 200), "without the ETag of a route"),
        (Response("<html>", 404), "expected a Tiltyard server at"),
        (Response("", 302, {"location": "https://elsewhere"}), "a redirection to https://elsewhere"),
        (Response("<html>", 502), "answered 502"),
        (Response('{"error": "the disk is full\x7f"}', 503, {"retry-after": "2"}), "full�; try again in 2 s"),
        (Response('{"error": "slower"}', 429, {"retry-after": "3"}), "answered 429: slower; try again in 3 s"),
    ],
)
def test_an_answer_that_helps_nobody_is_one_sentence(
    run: Command, double: Double, answer: Response, sentence: str
) -> None:
    """Other servers, proxies, and a server that cannot at present."""
    double.answer_with = answer

    result = run("show", MODEL)

    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert sentence in result.stderr


def test_a_server_that_is_not_there(run: Command) -> None:
    """What the system says, without its numbers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]

    result = run("show", MODEL, "--url", f"http://127.0.0.1:{port}")

    assert result.stderr == f"tiltyard route: cannot connect to http://127.0.0.1:{port}: Connection refused\n"


def test_a_change_without_an_answer_may_have_been_made() -> None:
    """A server that hangs: in time, and the doubt is told only where there is one."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with closing(RouteClient(url, timeout_s=0.2)) as client:
            with pytest.raises(AwayError, match=r"did not answer in time; see .* for whether it was changed"):
                client.change(MODEL, promoting("2", None), 7, dry_run=False)
            with pytest.raises(AwayError, match=r"did not answer in time$"):
                client.change(MODEL, promoting("2", None), 7, dry_run=True)


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[tuple[Double, Path]]:
    """A server with TLS, and the authority of its certificate."""
    authority = Authority(tmp_path)
    double = Double(certificate=authority.sign("server"))
    double.start()
    yield double, authority.certificate
    double.stop()


def test_tls_is_trusted_as_told(run: Command, admin_url: str, over_tls: tuple[Double, Path]) -> None:
    """By its authority and no other; either protocol on the other's port is said."""
    double, ca = over_tls

    trusted = run("show", MODEL, "--url", double.url, "--ca", str(ca))
    unknown = run("show", MODEL, "--url", double.url)
    plain_on_tls = run("show", MODEL, "--url", double.url.replace("https", "http"))
    tls_on_plain = run("show", MODEL, "--url", admin_url.replace("http", "https"))

    assert trusted.exit_code == 0
    assert [each.exit_code for each in (unknown, plain_on_tls, tls_on_plain)] == [1, 1, 1]
    assert "cannot trust" in unknown.stderr
    assert "--ca" in unknown.stderr
    assert "does it want https?" in plain_on_tls.stderr
    assert "does it want http?" in tls_on_plain.stderr


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("reply", ["y", "n"])
def test_on_a_terminal_it_asks(admin_url: str, double: Double, reply: str, as_json: bool) -> None:
    """The difference is shown first; only a yes changes anything."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, "shares", MODEL, "3=0.3", "--url", admin_url, *(["--json"] if as_json else [])]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = _read_until(ours, b"Change it?")
    revision_before = double.route.revision
    os.write(ours, reply.encode() + b"\n")
    stdout, _ = process.communicate(timeout=30)
    os.close(ours)

    assert b"25 % of the units move from version 1 to version 3." in shown
    assert (revision_before, double.route.revision) == (7, 8 if reply == "y" else 7)
    assert process.returncode == (0 if reply == "y" else 1)
    if as_json and reply == "y":
        assert json.loads(stdout)["route"]["revision"] == 8


def test_on_a_terminal_a_table_fits_it(admin_url: str, double: Double) -> None:
    """80 columns for the longest names people give."""
    double.change(with_shares(FIRST, {"3": 1 / 3}), "shares", "rollout-of-flight-delay", "a reason " * 30)
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    for command in ("show", "history"):
        subprocess.run([*COMMAND, command, MODEL, "--url", admin_url], stdout=theirs, env=env, check=True)
    shown = _read_until(ours, b"first trial")
    os.close(theirs)
    os.close(ours)

    assert max(len(line) for line in shown.decode().splitlines()) <= 80


def test_watch_tells_changes_and_survives_an_absence(admin_url: str, double: Double) -> None:
    """What holds, a change and by whom, gone, back, what was changed meanwhile; Ctrl-C ends it well."""
    command = [*COMMAND, "watch", MODEL, "--url", admin_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ends = threading.Timer(60, process.kill)
        ends.start()
        assert process.stdout is not None
        assert process.stderr is not None
        _line_with(process.stdout, "3        split")
        _polled(double, 2)
        double.change(with_shares(double.route, {"3": 0.1}), "shares", "rollout", "looks good")
        first = _line_with(process.stdout, "revision 8")
        moved = _line_with(process.stdout, "of the units move")
        double.stop()
        away = process.stderr.readline()
        double.change(with_shares(double.route, {"3": 0.2}), "shares", "rollout")
        double.change(with_shares(double.route, {"3": 0.0}), "guard", "guard", "too many failed")
        double.start()
        back = process.stderr.readline()
        second = _line_with(process.stdout, "revision 9"), _line_with(process.stdout, "of the units move")
        third = _line_with(process.stdout, "revision 10"), _line_with(process.stdout, "of the units move")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        ends.cancel()

    assert first == "2026-03-01 12:01:00 UTC  revision 8, shares by rollout: looks good"
    assert moved == "5 % of the units move from version 1 to version 3."
    assert "cannot connect" in away
    assert "answers again" in back
    assert second[1] == "10 % of the units move from version 1 to version 3."
    assert third == (
        "2026-03-01 12:03:00 UTC  revision 10, guard: too many failed",
        "20 % of the units move from version 3 to version 1.",
    )
    assert (process.returncode, rest) == (0, "")
    conditional = [
        request.headers.get("if-none-match") for request in double.asked if request.url.path.endswith("route")
    ]
    assert conditional[:3] == [None, '"7"', '"7"']


def test_an_absence_is_told_once_however_long(double: Double) -> None:
    """Three questions without an answer, one without news, and a change that no history explains."""
    changed = with_shares(FIRST, {"3": 0.1})

    def forget() -> None:
        double.route = changed

    turns = iter([double.stop, lambda: None, lambda: None, double.start, lambda: None, forget])
    with closing(RouteClient(double.url)) as client:
        followed = follow(client, MODEL, lambda seconds: next(turns)())
        seen = [next(followed) for _ in range(4)]

    assert [type(each) for each in seen] == [Held, Away, Back, Changed]
    assert seen[3] == Changed(FIRST, changed, None)


def test_watch_ends_where_there_is_nothing_to_watch(run: Command) -> None:
    """A first question that fails is a failure, not an absence."""
    result = run("watch", "trains")

    assert (result.exit_code, "got 'trains'" in result.stderr) == (1, True)


def test_what_comes_from_elsewhere_commands_no_terminal() -> None:
    """Control characters are replaced, lines joined, what is endless cut."""
    assert (plain("a\x1b[2J\nb\x9b"), len(plain("x" * 9999))) == ("a�[2J b�", 1001)


def _read_until(terminal: int, text: bytes) -> bytes:
    """Returns what a terminal shows up to a text; fails when its program ends without."""
    shown = b""
    while text not in shown:
        try:
            found = os.read(terminal, 4096)
        except OSError:  # the program has closed it
            found = b""
        assert found, shown
        shown += found
    return shown


def _line_with(stream: Any, text: str) -> str:
    """Returns the next line that has a text; fails when there is none."""
    seen = []
    for line in stream:
        seen.append(line)
        if text in line:
            return str(line.rstrip())
    raise AssertionError(seen)


def _polled(double: Double, times: int) -> None:
    """Returns once the route has been asked for that often."""
    for _ in range(times):
        assert double.polled.acquire(timeout=20)


def write_log(path: Path) -> None:
    """Writes a log with two changes of the route, on two days, among other events."""
    outbox = Outbox(path, EventSettings())
    former = Route(champion="1", salt=MODEL)
    made = []
    for day, share in ((1, 0.1), (2, 0.4)):
        challengers = [Challenger(version="2", mode="split", share=share)]
        route = replaced(former, Route(champion="1", salt=MODEL, challengers=challengers))
        moment = datetime(2026, 3, day, 12, tzinfo=UTC)
        revision = Revision(
            id=f"r{day}", model=MODEL, base=former.revision, time=moment, by="anna", action="set", route=route
        )
        made += [audit_line("load", "anna", MODEL, {"version": "2"}, moment), route_line(revision, former)]
        former = route
    asyncio.run(outbox.append_durably(made))
    outbox.close()


@pytest.mark.parametrize(
    ("moment", "share"),
    [("2026-03-01T12:00:00Z", 0.1), ("2026-03-02T11:59:59", 0.1), ("2026-03-02T13:00:00+01:00", 0.4)],
)
def test_at_shows_what_held_then(tmp_path: Path, moment: str, share: float) -> None:
    """From the log alone, to the second in which it changed; no server is asked."""
    write_log(tmp_path / "outbox.db")
    command = ["at", MODEL, moment, "--outbox", str(tmp_path / "outbox.db")]

    found = CliRunner().invoke(app, [*command, "--json"])
    table = CliRunner().invoke(app, command)

    assert share_of(decode_route(found.stdout_bytes), "2") == share
    assert f"{share:.0%}".replace("%", " %") in words(table.stdout)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([MODEL, "2026-02-28T00:00:00Z"], "by 2026-02-28T00:00:00Z, found none"),
        (["nobody", "2027-01-01T00:00:00Z"], "the route of 'nobody'"),
        ([MODEL, "yesterday"], "expected a time such as 2026-03-01T12:00:00Z, got yesterday"),
        ([MODEL, "2027-01-01T00:00:00Z", "--outbox", "absent.db"], "absent.db: expected the file of an event log"),
    ],
)
def test_at_says_what_it_cannot_show(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    """Before the first change, an unknown model, no time, no log."""
    write_log(tmp_path / "outbox.db")

    found = CliRunner().invoke(app, ["at", "--outbox", str(tmp_path / "outbox.db"), *arguments])

    assert (found.exit_code, sentence in words(found.stderr)) == (1, True), found.stderr
