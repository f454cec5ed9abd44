"""What holds for every test: no test is timed, none reads the machine's own configuration."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.needs import CI

# On a busy machine the same example takes ten times as long, and no test of ours is about time.
settings.register_profile("cytowatch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cytowatch")

for _variable in ("CYTOWATCH_CONFIG", "CYTOWATCH_ROOT"):
    os.environ.pop(_variable, None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that cannot run here is skipped by the name of what is missing; in CI it fails."""
    for mark in item.iter_markers("unless"):
        if why := mark.args[0]:
            if CI:
                pytest.fail(f"CI must have all that tests need: {why}", pytrace=False)
            pytest.skip(why)
