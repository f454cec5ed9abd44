"""Taking settled drops out of their inbox, so that a crash or a late writer does no harm.

The order matters. A lease on every file proves that nobody writes. The manifest and the list of
files to move are on disk before anything moves. A rename never replaces. The inodes are compared. A
lease that was broken meanwhile undoes everything. One more lease, on a path that is gone from the
share, proves that no writer is left. Only then does ``<id>/`` appear in ``stages/uploaded``.

Each fsync is needed: without it, a power cut could lose something
(test_power.py::test_every_fsync_of_a_claim_is_needed).

Source: fcntl(2) "Leases"; tested with Samba, whose clients wait for the lease and then write a
new inode.
"""

from __future__ import annotations

from cytowatch.inbox.claim.hold import lease, prepare_process
from cytowatch.inbox.claim.parcel import JOURNAL, Member, Parcel
from cytowatch.inbox.claim.recovery import recover
from cytowatch.inbox.claim.take import Claiming, claim

__all__ = [
    "JOURNAL",
    "Claiming",
    "Member",
    "Parcel",
    "claim",
    "lease",
    "prepare_process",
    "recover",
]
