"""The old name of `tests.lab.panel`, until all tests that are on their way name the new one."""

from tests.lab.panel import *  # noqa: F403
