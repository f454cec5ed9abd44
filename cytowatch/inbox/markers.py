"""What copiers say is done: the files that ``done_marker`` names, by the user in whose inbox they lie."""

from __future__ import annotations

from cytowatch.inbox.scan import Drop

__all__ = ["Markers"]


class Markers:
    """Guards the markers that lie in the inboxes, each known by the path of what it marks."""

    def __init__(self) -> None:
        self._of_user: dict[str, dict[str, Drop]] = {}

    def put(self, user: str, found: dict[str, Drop]) -> None:
        """Let exactly `found` be those in the inbox of `user`."""
        self._of_user[user] = found
        if not found:
            del self._of_user[user]

    def __contains__(self, path: str) -> bool:
        return path in self._of_user.get(path.split("/", 1)[0], {})

    def of(self, path: str) -> Drop | None:
        """The marker of the file at `path`, or of a folder that it lies in."""
        found = self._of_user.get(path.split("/", 1)[0])
        while found and "/" in path:
            if path in found:
                return found[path]
            path = path.rpartition("/")[0]
        return None

    def take(self, path: str) -> Drop | None:
        """The marker of what lies at `path` itself, which is not known any longer."""
        return self._of_user.get(path.split("/", 1)[0], {}).pop(path, None)
