"""Every reason that an uploaded file can end in an error for, and what is to be done then.

A reason is a stable word for machines; what a person reads is its detail, and the two sentences
here: one for the technician, who sees only the share, and one for the administrator.
"""

from __future__ import annotations

from dataclasses import dataclass

from cytowatch.record.status import ERROR_OF, Status

__all__ = ["REASONS", "WAITING", "Reason", "of"]

_DETECT = (Status.DETECTING_FORMAT,)
_EXTRACT = (Status.EXTRACTING_DATA,)
_CONVERT = (Status.CONVERTING,)
_DEPLOY = (Status.DEPLOYING,)
_ANY = tuple(ERROR_OF)

_AGAIN = "Scan or export the slide once more, and drop it again."
_RAISE = "Ask the administrator, who can raise the limit and try again."
_PACK = "Pack the slides anew with an ordinary program, and drop that."
_ASK = "Ask the administrator, who can look with `cytowatch show` and try again."
_HOSTILE = "The archive was refused whole. Ask whoever made it; nothing of it was written anywhere."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """`stages` are those in which it occurs."""

    word: str
    stages: tuple[Status, ...]
    means: str
    technician: str
    admin: str


REASONS = (
    Reason(word="unknown_format", stages=_DETECT, means="No format matches its content.",
           technician="Only slides and images can be taken; see the list of formats.",
           admin="`cytowatch detect FILE` says what it looks like."),
    Reason(word="unsupported_format", stages=(*_DETECT, *_CONVERT), means="It is known, and not of a kind that can be taken.",
           technician="Export it in another format from the scanner's software.",
           admin="`cytowatch formats` lists what can be taken."),
    Reason(word="ambiguous_format", stages=_DETECT, means="Several formats match, and a guess could show a wrong image.",
           technician=_ASK, admin="Send the first megabyte of it with a report: one of the markers must be narrowed."),
    Reason(word="incomplete", stages=(*_DETECT, *_CONVERT), means="Bytes of it never came: it waited for them as long as it may, or they are zeros in the middle of it.",
           technician="Send what is missing, or send all of it anew.",
           admin="`cytowatch retry ID` puts it back into its inbox, to meet its late part; `inbox.incomplete_after_s` is how long it waits."),
    Reason(word="mixed_slides", stages=_DETECT, means="Its files bear the identities of two slides.",
           technician="Copy the whole slide once more from the scanner, into an empty folder or a new archive.",
           admin="`cytowatch return ID` hands the files back; the detail names the one that is of another slide."),
    Reason(word="duplicate", stages=_DETECT, means="The same content is there already, and the configuration rejects it.",
           technician="Nothing is to be done: the same slide is there already.",
           admin="`storage.duplicates` decides."),
    Reason(word="unreadable", stages=_DETECT, means="OpenSlide knows it and cannot open it.",
           technician=_AGAIN, admin="The detail is the reader's own word."),
    Reason(word="unsafe_reference", stages=_DETECT, means="Its index names files outside of its own folder.",
           technician="Copy the whole slide as the scanner wrote it, and drop that.",
           admin="Somebody edited the index, or it is an attack; the files that it names were not read."),
    Reason(word="reader_missing", stages=(*_DETECT, *_CONVERT), means="The library that reads it is not installed.",
           technician=_ASK, admin="CellSens VSI needs slideio, which has wheels for x86_64 alone."),
    Reason(word="damaged_archive", stages=_EXTRACT, means="The archive as a whole cannot be read.",
           technician=_PACK, admin="A truncated upload, or a kind of zip that no ordinary program makes."),
    Reason(word="no_image", stages=_EXTRACT, means="There is no image in it.",
           technician="Look whether the right folder was packed: there is no image in it.",
           admin="`cytowatch show` names its members and why each was passed over."),
    Reason(word="encrypted", stages=_EXTRACT, means="It needs a password.",
           technician="Pack it again without a password.", admin="Nothing to do here."),
    Reason(word="too_many_entries", stages=_EXTRACT, means="It has more members than are allowed.",
           technician="Pack fewer slides into one archive.", admin="`limits.archive_max_entries`, then `cytowatch retry`."),
    Reason(word="too_large", stages=_EXTRACT, means="It unpacks to more bytes than are allowed.",
           technician="Pack fewer slides into one archive.", admin="`limits.archive_max_bytes`, then `cytowatch retry`."),
    Reason(word="ratio", stages=_EXTRACT, means="It unpacks to more than so many times its size, as a bomb does.",
           technician=_ASK, admin="`limits.archive_max_ratio`, then `cytowatch retry`, if you trust whoever made it."),
    Reason(word="path_traversal", stages=_EXTRACT, means="A member's name leads out of the archive.",
           technician=_HOSTILE, admin="An attack, or a very odd program."),
    Reason(word="absolute_path", stages=_EXTRACT, means="A member's name begins at a root or a drive.",
           technician=_PACK, admin="Some old programs pack so; the names are not trusted."),
    Reason(word="control_characters", stages=_EXTRACT, means="A member's name holds control characters.",
           technician=_PACK, admin="An attack, or a broken encoding."),
    Reason(word="duplicate_names", stages=_EXTRACT, means="Two members have the same name, or differ by case or accent alone.",
           technician="Rename one of them and pack anew.", admin="On some systems one would replace the other."),
    Reason(word="file_against_folder", stages=_EXTRACT, means="A member is a file and the folder of another one.",
           technician=_HOSTILE, admin="An attack, or a very odd program."),
    Reason(word="no_name", stages=_EXTRACT, means="A member has no name at all.",
           technician=_HOSTILE, admin="An attack, or a very odd program."),
    Reason(word="name_too_long", stages=_EXTRACT, means="A member's name has more than 255 bytes.",
           technician="Give it a shorter name, and pack again.", admin="No filesystem can hold such a name."),
    Reason(word="reserved_name", stages=_EXTRACT, means="A member's name stands for a device on Windows, or names a stream.",
           technician="Give it another name, and pack again.", admin="An attack, or a very odd program."),
    Reason(word="nested_too_deep", stages=_EXTRACT, means="A member lies more than 64 folders deep.",
           technician="Pack the slides themselves, not the folders above them.", admin="An attack, or a very odd program."),
    Reason(word="spanned", stages=_EXTRACT, means="It is one part of an archive that is split over several.",
           technician="Pack it as one archive.", admin="Nothing to do here."),
    Reason(word="doubled_directory", stages=_EXTRACT, means="It has two directories, and programs differ in which they believe.",
           technician=_HOSTILE, admin="Two archives that were joined, or an attack that shows a scanner one content and us another."),
    Reason(word="overlapping_entries", stages=_EXTRACT, means="Members share the same bytes, as in a bomb.",
           technician=_HOSTILE, admin="No ordinary program makes such a zip."),
    Reason(word="link", stages=_EXTRACT, means="A member is a link, and not one to an earlier member.",
           technician=_PACK, admin="Links are never followed and never made."),
    Reason(word="special_file", stages=_EXTRACT, means="A member is a device or a pipe.",
           technician=_PACK, admin="An attack, or a backup of a whole system."),
    Reason(word="damaged", stages=(*_DETECT, *_CONVERT, *_DEPLOY), means="Its pixels are incomplete or corrupt.",
           technician="Scan or export the slide once more: this file is damaged.",
           admin="The detail is the decoder's own word. What is converted was tried with a second reader as well."),
    Reason(word="no_pixels", stages=_CONVERT, means="It has a header and no image.",
           technician=_AGAIN, admin="The detail names the scene."),
    Reason(word="unsupported_samples", stages=_CONVERT, means="Samples of a kind that no viewer shows, such as complex numbers.",
           technician="Export it with 8 or 16 bits a sample.", admin="The detail names the kind."),
    Reason(word="too_many_pixels", stages=(*_DETECT, *_CONVERT), means="It is larger than is allowed.",
           technician=_RAISE, admin="`limits.max_pixels`, then `cytowatch retry`."),
    Reason(word="side_too_long", stages=(*_DETECT, *_CONVERT), means="It is wider or higher than is allowed.",
           technician=_RAISE, admin="`limits.max_side`, then `cytowatch retry`."),
    Reason(word="too_many_samples", stages=_CONVERT, means="Its pixels have more samples than is allowed.",
           technician=_RAISE, admin="`limits.max_samples`, then `cytowatch retry`."),
    Reason(word="too_many_pages", stages=_DETECT, means="Its TIFF has more directories than is allowed.",
           technician=_RAISE, admin="`limits.max_pages`, then `cytowatch retry`."),
    Reason(word="too_many_tags", stages=_DETECT, means="A directory of its TIFF has more tags than is allowed.",
           technician=_RAISE, admin="`limits.max_tags`, then `cytowatch retry`."),
    Reason(word="expansion", stages=_CONVERT, means="Its few bytes promise more pixels than they can honestly hold.",
           technician=_RAISE, admin="`limits.max_expansion`, then `cytowatch retry`, if you trust whoever made it."),
    Reason(word="too_large_for_memory", stages=_CONVERT, means="It can only be decoded whole, and that takes too much memory.",
           technician=_RAISE, admin="`sandbox.memory_bytes`, then `cytowatch retry`."),
    Reason(word="verification_failed", stages=_DEPLOY, means="A level could not be read back before it was published.",
           technician=_AGAIN, admin="If `cytowatch retry` ends the same, the slide is damaged in a part that only this level has."),
    Reason(word="changed", stages=(*_EXTRACT, *_DEPLOY), means="Its bytes changed after it was received.",
           technician="Drop it again, and wait until the copy is done.",
           admin="A client kept it open and wrote on (`inbox.quiet_s` may be too short for its software), or its owner wrote to it after the claim: `cytowatch check` says under *ownership* whether that is possible here. `cytowatch retry` takes it as it is now."),
    Reason(word="manifest_damaged", stages=_DEPLOY, means="Its manifest could not be read, and was made anew.",
           technician=_ASK, admin="A fault of the disk: run `cytowatch check --deep`. The original is untouched, the old manifest lies beside the new one."),
    Reason(word="first_gone", stages=_DEPLOY, means="The one of the same content that it was to be linked to is gone.",
           technician=_AGAIN, admin="It was removed meanwhile: `cytowatch retry` derives a pyramid of its own."),
    Reason(word="crashed_repeatedly", stages=_ANY, means="The decoder, or cytowatch itself, ended several times while it was in this stage.",
           technician=_AGAIN, admin="The detail names the signal. After an update of the decoders `cytowatch retry --reason crashed_repeatedly` may do."),
    Reason(word="out_of_memory", stages=_ANY, means="It needs more memory than a decoder may have.",
           technician=_ASK, admin="`sandbox.memory_bytes`, then `cytowatch retry`."),
    Reason(word="larger_than_disk", stages=_ANY, means="It needs more room than the whole disk has.",
           technician=_ASK, admin="A larger disk, or a defect; then `cytowatch retry`."),
    Reason(word="faults_repeatedly", stages=_ANY, means="The decoder reported a fault of the machine again and again, and cytowatch found none.",
           technician=_ASK, admin="The detail is the decoder's own word. Check the system's log for faults of the disk where this slide lies; then `cytowatch retry`."),
    Reason(word="timed_out", stages=_ANY, means="It was not done in the time that a stage may take.",
           technician=_ASK, admin="`engine.stage_timeout_s`, then `cytowatch retry`."),
    Reason(word="no_progress", stages=_ANY, means="Nothing moved for so long that it was ended.",
           technician=_ASK, admin="A decoder hangs on it, or the disk does; `engine.no_progress_s`, then `cytowatch retry`."),
    Reason(word="output_refused", stages=_ANY, means="What the decoder made is not what it may make.",
           technician=_ASK, admin="A decoder that was taken over, or a defect: please report it with the line of the log."),
    Reason(word="unexpected", stages=_ANY, means="An error that nobody foresaw.",
           technician=_ASK, admin="A defect: please report it; the line `unexpected` of the log names the file to send."),
)  # fmt: skip

_BY_WORD = {reason.word: reason for reason in REASONS}


def of(word: str) -> Reason | None:
    """The reason that is called `word`, if it is one of this version's."""
    return _BY_WORD.get(word)


#: Why a drop waits in its inbox: the word, what it means, and what to do.
WAITING = {
    "settling": ("It has not been quiet for `inbox.quiet_s` yet.", "Nothing."),
    "open_for_writing": ("Somebody has it open for writing.", "Nothing; if it stays, look at the scanner or the share."),
    "no_lease": ("Its filesystem grants no leases, so it must be quiet for longer.", "Nothing; `cytowatch check` says more."),
    "incomplete": ("Something of it is missing; the detail says what.", "Send what is missing. After `inbox.incomplete_after_s` it is an error."),
    "done_marker": ("`inbox.done_marker` is set, and its marker is not there.", "Let the copier write it."),
    "paused": ("The administrator has paused it.", "`cytowatch resume`."),
    "not_an_image": ("It lies in a dropped folder and is no image.", "Nothing: it is named in the manifest of the folder, and stays."),
    "too_deep": ("It lies more than 32 folders deep, or its path is longer than 3,000 bytes.", "Drop the slides themselves."),
    "no_user": ("It lies in `inbox/` itself.", "Move it into the folder of a user."),
    "not_a_regular_file": ("It is a link, a pipe or a device, or has several names; a user's inbox may not be a link either.", "Copy the file itself; make the inbox a folder."),
    "other_filesystem": ("It is not on the filesystem and mount of the root.", "Let the inbox lie on the same mount: a slide is renamed, never copied."),
    "not_permitted": ("The daemon may not move it.", "Give it and its folder to the user of the daemon; `force user` in the share does."),
    "unreadable": ("The file or folder cannot be opened; the detail says whose it is.", "As for `not_permitted`. Everything else is taken; it goes on by itself when it can be read."),
    "set_aside": ("It raised an unexpected error; the detail says which.", "Report it with the line `set_aside` of the log. It is tried again, with a growing pause."),
    "input_output": ("The disk errs.", "Look at the system's log; it is tried again."),
    "disk": ("The disk is full.", "Make room; it goes on by itself."),
    "other": ("Anything else; the detail says what.", "As the detail says."),
}  # fmt: skip
