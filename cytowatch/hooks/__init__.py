"""Telling others that an uploaded file is finished: pending deliveries, and who makes them.

A delivery is noted on disk before the rename that it reports, so that no crash can forget it;
one that never came about is dropped at the next start.

Who delivers is `hooks.deliver`, which the commands do without: they start sooner by it.

Source: docs/decisions/014-hooks.md
"""

from __future__ import annotations

from cytowatch.hooks.pending import (
    Pending,
    count_dead,
    dead,
    drop_untrue,
    note,
    pending,
    revive,
)

__all__ = ["Pending", "count_dead", "dead", "drop_untrue", "note", "pending", "revive"]
