"""Whether there is a browser to look with."""

import os

import pytest

from support.pages import CHROMIUM, DRIVER


@pytest.fixture(scope="session")
def installed_browser():
    if not (CHROMIUM and DRIVER):
        assert not os.environ.get("CI"), "chromium and chromedriver are not installed, and CI must run this"
        pytest.skip("chromium and chromedriver are not installed")
