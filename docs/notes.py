"""Examples of the note that a technician reads for each reason, for docs/reference/notes.md.

Each detail is one that the code gives (tests/unit/test_notes.py compares it with the source). `reader` was written
by someone who read the note as a technician would who does not know the project: what that person does next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cytowatch.observe import arriving, wording
from cytowatch.observe.drops import Drops
from cytowatch.observe.seen import Seen
from cytowatch.record import lacking, reasons
from cytowatch.record.status import ERROR_OF

__all__ = ["EXAMPLES", "WAITING", "page", "seen"]

_AT = datetime(2026, 11, 29, 14, 44, tzinfo=UTC)
_HEAD = """# Every note of an error

The note that a technician reads on the status share for each [reason](../reasons.md), with values as the code gives them, and what
a reader who does not know the project then does. Drops that still wait follow at the end. This page is made from the code by `python docs/generate.py`. [What a technician
sees](../explanation/what-a-technician-sees.md) shows notes of archives, folders and waiting drops.
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A dropped path, the detail of its error, and what a reader does about it."""

    path: str
    detail: str
    reader: str


EXAMPLES: dict[str, Example] = {
    "unknown_format": Example("minutes.txt", lacking.kind("a text file"),
        "Sees that the wrong file was dropped, looks for the slide and drops that."),
    "unsupported_format": Example("case 7.kfb", lacking.kind("a KFBIO slide (KFB)", "export it as TIFF or SVS from K-Viewer"),
        "Opens K-Viewer, exports the slide as SVS and drops the new file."),
    "ambiguous_format": Example("odd.tif", "it could be any of Aperio SVS, Huron TIFF",
        "Writes to the administrator, names the file, and waits."),
    "incomplete": Example("scan.svs", "it is not whole: missing its first directory (it has 970,000 of at least 1,275,952 bytes)",
        "Copies the file again from the scanner, all of it."),
    "mixed_slides": Example("CMU-1.mrxs", "it holds files of two slides: CMU-1/Data0003.dat bears another SLIDE_ID than Slidedat.ini",
        "Makes a new empty folder, copies the whole slide into it from the scanner, and drops that."),
    "duplicate": Example("lung copy.svs", "the same content is there already, as 20261112-091500-k3f9-lung",
        "Does nothing more; uses the slide that is there."),
    "unreadable": Example("scan.ndpi", "it is marked as Hamamatsu NDPI, and OpenSlide cannot open it (Can't validate JPEG 0: No JPEG found)",
        "Copies it again; if the same note comes back, exports the slide again."),
    "unsafe_reference": Example("B12.vms", "B12.vms names '../A/x.jpg', which is not in its own folder",
        "Copies the whole folder from the scanner again, without renaming anything."),
    "reader_missing": Example("Image_01.vsi", "slideio reads CellSens VSI, and is not installed here",
        "Writes to the administrator and waits; does not send the slide again."),
    "damaged_archive": Example("week 48.zip", "the zip cannot be read: the end of its zip64 directory is missing",
        "Packs the slides again with Windows and drops the new zip."),
    "no_image": Example("week 48.zip", "it holds no image (list.xlsx: an Office document)",
        "Opens the zip, sees that the wrong folder was packed, packs the right one."),
    "encrypted": Example("week 48.zip", "the member liver.svs is encrypted",
        "Packs again and leaves the field for the password empty."),
    "too_many_entries": Example("year 2026.zip", "it holds more than the 100,000 members allowed",
        "Makes several smaller zips, one a month."),
    "too_large": Example("year 2026.zip", "it unpacks to more than 1,099,511,627,776 bytes (limits.archive_max_bytes)",
        "Makes several smaller zips, one a month."),
    "ratio": Example("test.zip", "it unpacks to more than 200 times its size (limits.archive_max_ratio)",
        "Writes to the administrator, says who made the zip, and waits."),
    "path_traversal": Example("from outside.zip", "the member ../../etc/passwd leads out of the archive",
        "Does not send it again; asks the sender for the slides themselves."),
    "absolute_path": Example("old.zip", "the member C:/slides/liver.svs has an absolute path",
        "Packs the slides again with Windows and drops the new zip."),
    "control_characters": Example("old.zip", "the name liver\\x07.svs holds control characters",
        "Packs the slides again with Windows and drops the new zip."),
    "duplicate_names": Example("batch.zip", "the members HE.SVS and HE.svs differ only by case or accents",
        "Renames one of the two files and packs again."),
    "file_against_folder": Example("from outside.zip", "the member a is a file, and the folder of a/b.svs",
        "Does not send it again; asks the sender for the slides themselves."),
    "no_name": Example("from outside.zip", "a member has no name",
        "Does not send it again; asks the sender for the slides themselves."),
    "name_too_long": Example("batch.zip", f"the name {'a' * 60} has more than 255 bytes",
        "Shortens the name of that file (the detail shows it) and packs again."),
    "reserved_name": Example("batch.zip", "the name aux.svs stands for a device on Windows",
        "Renames that file (the detail shows it) and packs again."),
    "nested_too_deep": Example("backup.zip", "the member a/b/c/d lies 70 folders deep",
        "Takes the slides out of their folders and packs only them."),
    "spanned": Example("batch.z01", "it is one part of an archive that is split over several",
        "Packs all slides into one zip, without splitting it."),
    "doubled_directory": Example("from outside.zip", "it has two directories, and programs differ in which they use",
        "Does not send it again; asks the sender for the slides themselves."),
    "overlapping_entries": Example("from outside.zip", "two of its members share the same bytes",
        "Does not send it again; asks the sender for the slides themselves."),
    "link": Example("from linux.tar.gz", "the member liver.svs is a symbolic link",
        "Packs the slides again with Windows and drops the new zip."),
    "special_file": Example("backup.tar", "the member dev/sda is not a regular file",
        "Packs only the slides with Windows and drops the new zip."),
    "damaged": Example("skin.jpg", "its pixels are incomplete or corrupt (VipsJpeg: Corrupt JPEG data: premature end of data segment)",
        "Copies it again; if the same note comes back, takes the photograph again."),
    "no_pixels": Example("test.czi", "it has only reduced images, and not their original",
        "Copies it again; if the same note comes back, scans again."),
    "unsupported_samples": Example("phase.tif", "its samples are complex64",
        "Exports it with 8 or 16 bits from the microscope's software and drops that."),
    "too_many_pixels": Example("wall.tif", "it has 900,000 x 400,000 = 360,000,000,000 pixels, 100,000,000,000 are allowed (limits.max_pixels)",
        "Writes to the administrator and waits; does not send it again."),
    "side_too_long": Example("strip.png", "a side of it has 3,000,000 pixels, 2,000,000 are allowed (limits.max_side)",
        "Writes to the administrator and waits; does not send it again."),
    "too_many_samples": Example("spectral.tif", "it has 900 samples per pixel, 64 are allowed (limits.max_samples)",
        "Writes to the administrator and waits; does not send it again."),
    "too_many_pages": Example("stack.tif", "it has more than 100,000 directories, 100,000 are allowed (limits.max_pages)",
        "Writes to the administrator and waits; does not send it again."),
    "too_many_tags": Example("odd.tif", "one of its directories has 5,000 tags, 1,000 are allowed (limits.max_tags)",
        "Writes to the administrator and waits; does not send it again."),
    "expansion": Example("tiny.png", "its 1,204 bytes promise 4,294,967,296 bytes of pixels, 100,000 times as many are allowed (limits.max_expansion)",
        "Writes to the administrator, says who made the file, and waits."),
    "too_large_for_memory": Example("poster.jp2", "reading it whole needs 9,000,000,000 bytes of memory, 2,147,483,648 may be used (half of sandbox.memory_bytes)",
        "Writes to the administrator and waits; does not send it again."),
    "verification_failed": Example("scan.svs", "OpenSlide does not open the pyramid",
        "Copies it again; if the same note comes back, exports the slide again."),
    "changed": Example("scan.svs", "source/scan.svs has 1,300,000 bytes now, 1,275,952 were received",
        "Waits until the scanner is done, then drops the slide again."),
    "manifest_damaged": Example("scan.svs", "its manifest cannot be read (manifest.json: Expecting value: line 1 column 1 (char 0))",
        "Writes to the administrator and waits; does not send it again."),
    "first_gone": Example("lung copy.svs", "the one of the same content that it was to be linked to is gone",
        "Writes to the administrator and waits; does not send it again."),
    "crashed_repeatedly": Example("scan.czi", "the decoder crashed 3 times on it, last by SIGSEGV: the file is damaged, or of a kind that this decoder cannot read",
        "Copies it again; if the same note comes back, exports the slide in another format."),
    "out_of_memory": Example("scan.czi", "it needs more than the 4,294,967,296 bytes of memory that a decoder may use (sandbox.memory_bytes)",
        "Writes to the administrator and waits; does not send it again."),
    "larger_than_disk": Example("year 2026.zip", "it may need room for 9,000,000,000,000 bytes and 120 inodes, which is more than the whole disk has",
        "Writes to the administrator and waits; does not send it again."),
    "output_too_large": Example("scan.czi", "it has written 9,000,000,000 bytes, of which it asked for 12,000,000, and 0 are free",
        "Writes to the administrator and waits; does not send it again."),
    "faults_repeatedly": Example("scan.czi", "in the last of 9 attempts its decoder reported a fault of the machine, and none was found: Input/output error",
        "Writes to the administrator and waits; does not send it again."),
    "timed_out": Example("wall.tif", "it was not done after 14400 s, so it was ended",
        "Writes to the administrator and waits; does not send it again."),
    "no_progress": Example("scan.czi", "nothing moved for 600 s, so it was ended",
        "Writes to the administrator and waits; does not send it again."),
    "output_refused": Example("scan.czi", "the stage's output was refused: 'derived/x.tiff' is not a regular file",
        "Writes to the administrator and waits; does not send it again."),
    "unexpected": Example("scan.czi", "an unexpected error occurred (KeyError: 'Scenes')",
        "Writes to the administrator and waits; does not send it again."),
}  # fmt: skip

#: The same of what waits in an inbox.
WAITING: dict[str, Example] = {
    "settling": Example("scan.svs", "waiting until nothing about it changes any more",
        "Does nothing, and looks again in a few minutes."),
    "open_for_writing": Example("scan.svs", "somebody still has it open for writing",
        "Waits for the scanner; if the note is still there after lunch, closes the scanner's window."),
    "still_copied": Example("scan.svs", "its copy program is still at work on it: scan.svs.aria2 lies beside it",
        "Opens the copy program and lets it finish."),
    "temporary_name": Example("scan.svs.part", "it has a name that says that it is still being copied",
        "Opens the copy program, finds that it broke off, and starts it again."),
    "no_lease": Example("scan.svs", "", "Does nothing, and looks again in a few minutes."),
    "incomplete": Example("scan.svs", "missing its first directory (it has 970,000 of at least 1,275,952 bytes)",
        "Copies the slide from the scanner again, under the same name, before the next afternoon."),
    "done_marker": Example("scan.svs", "waiting for scan.svs.done",
        "Lets the copy program finish; asks the administrator if it was copied by hand."),
    "paused": Example("scan.svs", "the administrator has paused it; it is taken later",
        "Does nothing; asks the administrator if it is urgent."),
    "not_an_image": Example("notes.txt", "it is a text file, and stays where it is",
        "Leaves the file there, or deletes it."),
    "too_deep": Example("backup", "it lies more than 32 folders deep: drop the slides themselves",
        "Opens the folders, and drops the slides at the bottom of them."),
    "no_user": Example("scan.svs", "it lies in no user's inbox folder",
        "Moves the slide into the folder with their own name."),
    "not_a_regular_file": Example("scan.svs", "it is a link, and links are not followed: copy the file itself",
        "Copies the slide itself instead of the shortcut to it."),
    "other_filesystem": Example("scan.svs", "it is on another filesystem than the root",
        "Writes to the administrator."),
    "not_permitted": Example("scan.svs", "it cannot be moved (Permission denied): it and the folder that it lies in must belong to the user of cytowatch, and be writable",
        "Writes to the administrator."),
    "unreadable": Example("scan.svs", "it cannot be opened: Permission denied",
        "Writes to the administrator."),
    "set_aside": Example("scan.svs", "it was set aside after an unexpected error, and is tried again (KeyError: 'x')",
        "Writes to the administrator, and leaves the file there."),
    "input_output": Example("scan.svs", "Input/output error",
        "Writes to the administrator, and leaves the file there."),
    "disk": Example("scan.svs", "9,100,000,000 bytes are free, and 10,737,418,240 must stay free as the reserve: nothing new is begun; it is taken when there is room",
        "Does nothing; tells the administrator if the note is still there the next day."),
    "other": Example("scan.svs", "Stale file handle",
        "Looks again after lunch, and then writes to the administrator."),
}  # fmt: skip


def seen(word: str) -> Seen:
    """An uploaded file that ended in an error for that reason."""
    one, known = EXAMPLES[word], reasons.of(word)
    assert known is not None
    return Seen(
        id="20261129-144402-k3f9-scan",
        parent_id=None,
        user="ann",
        path=one.path,
        status=ERROR_OF[known.stages[0]],
        share=1.0,
        at=_AT,
        received_at=_AT.isoformat(),
        reason=word,
        detail=one.detail,
        same_as="lung.svs of 2026-11-12" if word == "duplicate" else None,
    )


def page() -> str:
    """docs/reference/notes.md."""
    parts = [_HEAD]
    for reason in sorted(reasons.REASONS, key=lambda one: one.word):
        note = wording.of_one(seen(reason.word), None)
        parts.append(
            f"## {reason.word}\n\n`! {note.about} - {note.says}.txt`\n\n```text\n{_without_zone(note.text)}```\n\n"
            f"A reader: {EXAMPLES[reason.word].reader}\n"
        )
    parts.append("# Every note of a drop that waits\n")
    for word in reasons.WAITING:
        one = WAITING[word]
        row = {
            "user": "ann", "path": f"ann/{one.path}", "why": word, "detail": one.detail, "size_bytes": 970_000,
            "since": "2026-11-29T14:44:02Z", "until": "2026-11-30T14:44:00Z" if word == "incomplete" else None,
        }  # fmt: skip
        [note] = arriving.notes([row], Drops(keep_for=_AT - _AT)).values()
        first = "! " if note.first else ""
        shown = note.text.replace(wording.local(_AT + timedelta(days=1)), "2026-11-30 14:44 UTC")
        parts.append(
            f"## {word}\n\n`{first}{note.about} - {note.says}.txt`\n\n```text\n{shown}```\n\nA reader: {one.reader}\n"
        )
    return "\n".join(parts)


def _without_zone(text: str) -> str:
    """The same where the clock on the wall is another one."""
    return text.replace(wording.local(_AT), "2026-11-29 14:44 UTC")
