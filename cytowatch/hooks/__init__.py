"""Notifying others that an uploaded file is finished: pending deliveries, and the threads that make them.

A delivery is written to disk before the rename that it reports, so no crash can lose it. If that rename
never happened, the next start drops the delivery.

`hooks.deliver` makes the deliveries. The commands do not import it, so they start sooner.

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
