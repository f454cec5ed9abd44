"""The old name of `tests.lab.stages`, until all tests that are on their way name the new one."""

from tests.lab.stages import *  # noqa: F403
