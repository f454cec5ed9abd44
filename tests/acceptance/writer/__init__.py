"""The old name of `tests.lab.writer`, until all tests that are on their way name the new one."""

from tests.lab.writer import *  # noqa: F403
