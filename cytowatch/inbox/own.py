"""The settings of each user: the times, names and markers of an inbox, from the configuration."""

from __future__ import annotations

from cytowatch.config import Config, Inbox

__all__ = ["Own"]


class Own:
    """Works out the settings of a user once per configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[str, Inbox] = {}

    def reconfigure(self, config: Config) -> None:
        """Use other settings from now on."""
        self._config = config
        self._known.clear()

    def of(self, user: str) -> Inbox:
        """The settings of `user`."""
        if user not in self._known:
            self._known[user] = self._config.inbox.of(user)
        return self._known[user]

    def times(self, user: str) -> tuple[float, float]:
        """Seconds of quiet, and seconds for what is missing."""
        own = self.of(user)
        return own.quiet_s, own.incomplete_after_s

    def folder_quiet_s(self, folder: str) -> float:
        """The seconds without a new file after which the dropped `folder` is finished."""
        return self.of(folder.split("/", 1)[0]).folder_quiet_s
