"""The old name of `tests.lab.prometheus`, until all tests that are on their way name the new one."""

from tests.lab.prometheus import *  # noqa: F403
