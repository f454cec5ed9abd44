"""What holds for every test: no test is timed, none reads the machine's own configuration."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import _pytest.pathlib
import pytest
from hypothesis import HealthCheck, settings

from cytowatch.durable import trees

# What the lab asserts is said as well as what a test asserts.
pytest.register_assert_rewrite("tests.lab")

from tests.lab.pictures import pictures, treating  # noqa: E402
from tests.lab.root import root  # noqa: E402
from tests.needs import CI  # noqa: E402

__all__ = ["pictures", "root", "treating"]

# On a busy machine the same example takes ten times as long, and no test of our own is about time.
settings.register_profile("cytowatch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cytowatch")

# Some tests leave folders of a thousand levels. At the end of a later run pytest removes them with a
# recursion that fails there, and with it the whole run, though every test has passed.
_pytest.pathlib.rm_rf = trees.remove

for _variable in ("CYTOWATCH_CONFIG", "CYTOWATCH_ROOT"):
    os.environ.pop(_variable, None)


def pytest_collection_finish() -> None:
    """What was collected stays until the end: no collection of garbage goes through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that cannot run here is skipped by the name of what is missing; in CI it fails."""
    for mark in item.iter_markers("unless"):
        if why := mark.args[0]:
            if CI:
                pytest.fail(f"CI must have all that tests need: {why}", pytrace=False)
            pytest.skip(why)


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """No test changes the environment of the tests after it: a left TMPDIR broke one far away."""
    before = dict(os.environ)
    yield
    left = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTEST_CURRENT_TEST" and before.get(name) != value
    }
    for name in left:
        del os.environ[name]
    os.environ.update(before)
    assert not left, "this test left the environment changed (use monkeypatch)"
