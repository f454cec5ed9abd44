"""Every line that the daemon logs: its word, its levels, its meaning, and what to do.

A test compares this list with the source, so that no line is missing and none is invented.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EVENTS", "Event"]

_NOTHING = "Nothing."


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`word` is the line's ``event``; `fields` are its other keys, not all of which are in every line."""

    word: str
    levels: tuple[str, ...]
    tells: str
    fields: tuple[str, ...]
    admin: str = _NOTHING


EVENTS = (
    # The life of the daemon.
    Event(word="listening", levels=("info",), tells="The daemon serves metrics and health.", fields=("address",)),
    Event(word="log_lost", levels=("warning",), tells="The reader of the log did not keep up, or its disk was full: so many lines were lost. No slide waited for it.",
          fields=("lines",), admin="Check the reader: `systemctl status systemd-journald`, or the program behind the pipe."),
    Event(word="no_metrics", levels=("error",), tells="The address for metrics is not available. Slides are processed all the same, and the daemon tries again.",
          fields=("detail",), admin="Free the port, or change `metrics.listen` and restart."),
    Event(word="start_waits", levels=("error",), tells="The daemon cannot start yet. It tries again by itself until it can.",
          fields=("detail", "report"), admin="Remove the cause that `detail` names: [a full disk](how-to/full-disk.md), a disk that is not mounted. If there is a `report`, it is a defect: please send it."),
    Event(word="sandbox_off", levels=("warning",), tells="Decoders run without Landlock.", fields=("detail",),
          admin="Use Linux 5.13 or later with Landlock enabled. `sandbox.require` refuses to run without it."),
    Event(word="ready", levels=("info",), tells="The daemon has recovered and watches; the scan of the inboxes has started.",
          fields=("root", "workers")),
    Event(word="reloaded", levels=("info",), tells="The configuration was read again.", fields=("changed", "needs_a_restart"),
          admin="The keys in `needs_a_restart` take effect at the next start."),
    Event(word="reload_refused", levels=("error",), tells="The new configuration has errors; the old one stays in effect.",
          fields=("detail",), admin="Correct the file and reload."),
    Event(word="requested", levels=("info",), tells="A command's request was carried out, or refused (`error`).",
          fields=("do", "id", "said", "error", "anyway", "project", "user", "by")),
    Event(word="stopping", levels=("info",), tells="A signal arrived; work in progress is interrupted.", fields=("signal",)),
    Event(word="stopped", levels=("info",), tells="The daemon has ended.", fields=("ended_in_error", "with_losses")),
    # Uploaded files.
    Event(word="claimed", levels=("info",), tells="A drop became an uploaded file; `seconds` is how long it took to settle.",
          fields=("id", "user", "name", "bytes", "seconds")),
    Event(word="stage", levels=("info", "warning"), tells="An uploaded file changed its status; a warning if the new status is an error.",
          fields=("id", "user", "from", "to", "format", "seconds", "bytes", "reason", "detail"),
          admin="See [reasons](reasons.md)."),
    Event(word="ended", levels=("info", "warning"), tells="An uploaded file is finished: one line with everything that support needs.",
          fields=("id", "status", "user", "name", "dropped", "parent_id", "format", "bytes", "output_bytes", "pixels", "reader",
                  "seconds", "seconds_by_stage", "attempts", "warnings", "skipped", "lost", "children", "reason", "detail"),
          admin="As for `stage`."),
    Event(word="held_up", levels=("warning",), tells="An uploaded file waits because the machine has a fault, or because the same content is still in progress. It continues by itself.",
          fields=("id", "why", "detail"), admin="`disk`: see [a full disk](how-to/full-disk.md). Otherwise the detail names the cause."),
    Event(word="not_the_same", levels=("warning",), tells="Two decoder processes state the same hash, but the bytes differ. Nothing is linked or refused because of it.",
          fields=("id", "first"), admin="Run `cytowatch verify` on both: the hash of one of them is wrong."),
    Event(word="output_unnamed", levels=("warning",), tells="A decoder process left files that its answer does not name. They were removed.",
          fields=("id", "files", "count"), admin="If it happens once, nothing. If it happens repeatedly, it is a defect: please report it."),
    Event(word="decoder_crashed", levels=("warning",), tells="A signal ended the process that decoded an uploaded file.",
          fields=("id", "status", "signal"),
          admin="For one file: it ends in an error after `engine.max_attempts`. For many: check for changed libraries or too little memory."),
    Event(word="decoder_said", levels=("info",), tells="Everything that a library said about a file; the detail of its error quotes one line of it.",
          fields=("id", "said"), admin="Attach it to a report."),
    Event(word="not_whole", levels=("error",), tells="A slide that is already published (`storage.hash = \"after\"`) lacks bytes. Its manifest has a warning.",
          fields=("id", "lacks"), admin="Ask for it to be sent again, then remove this one."),
    Event(word="source_kept", levels=("warning",), tells="An original that should be deleted could not be removed yet.",
          fields=("path", "error"), admin="Nothing. The next start tries again."),
    Event(word="unexpected", levels=("error",), tells="The program or a library has a defect. Everything else continues.",
          fields=("id", "error", "report"), admin="Please report it, with the file that `report` names, or with the dropped file if there is no `report`."),
    Event(word="expired", levels=("info",), tells="An error was removed after `storage.keep_errors_days`.", fields=("id", "days")),
    # Recovery.
    Event(word="claim_recovered", levels=("warning",), tells="The last stop interrupted a claim, which is now finished or undone.",
          fields=("id", "outcome"), admin="`kept`: both copies exist; `cytowatch check --deep` names them."),
    Event(word="second_copy", levels=("warning",), tells="An uploaded file existed twice, as after a restore. The copy that was less far along was moved away.",
          fields=("id", "status", "path"), admin="Look at both, then delete the one at `path`."),
    Event(word="taken_up", levels=("info",), tells="An uploaded file that was in progress continues.", fields=("id", "user")),
    Event(word="indexing", levels=("info",), tells="The index is being built; `files` counts what it holds by now.", fields=("files",)),
    Event(word="indexed", levels=("info",), tells="The index agrees with the tree; `files` counts the rows that were corrected.",
          fields=("files", "seconds")),
    Event(word="index_fault", levels=("warning",), tells="The index cannot be read or written. It is rebuilt, and nothing waits for it.",
          fields=("error",), admin="If it happens again, check for a full or failing disk below `state/`."),
    Event(word="vanished", levels=("warning",), tells="An uploaded file is no longer in storage, and no command removed it.",
          fields=("id", "user", "status"), admin="Restore it from a backup. If it was deleted on purpose, run `cytowatch remove ID`. `cytowatch verify` lists all of them."),
    # Watching.
    Event(word="events_lost", levels=("warning",), tells="The kernel dropped events. All inboxes are scanned.", fields=("detail",),
          admin="If it happens often, raise `fs.inotify.max_queued_events`."),
    Event(word="watcher_replaced", levels=("warning",), tells="The watcher stopped or received nothing, or its folder was replaced. A new one runs.",
          fields=(), admin="Nothing, unless it happens repeatedly."),
    Event(word="waits", levels=("warning",), tells="A file or folder in an inbox cannot be read or moved, is on another filesystem, or is nested too deeply. Everything else is taken.",
          fields=("path", "why", "detail"), admin="The detail names its owner. It continues by itself once it can be read."),
    Event(word="thread_died", levels=("error",), tells="A thread ended unexpectedly. The part that needs it starts a new one.",
          fields=("thread", "error"), admin="Please report it."),
    # The machine.
    Event(word="fault", levels=("warning",), tells="Part of the daemon's own work failed and is tried again. `/healthz` shows it too.",
          fields=("where", "error"), admin="The error is the system's own message."),
    Event(word="part_failed", levels=("error",), tells="A part of the daemon met an unexpected error. It pauses and is tried again; everything else continues.",
          fields=("part", "error", "report"), admin="Please report it, with the file that `report` names."),
    Event(word="not_synced", levels=("warning",), tells="A status has changed, but a power cut now could undo it. The step would then be repeated.",
          fields=("path", "error"), admin="Check the disk: it refused to write."),
    Event(word="root_offline", levels=("error",), tells="The tree is no longer there, or a different one is in its place.", fields=("root",),
          admin="Mount it again. cytowatch continues by itself."),
    Event(word="directory_made_again", levels=("warning",), tells="A directory of the tree was missing, and was made again.",
          fields=("path",), admin="Find out what deletes empty directories of the tree: a cleaning job, a backup."),
    Event(word="root_back", levels=("info",), tells="The tree is back.", fields=("root",)),
    Event(word="set_aside", levels=("warning",), tells="One thing is damaged or met an unexpected error. All others continue, and it is tried again with growing pauses.",
          fields=("where", "which", "why"), admin="See [what is set aside](how-to/set-aside.md)."),
    # Hooks.
    Event(word="hook", levels=("info", "warning"), tells="A notification arrived, failed and is tried again, or was given up (`dead`).",
          fields=("hook", "outcome", "id", "status", "tries", "said"),
          admin="`dead`: repair the receiver, then run `cytowatch hooks --retry`."),
    Event(word="hook_dropped", levels=("info",), tells="A notification was prepared for a change that did not happen.",
          fields=("hook", "id", "status")),
    # The panel, a process of its own.
    Event(word="panel_listening", levels=("info",), tells="The panel serves its pages.",
          fields=("address", "root", "auth", "version")),
    Event(word="panel_stopped", levels=("info",), tells="The panel has ended.", fields=()),
    Event(word="request", levels=("debug", "info", "warning"), tells="The panel answered one request. Tiles, metrics and page parts that reload are logged at level `debug`.",
          fields=("method", "path", "code", "seconds", "bytes", "user", "by", "address"),
          admin="A warning is an answer of 500 or more: look for `panel_unexpected`."),
    Event(word="action", levels=("info", "warning"), tells="Someone requested a change in the panel; the line `requested` of the daemon has the same `by`.",
          fields=("action", "id", "project", "whom", "by", "proof", "said", "refused")),
    Event(word="login", levels=("info", "warning"), tells="Someone tried to log in; `result` is `good`, `wrong`, `slowed` or `unreachable`. The line contains no password.",
          fields=("result", "user", "address", "detail"),
          admin="`unreachable`: check `panel.smb_server`. Many that are `wrong` from one address: somebody guesses."),
    Event(word="tile_lost", levels=("warning",), tells="A part of a slide could not be drawn and is shown in grey. Everything else is shown.",
          fields=("id", "scene", "at_level", "box", "detail"),
          admin="Once: nothing. One slide again and again: `cytowatch verify ID` says whether it is damaged. Many slides: look for a change of libraries or memory."),
    Event(word="upload_published", levels=("info",), tells="An added file or folder is complete and lies in the inbox as a drop.",
          fields=("path",), admin="Nothing."),
    Event(word="uploads_expired", levels=("info",), tells="Uploads to which nothing was added for a day were removed.",
          fields=("count",), admin="Nothing."),
    Event(word="uploads_not_announced", levels=("warning",), tells="The panel could not tell the daemon how much room uploads need; a stage may take it.",
          fields=("detail",), admin="Check who owns `inbox/.uploads`."),
    Event(word="uploads_not_expired", levels=("warning",), tells="Expired uploads could not be removed. The panel tries again after half an hour.",
          fields=("detail",), admin="Check who owns `inbox/.uploads`."),
    Event(word="panel_unexpected", levels=("error",), tells="A request ended in an unexpected error. No other request is affected.",
          fields=("path", "error", "detail"), admin="A defect: please report the line."),
)  # fmt: skip
