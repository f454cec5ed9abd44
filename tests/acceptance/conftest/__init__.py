"""The old name of `tests.lab.root`, until all tests that are on their way name the new one."""

from tests.lab.root import *  # noqa: F403
from tests.lab.told import *  # noqa: F403
