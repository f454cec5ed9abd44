"""The old name of `tests.lab.samba`, until all tests that are on their way name the new one."""

from tests.lab.samba import *  # noqa: F403
