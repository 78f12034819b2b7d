"""The browser that looks at pages, where the machine has one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, sync_playwright

from tests.required import missing

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yields a Chromium without a window; one of the system's, else the one that Playwright has installed.

    Where there is none the test is skipped, or fails as `missing` says.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            missing(f"no Chromium to look at the page with: {error.message.splitlines()[0]}")
        yield browser
        browser.close()
