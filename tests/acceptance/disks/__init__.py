"""The old name of `tests.lab.disks`, until all tests that are on their way name the new one."""

from tests.lab.disks import *  # noqa: F403
