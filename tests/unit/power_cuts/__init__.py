"""Every step that makes something durable, but for a claim: a case for each, by what it is about.

Each case says what is there, what is done, and what must hold of every state that a cut may leave, once the
daemon's own recovery has been at it. `test_power_everywhere` tries them all.
"""

from tests.unit.power_cuts import archives, claims, contents, notices, panel, requests
from tests.unit.power_cuts.cases import CASES, Case

__all__ = ["CASES", "Case", "archives", "claims", "contents", "notices", "panel", "requests"]
