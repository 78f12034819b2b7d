"""A machine without a browser is told apart from a page that is wrong."""

from pathlib import Path

import pytest

from tests.browser import open_browser


@pytest.mark.parametrize(("everything", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_machine_without_chromium_skips_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, everything: str, outcome: type[BaseException]
) -> None:
    """And fails where everything must be there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    monkeypatch.setenv("TILTYARD_TESTS_REQUIRE_ALL", everything)

    with pytest.raises(outcome, match="no Chromium to look at the page with: "), open_browser():
        pass
