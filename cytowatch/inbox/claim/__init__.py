"""Taking what has settled out of its inbox, so that a crash or a late writer costs nothing.

The order is what counts: a lease on every file proves that nobody writes; the manifest and the
list of what will be moved are on disk before anything moves; a rename never replaces; the inodes
are compared; a lease that was broken meanwhile undoes it all; one more lease, on a path that is
gone from the share, proves that no writer is left; only then does ``<id>/`` appear in
``stages/uploaded``.

Each fsync of it is needed: left out, some state that a power cut may leave is a loss
(test_power.py::test_every_fsync_of_a_claim_is_needed).

Source: fcntl(2) "Leases"; tried against Samba, whose clients wait for the lease and then write a
new inode.
"""

from __future__ import annotations

from cytowatch.inbox.claim.hold import lease, prepare_process
from cytowatch.inbox.claim.parcel import JOURNAL, Member, Parcel
from cytowatch.inbox.claim.recovery import recover
from cytowatch.inbox.claim.take import claim

__all__ = ["JOURNAL", "Member", "Parcel", "claim", "lease", "prepare_process", "recover"]
