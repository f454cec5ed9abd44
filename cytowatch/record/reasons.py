"""Every reason that an uploaded file can end in an error for, and every reason that a drop waits for.

A reason is a stable word for machines. People read its texts: `says` in the name of the note on the share,
`means` and `technician` in that note, `admin` on the command line and in the documents. A technician only sees the
share: those texts name no command, no configuration and no page.
"""

from __future__ import annotations

from dataclasses import dataclass

from cytowatch.record.status import ERROR_OF, Status

__all__ = ["ASK", "REASONS", "WAITING", "Reason", "Wait", "of"]

_DETECT = (Status.DETECTING_FORMAT,)
_EXTRACT = (Status.EXTRACTING_DATA,)
_CONVERT = (Status.CONVERTING,)
_DEPLOY = (Status.DEPLOYING,)
_ANY = tuple(ERROR_OF)

_COPY = "Copy it again from the scanner. If that ends the same, export or scan the slide again."
_RAISE = "Ask the administrator to raise the limit. Do not send it again: the administrator can have it tried again."
#: What a technician does about anything that only the administrator can mend.
ASK = "Ask the administrator to look at it. Do not send it again: the administrator can have it tried again."
_PACK = "Pack the slides again with the zip function of Windows or macOS, and drop the new zip."
_HOSTILE = "Do not send it again. Ask the person who made the archive for the slides themselves."
_RETRY = "then `cytowatch retry ID`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """`stages` are those in which it occurs."""

    word: str
    stages: tuple[Status, ...]
    says: str
    means: str
    technician: str
    admin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why a drop is still in its inbox; `by_hand` where nothing happens until a person does something."""

    says: str
    means: str
    technician: str
    admin: str
    by_hand: bool = False


REASONS = (
    Reason(word="unknown_format", stages=_DETECT, says="not a slide or image",
           means="It is not a slide or an image that can be shown.",
           technician="Send the slide itself, as the scanner saved it.",
           admin="`cytowatch detect FILE` shows what it looks like; `cytowatch return ID` hands it back."),
    Reason(word="unsupported_format", stages=(*_DETECT, *_EXTRACT, *_CONVERT), says="kind of file cannot be taken",
           means="This kind of slide or image cannot be taken as it is.",
           technician="Export it in another format from the scanner's software (TIFF or SVS), and drop that.",
           admin="`cytowatch formats` lists what can be taken."),
    Reason(word="ambiguous_format", stages=_DETECT, says="two formats at once",
           means="It looks like two formats at once, and a guess could show a wrong image.",
           technician=ASK,
           admin="Report it with the first megabyte of the file: one of the markers must be narrowed."),
    Reason(word="incomplete", stages=(*_DETECT, *_CONVERT), says="incomplete",
           means="Not all of it arrived.",
           technician="Send all of it again.",
           admin="`cytowatch retry ID` puts it back into its inbox, to meet its late part; `inbox.incomplete_after_s` is how long it waits."),
    Reason(word="mixed_slides", stages=_DETECT, says="files of two slides",
           means="Its files belong to two different slides.",
           technician="Copy the whole slide again from the scanner, into an empty folder or a new zip.",
           admin="`cytowatch return ID` hands the files back; the detail names the file of the other slide."),
    Reason(word="duplicate", stages=_DETECT, says="is there already",
           means="The same slide is there already.",
           technician="Nothing: the slide can be used.",
           admin="`storage.duplicates` decides whether the same content is taken twice."),
    Reason(word="unreadable", stages=_DETECT, says="cannot be opened",
           means="It is marked as a slide, but cannot be opened.",
           technician=_COPY,
           admin="The detail ends with the words of the library that reads it."),
    Reason(word="unsafe_reference", stages=_DETECT, says="refers to other folders",
           means="Its index file refers to files outside its own folder.",
           technician="Copy the whole slide again, with the names that the scanner gave its files.",
           admin="The index was edited by hand, or it is an attack. The files that it names were not read."),
    Reason(word="reader_missing", stages=(*_DETECT, *_CONVERT), says="reader not installed",
           means="The software that reads this kind of slide is not installed.",
           technician=ASK,
           admin="CellSens VSI needs slideio, which exists only for x86_64."),
    Reason(word="damaged_archive", stages=_EXTRACT, says="damaged archive",
           means="The archive is damaged, and cannot be unpacked.",
           technician=_PACK,
           admin="The upload was cut off or damaged on its way, or an unusual program made the archive."),
    Reason(word="no_image", stages=_EXTRACT, says="no image in it",
           means="There is no slide and no image in it.",
           technician="Check that you packed the right folder, then pack and drop the slides again.",
           admin="`cytowatch show ID` lists its members and why each was passed over."),
    Reason(word="encrypted", stages=_EXTRACT, says="needs a password",
           means="It needs a password.",
           technician="Pack it again without a password.",
           admin="Nothing can be done here without the password."),
    Reason(word="too_many_entries", stages=_EXTRACT, says="too many files in it",
           means="It holds more files than are allowed in one archive.",
           technician="Pack fewer slides into one zip.",
           admin=f"Raise `limits.archive_max_entries`, {_RETRY}."),
    Reason(word="too_large", stages=_EXTRACT, says="too large unpacked",
           means="Its content is larger than is allowed for one archive.",
           technician="Pack fewer slides into one zip.",
           admin=f"Raise `limits.archive_max_bytes`, {_RETRY}."),
    Reason(word="ratio", stages=_EXTRACT, says="suspicious archive",
           means="It unpacks to so many times its size that it may be an attack.",
           technician=ASK,
           admin=f"If you trust the person who made it, raise `limits.archive_max_ratio`, {_RETRY}."),
    Reason(word="path_traversal", stages=_EXTRACT, says="unsafe archive",
           means="A file in it would be unpacked to another place on the disk.",
           technician=_HOSTILE,
           admin="An attack, or a very odd program. Nothing of it was written anywhere."),
    Reason(word="absolute_path", stages=_EXTRACT, says="names with a drive in it",
           means="The name of a file in it begins with a drive (such as C:) or with a slash.",
           technician=_PACK,
           admin="Some old programs pack like that; such names are not trusted."),
    Reason(word="control_characters", stages=_EXTRACT, says="unreadable names in it",
           means="The name of a file in it cannot be read.",
           technician=_PACK,
           admin="An attack, or a broken encoding: the name holds control characters."),
    Reason(word="duplicate_names", stages=_EXTRACT, says="two files of one name",
           means="Two files in it have the same name, or names that differ only in capital letters or accents.",
           technician="Rename one of the two, and pack the slides again.",
           admin="On some systems one would overwrite the other."),
    Reason(word="file_against_folder", stages=_EXTRACT, says="unsafe archive",
           means="One name in it belongs to both a file and a folder.",
           technician=_HOSTILE,
           admin="An attack, or a very odd program."),
    Reason(word="no_name", stages=_EXTRACT, says="unsafe archive",
           means="A file in it has no name.",
           technician=_HOSTILE,
           admin="An attack, or a very odd program."),
    Reason(word="name_too_long", stages=_EXTRACT, says="a name is too long",
           means="The name of a file in it is too long.",
           technician="Give that file a shorter name, and pack the slides again.",
           admin="No filesystem can hold a name of more than 255 bytes."),
    Reason(word="reserved_name", stages=_EXTRACT, says="a name is not allowed",
           means="The name of a file in it is one that Windows does not allow.",
           technician="Give that file another name, and pack the slides again.",
           admin="An attack, or a very odd program."),
    Reason(word="nested_too_deep", stages=_EXTRACT, says="packed too deep",
           means="A file in it lies too deep: in more than 64 folders, or in a zip inside of a zip inside of a zip.",
           technician="Pack the slides themselves into one zip, without the folders or zips around them.",
           admin="Archives are unpacked to a depth of two. So many folders are an attack, or made by a very odd program."),
    Reason(word="spanned", stages=_EXTRACT, says="one part of several",
           means="It is one part of an archive that was split into several files.",
           technician="Pack the slides again into one single zip.",
           admin="Nothing can be done here: the other parts are missing."),
    Reason(word="doubled_directory", stages=_EXTRACT, says="unsafe archive",
           means="It has two lists of its files, and programs differ in which one they use.",
           technician=_HOSTILE,
           admin="Two archives that were joined, or an attack that shows one content to a virus scanner and another to cytowatch."),
    Reason(word="overlapping_entries", stages=_EXTRACT, says="unsafe archive",
           means="Files in it share the same bytes, as in an attack.",
           technician=_HOSTILE,
           admin="No ordinary program makes such a zip."),
    Reason(word="link", stages=_EXTRACT, says="links in it",
           means="It holds a link instead of a file.",
           technician=_PACK,
           admin="Links in archives are never followed and never made."),
    Reason(word="special_file", stages=_EXTRACT, says="special files in it",
           means="It holds a device or a pipe instead of a file.",
           technician=_PACK,
           admin="An attack, or a backup of a whole system."),
    Reason(word="damaged", stages=(*_DETECT, *_CONVERT, *_DEPLOY), says="damaged",
           means="Part of the image is damaged.",
           technician=_COPY,
           admin="Nothing can be done here. The detail ends with the decoder's own words; if there is a second reader, it was tried as well."),
    Reason(word="no_pixels", stages=_CONVERT, says="no image in it",
           means="It has a header, but no image.",
           technician=_COPY,
           admin="The detail names the scene."),
    Reason(word="unsupported_samples", stages=_CONVERT, says="kind of pixels not supported",
           means="No viewer can show pixels of this kind.",
           technician="Export it with 8 or 16 bits per sample, and drop that.",
           admin="The detail names the kind."),
    Reason(word="too_many_pixels", stages=(*_DETECT, *_CONVERT), says="image too large",
           means="The image is larger than is allowed here.",
           technician=_RAISE,
           admin=f"Raise `limits.max_pixels`, {_RETRY}."),
    Reason(word="side_too_long", stages=(*_DETECT, *_CONVERT), says="image too large",
           means="The image is wider or higher than is allowed here.",
           technician=_RAISE,
           admin=f"Raise `limits.max_side`, {_RETRY}."),
    Reason(word="too_many_samples", stages=_CONVERT, says="too many channels",
           means="The image has more channels than are allowed here.",
           technician=_RAISE,
           admin=f"Raise `limits.max_samples`, {_RETRY}."),
    Reason(word="too_many_pages", stages=_DETECT, says="too many pages",
           means="The file has more pages than are allowed here.",
           technician=_RAISE,
           admin=f"Raise `limits.max_pages`, {_RETRY}."),
    Reason(word="too_many_tags", stages=_DETECT, says="header too large",
           means="The header of the file is larger than is allowed here.",
           technician=_RAISE,
           admin=f"Raise `limits.max_tags`, {_RETRY}."),
    Reason(word="expansion", stages=_CONVERT, says="suspicious image",
           means="A small file claims to hold a huge image, as in an attack.",
           technician=_RAISE,
           admin=f"If you trust the person who made it, raise `limits.max_expansion`, {_RETRY}."),
    Reason(word="too_large_for_memory", stages=_CONVERT, says="image too large",
           means="This kind of image must be read into memory as a whole, and it is too large for that.",
           technician=_RAISE,
           admin=f"Raise `sandbox.memory_bytes`, {_RETRY}."),
    Reason(word="verification_failed", stages=_DEPLOY, says="cannot be read back",
           means="A part of the image could not be read when it was checked.",
           technician=_COPY,
           admin="If `cytowatch retry ID` fails in the same way, the slide is damaged in a part that only this level shows."),
    Reason(word="changed", stages=(*_EXTRACT, *_DEPLOY), says="changed while it was taken",
           means="The file changed after it had arrived.",
           technician="Drop it again, and leave it alone until the copy is done.",
           admin="A client kept it open and went on writing (`inbox.quiet_s` may be too short for its software), or its owner wrote to it after the claim: `cytowatch check` shows under *ownership* whether that is possible here. `cytowatch retry ID` takes it as it is now."),
    Reason(word="manifest_damaged", stages=_DEPLOY, says="fault of the server",
           means="The record of this slide on the server was damaged.",
           technician=ASK,
           admin="A fault of the disk: run `cytowatch check --deep`. The original is untouched, and the old manifest lies beside the new one."),
    Reason(word="first_gone", stages=_DEPLOY, says="first copy was removed",
           means="It has the same content as an earlier slide, and that one was removed meanwhile.",
           technician=ASK,
           admin="`cytowatch retry ID` derives a pyramid of its own."),
    Reason(word="crashed_repeatedly", stages=_ANY, says="cannot be processed",
           means="The software that reads it crashed several times.",
           technician=_COPY,
           admin="The detail names the signal. After an update of the decoders try `cytowatch retry --reason crashed_repeatedly`."),
    Reason(word="out_of_memory", stages=_ANY, says="needs too much memory",
           means="It needs more memory than is allowed here.",
           technician=ASK,
           admin=f"Raise `sandbox.memory_bytes`, {_RETRY}."),
    Reason(word="output_too_large", stages=_ANY, says="needs too much room",
           means="It needs more room on the server than it was expected to.",
           technician=ASK,
           admin="Each attempt wrote more than was estimated for this file, until only the reserve of the disk was left. Make room, then `cytowatch retry ID`. If it happens with plenty of room, the file is damaged or hostile."),
    Reason(word="larger_than_disk", stages=_ANY, says="needs too much disk",
           means="It needs more room than the whole disk has.",
           technician=ASK,
           admin=f"Use a larger disk, or report a defect; {_RETRY}."),
    Reason(word="faults_repeatedly", stages=_ANY, says="fault of the server",
           means="The software that reads it reported a fault of the server each time.",
           technician=ASK,
           admin=f"cytowatch itself found no such fault. Check the system's log for faults of the disk that holds this slide, {_RETRY}."),
    Reason(word="timed_out", stages=_ANY, says="took too long",
           means="It was not done in the time allowed.",
           technician=ASK,
           admin=f"Raise `engine.stage_timeout_s`, {_RETRY}."),
    Reason(word="no_progress", stages=_ANY, says="stuck",
           means="The conversion made no progress for so long that it was ended.",
           technician=ASK,
           admin=f"A decoder or the disk hangs (`engine.no_progress_s` is the limit). Check the disk, {_RETRY}."),
    Reason(word="output_refused", stages=_ANY, says="defect of the software",
           means="The software that reads it wrote an invalid result, which was thrown away.",
           technician=ASK,
           admin="A defect, or a decoder that an attack has taken over: report it with the line of the log."),
    Reason(word="unexpected", stages=_ANY, says="defect of the software",
           means="An unexpected error occurred.",
           technician=ASK,
           admin="A defect: report it; the line `unexpected` of the log names the file to attach."),
)  # fmt: skip

_BY_WORD = {reason.word: reason for reason in REASONS}


def of(word: str) -> Reason | None:
    """The reason that is called `word`, if it is one of this version's."""
    return _BY_WORD.get(word)


#: Why a drop waits in its inbox, by the word.
WAITING = {
    "settling": Wait(says="", means="It is still arriving.",
        technician="Nothing. It is taken a few seconds after the copy has ended.",
        admin="Nothing; it must be quiet for `inbox.quiet_s`."),
    "open_for_writing": Wait(says="", means="A program still has it open.",
        technician="Nothing. If it stays so, close the program that has it open.",
        admin="If it stays so, look at the scanner or the share."),
    "still_copied": Wait(says="still copied", means="The copy program has not finished.",
        technician="Let the copy program finish, or start the copy again. If the copy is complete, delete the file that is named below.",
        admin="The program's own files lie beside it (`NAME.aria2`, `NAME.lftp-pget-status`); it deletes them when it is done.", by_hand=True),
    "temporary_name": Wait(says="copy not finished", means="It has a name that says that it is still being copied.",
        technician="Let the copy program finish, or start the copy again. If it has arrived under its own name, delete this one. Give a folder another name.",
        admin="Copy programs use such names (`*.part`, `*.filepart`, `*.tmp` and others) until they are done. A file that keeps one is a copy that broke off, and is never taken.", by_hand=True),
    "no_lease": Wait(says="", means="It is still arriving.",
        technician="Nothing. It is taken a while after the copy has ended.",
        admin="Its filesystem has no leases, so it must be quiet for longer; `cytowatch check` explains it."),
    "incomplete": Wait(says="incomplete", means="Not all of it is there.",
        technician="Copy what is missing, or copy all of it again; the note states until when.",
        admin="After `inbox.incomplete_after_s` it becomes an error.", by_hand=True),
    "done_marker": Wait(says="no marker", means="The copy program has not yet said that it is done.",
        technician="Let the copy program finish. If you copied by hand, ask the administrator what the marker file is called.",
        admin="`inbox.done_marker` is set, and the marker is not there."),
    "paused": Wait(says="paused", means="The administrator has paused the service.",
        technician="Nothing. It is taken later.",
        admin="`cytowatch resume`."),
    "not_an_image": Wait(says="not an image", means="It is not an image.",
        technician="Nothing: delete it, or leave it there.",
        admin="It stays where it is; the manifest of its folder names it.", by_hand=True),
    "too_deep": Wait(says="too many folders", means="It lies in too many folders, one inside the other.",
        technician="Drop the slides themselves, not the folders above them.",
        admin="The limit is 32 folders, and 3,000 bytes for a path.", by_hand=True),
    "no_user": Wait(says="outside of a folder", means="It lies beside the folders of the users.",
        technician="Move it into your own folder.",
        admin="Move it into the folder of a user; rename a folder whose name begins with a dot or `@`.", by_hand=True),
    "not_a_regular_file": Wait(says="not a file", means="It is a link or a shortcut, not a file.",
        technician="Copy the file itself.",
        admin="Links, pipes, devices and files with several names are not taken; a user's inbox must be a folder, not a link.", by_hand=True),
    "other_filesystem": Wait(says="set up wrongly", means="The inbox is on another disk than the storage.",
        technician="Tell the administrator.",
        admin="Put the inbox on the same mount as the root: a slide is renamed, never copied.", by_hand=True),
    "not_permitted": Wait(says="no permission", means="The service has no permission to take it.",
        technician="Tell the administrator.",
        admin="Give it and its folder to the user of the daemon; `force user` in the share does that.", by_hand=True),
    "unreadable": Wait(says="cannot be opened", means="The service cannot open it.",
        technician="Tell the administrator.",
        admin="As for `not_permitted`; the detail names the owner. Everything else is taken, and so is this when it can be read.", by_hand=True),
    "set_aside": Wait(says="an error", means="An unexpected error occurred.",
        technician="Tell the administrator. It is tried again by itself.",
        admin="Report it with the line `set_aside` of the log. It is tried again, with a growing pause.", by_hand=True),
    "input_output": Wait(says="disk fault", means="The disk of the server has a fault.",
        technician="Tell the administrator. It is tried again by itself.",
        admin="Check the system's log for faults of the disk."),
    "disk": Wait(says="disk full", means="The disk of the server is full.",
        technician="Nothing. It goes on by itself when there is room.",
        admin="Make room: less than `storage.reserve_bytes` is free."),
    "other": Wait(says="", means="It cannot be taken yet.",
        technician="Tell the administrator if it stays so.",
        admin="The detail explains it."),
}  # fmt: skip
