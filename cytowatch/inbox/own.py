"""What holds for each user: the times, names and markers of an inbox, as the configuration gives them."""

from __future__ import annotations

from cytowatch.config import Config, Inbox

__all__ = ["Own"]


class Own:
    """Guards that the settings of a user are worked out once for each configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[str, Inbox] = {}

    def reconfigure(self, config: Config) -> None:
        """Go on with other settings."""
        self._config = config
        self._known.clear()

    def of(self, user: str) -> Inbox:
        """What holds for `user`."""
        if user not in self._known:
            self._known[user] = self._config.inbox.of(user)
        return self._known[user]

    def times(self, user: str) -> tuple[float, float]:
        """Seconds of quiet, and seconds for what is missing."""
        own = self.of(user)
        return own.quiet_s, own.incomplete_after_s

    def folder_quiet_s(self, folder: str) -> float:
        """For how long nothing may come into the dropped `folder` before it is at its end."""
        return self.of(folder.split("/", 1)[0]).folder_quiet_s
