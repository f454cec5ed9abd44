"""Whether the tree is there, and whether its disk has room for anything new."""

from __future__ import annotations

from cytowatch.lifecycle import clock
from cytowatch.lifecycle.parts import Parts
from cytowatch.transitions.recover import recover
from cytowatch.tree import pauses
from cytowatch.tree.pauses import Pauses
from cytowatch.tree.room import Amount, free, spare, too_little

__all__ = ["Presence"]


class Presence:
    """Guards whether the tree is offline; for the main thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.offline = False

    def is_there(self) -> bool:
        """Whether the tree is still the one that is locked; what vanished is offline, not deleted."""
        parts, root = self._parts, self._parts.spool.root
        if not parts.spool.is_there():
            if not self.offline:
                parts.log.error("root_offline", root=str(root))
            self.offline = True
            # A thread takes its next file by itself.
            parts.engine.hold(Pauses(everyone=True))
            said = f"{root} is gone, or another tree lies there: all waits until it is back"
            parts.health.fault("root", said)
            parts.metrics.watcher_alive.set(0)
            return False
        if self.offline and not parts.engine.busy:
            self.offline = False
            parts.engine.hold(pauses.read(parts.spool))
            parts.log.info("root_back", root=str(root))
            parts.health.clear("root")
            for user, id_ in recover(parts.spool, now=clock.now()):
                parts.engine.submit(user, id_)
            parts.scan_now.set()
        self._make_again()
        return not self.offline

    def _make_again(self) -> None:
        """Make directories of the tree that somebody deleted, so that no drop fails for that."""
        parts, group = self._parts, self._parts.config.storage.group
        made = parts.spool.make_again()
        if made and group:
            parts.spool.share_with(group)
        for path in made:
            parts.log.warning("directory_made_again", path=str(path))

    def lacking_room(self) -> str | None:
        """What the disk lacks for anything new to begin; None if there is room."""
        parts = self._parts
        there = free(parts.spool.root)
        kept = spare(parts.config.storage, there)
        parts.metrics.set_free(there.bytes, there.inodes or 0)
        if lacks := too_little(there, Amount(), kept):
            parts.health.fault("disk", f"{lacks}: nothing new is begun")
            return lacks
        parts.health.clear("disk")
        return None
