"""Room for uploads beside the daemon's stages: daemon and panel tell each other what they may still write.

The daemon states it in ``state/live.json``, the panel in ``inbox/.uploads/.room*.json``
(`cytowatch.tree.announced`).
"""

from __future__ import annotations

import asyncio

from starlette.concurrency import run_in_threadpool

from cytowatch.observe import logs
from cytowatch.panel.context import Context
from cytowatch.panel.storage import live_of
from cytowatch.panel.uploads.store import Store
from cytowatch.tree import announced, find
from cytowatch.tree.room import Amount, free, spare, too_little

__all__ = ["Reserve"]

_FEW_INODES = 4
#: An upload that gets no new bytes for this long no longer holds up a stage: its client may never come back.
_IDLE_S = 3600.0
_LOOK_S = 1.0


class Reserve:
    """Guards that uploads and stages do not count on the same room; safe from any thread."""

    def __init__(self, context: Context, store: Store, part: announced.Part) -> None:
        self._context = context
        self._store = store
        self._part = part
        self._log = logs.get()

    def lacks(self, size_bytes: int, *, beside_bytes: int = 0) -> str | None:
        """Why `size_bytes` do not fit beside `beside_bytes`, the reserve and the daemon's stages; None if they do."""
        there = free(self._store.inbox)
        need = Amount(bytes=size_bytes, inodes=_FEW_INODES)
        others = self._of_stages() + Amount(bytes=beside_bytes)
        lacks = too_little(there, need, spare(self._context.config.storage, there), others)
        return f"There is no room for it: {lacks}." if lacks else None

    def _of_stages(self) -> Amount:
        """What the daemon's stages may still write; nothing while no daemon runs."""
        spool = self._context.spool
        said = live_of(self._context).get("reserved")
        if not said or find.daemon_pid(spool) is None:
            return Amount()
        return Amount(bytes=max(0, said["bytes"]), inodes=max(0, said["inodes"]))

    def announce(self) -> None:
        """Tell the daemon what uploads may still write, unless it knows already."""
        # Otherwise a stage may begin for which there is no room later.
        self._part.state(self._store.ledger.moving_bytes(_IDLE_S))

    async def announce_always(self) -> None:
        """Announce again and again, and follow what other panels of this tree accept."""
        while True:
            try:
                await run_in_threadpool(self._store.ledger.follow)
                await run_in_threadpool(self.announce)
            except OSError as error:
                self._log.warning("uploads_not_announced", detail=str(error))
                await asyncio.sleep(announced.AGAIN_S)
            await asyncio.sleep(_LOOK_S)
