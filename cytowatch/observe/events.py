"""Every line that the daemon logs: its word, its levels, what it tells, and what to do then.

A test walks through the source and compares, so that no line is missing here and none is made up.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EVENTS", "Event"]

_NOTHING = "Nothing."


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`word` is the line's ``event``; `fields` are its further keys, some lines have not all."""

    word: str
    levels: tuple[str, ...]
    tells: str
    fields: tuple[str, ...]
    admin: str = _NOTHING


EVENTS = (
    # The life of the daemon.
    Event(word="listening", levels=("info",), tells="Metrics and health are served.", fields=("address",)),
    Event(word="no_metrics", levels=("error",), tells="The address for metrics is not available; slides go on, and it is tried again.",
          fields=("detail",), admin="Free the port; or change `metrics.listen` and restart."),
    Event(word="start_waits", levels=("error",), tells="The daemon cannot start yet; it tries again by itself until it can.",
          fields=("detail", "report"), admin="Remove what `detail` names: [a full disk](how-to/full-disk.md), a disk that is not mounted. A `report` is a defect: please send it."),
    Event(word="sandbox_off", levels=("warning",), tells="Decoders run without Landlock.", fields=("detail",),
          admin="Use a kernel from 5.13 on with Landlock enabled; `sandbox.require` refuses to run without."),
    Event(word="ready", levels=("info",), tells="Recovered and watching; the scan of the inboxes has begun.",
          fields=("root", "workers")),
    Event(word="reloaded", levels=("info",), tells="The configuration was read again.", fields=("changed", "needs_a_restart"),
          admin="What is in `needs_a_restart` holds from the next start on."),
    Event(word="reload_refused", levels=("error",), tells="The configuration is wrong; the old one still holds.",
          fields=("detail",), admin="Mend the file and reload."),
    Event(word="requested", levels=("info",), tells="What a command asked for was done, or why not (`error`).",
          fields=("do", "id", "said", "error", "anyway")),
    Event(word="stopping", levels=("info",), tells="A signal came; what is in work is put down.", fields=("signal",)),
    Event(word="stopped", levels=("info",), tells="It has ended.", fields=("ended_in_error", "with_losses")),
    # Uploaded files.
    Event(word="claimed", levels=("info",), tells="A drop became an uploaded file; `seconds` is how long it settled.",
          fields=("id", "user", "name", "bytes", "seconds")),
    Event(word="stage", levels=("info", "warning"), tells="A change of status; a warning if it is an error.",
          fields=("id", "user", "from", "to", "format", "seconds", "bytes", "reason", "detail"),
          admin="[Reasons](reasons.md) has what to do for each."),
    Event(word="ended", levels=("info", "warning"), tells="One line for each upload at its end, with all that support needs.",
          fields=("id", "status", "user", "name", "dropped", "parent_id", "format", "bytes", "output_bytes", "pixels", "reader",
                  "seconds", "seconds_by_stage", "attempts", "warnings", "skipped", "lost", "children", "reason", "detail"),
          admin="As for `stage`."),
    Event(word="held_up", levels=("warning",), tells="A fault of the machine, or the same content that is still in work, makes an uploaded file wait; it goes on by itself.",
          fields=("id", "why", "detail"), admin="`disk`: [a full disk](how-to/full-disk.md). Else the detail names it."),
    Event(word="not_the_same", levels=("warning",), tells="Two decoder processes state the same hash, and the bytes differ: nothing is linked or refused for it.",
          fields=("id", "first"), admin="Run `cytowatch verify` on both: the hash of one of them is wrong."),
    Event(word="output_unnamed", levels=("warning",), tells="A decoder process left files that its answer does not name; they were removed.",
          fields=("id", "files", "count"), admin="Once: nothing. Again and again it is a defect: please report it."),
    Event(word="decoder_crashed", levels=("warning",), tells="The process that decoded an uploaded file died of a signal.",
          fields=("id", "status", "signal"),
          admin="One file: it ends ERROR after `engine.max_attempts`. Many: look for a change of libraries or memory."),
    Event(word="not_whole", levels=("error",), tells="A slide that is published already (`storage.hash = \"after\"`) lacks bytes; its manifest has a warning.",
          fields=("id", "lacks"), admin="Have it sent again, then remove this one."),
    Event(word="source_kept", levels=("warning",), tells="An original that is not to be kept could not be removed yet.",
          fields=("path", "error"), admin="Nothing; it is tried again at the next start."),
    Event(word="unexpected", levels=("error",), tells="A defect, ours or a library's, was met; the rest goes on.",
          fields=("id", "error", "report"), admin="Please report it, with the file that `report` names, or the dropped file itself if it names none."),
    Event(word="expired", levels=("info",), tells="An error was removed after `storage.keep_errors_days`.", fields=("id", "days")),
    # Recovery.
    Event(word="claim_recovered", levels=("warning",), tells="A claim was cut off by the last end, and was finished or undone.",
          fields=("id", "outcome"), admin="`kept`: both copies are there; `cytowatch check --deep` names them."),
    Event(word="second_copy", levels=("warning",), tells="An uploaded file was there twice, as after a restore; the copy that is less far on was put away.",
          fields=("id", "status", "path"), admin="Look at both, then delete the one at `path`."),
    Event(word="taken_up", levels=("info",), tells="An uploaded file that was in work goes on.", fields=("id", "user")),
    Event(word="indexing", levels=("info",), tells="The index is being made; so many so far.", fields=("files",)),
    Event(word="indexed", levels=("info",), tells="The index agrees with the tree; so many rows were mended.",
          fields=("files", "seconds")),
    Event(word="index_fault", levels=("warning",), tells="The index cannot be read or written; it is made right, nothing waits for it.",
          fields=("error",), admin="If it comes again: look for a full or failing disk below `state/`."),
    Event(word="vanished", levels=("warning",), tells="An uploaded file is no longer in storage, and no command removed it.",
          fields=("id", "user", "status"), admin="Restore it from a backup; `cytowatch remove ID` says that it is gone for good. `cytowatch verify` lists all of them."),
    # Watching.
    Event(word="events_lost", levels=("warning",), tells="The kernel dropped events; all inboxes are scanned.", fields=("detail",),
          admin="Often: raise `fs.inotify.max_queued_events`."),
    Event(word="watcher_replaced", levels=("warning",), tells="The watcher was dead or deaf, or its folder another; there is a new one.",
          fields=(), admin="Nothing, unless it comes again and again."),
    Event(word="waits", levels=("warning",), tells="A file or folder in an inbox cannot be read, or lies too deep; everything else is taken.",
          fields=("path", "why", "detail"), admin="The detail says whose it is; it goes on by itself when it can be read."),
    Event(word="thread_died", levels=("error",), tells="A thread ended that should not; who needs it makes a new one.",
          fields=("thread", "error"), admin="Please report it."),
    # The machine.
    Event(word="fault", levels=("warning",), tells="Something of the daemon's own work failed, and is tried again; `/healthz` has it too.",
          fields=("where", "error"), admin="The error is the system's own word."),
    Event(word="part_failed", levels=("error",), tells="A part of the daemon met an unexpected error; it pauses and is tried again, everything else goes on.",
          fields=("part", "error", "report"), admin="Please report it, with the file that `report` names."),
    Event(word="not_synced", levels=("warning",), tells="A change of status stands, but a power cut now could take it back; it would be done again.",
          fields=("path", "error"), admin="Look at the disk: it refused to write."),
    Event(word="root_offline", levels=("error",), tells="The tree is not there any more, or another one lies there.", fields=("root",),
          admin="Mount it again; cytowatch goes on by itself."),
    Event(word="root_back", levels=("info",), tells="The tree is there again.", fields=("root",)),
    Event(word="set_aside", levels=("warning",), tells="One thing met an unexpected error, or is damaged; all others go on, and it is tried again with a growing pause.",
          fields=("where", "which", "why"), admin="[What is set aside](how-to/set-aside.md)."),
    # Hooks.
    Event(word="hook", levels=("info", "warning"), tells="A delivery arrived, failed and is tried again, or was given up (`dead`).",
          fields=("hook", "outcome", "id", "status", "tries", "said"),
          admin="`dead`: mend the receiver, then `cytowatch hooks --retry`."),
    Event(word="hook_dropped", levels=("info",), tells="A delivery was noted for what then did not come about.",
          fields=("hook", "id", "status")),
)  # fmt: skip
