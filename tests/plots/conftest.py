"""A browser for the tests of pages that have a script."""

import pytest

from tests.browser import CHROMIUM, Browser


@pytest.fixture(scope="module")
def browser():
  if CHROMIUM is None:
    pytest.skip("no Chromium is installed")
  pytest.importorskip("tornado")
  with Browser() as found:
    yield found
