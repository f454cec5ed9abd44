"""How uploaded files look on a terminal: their tree of files, what is known of them, their history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cytowatch.cli.columns import cells, cut
from cytowatch.cli.lists import where_dropped
from cytowatch.cli.page import bytes_text, colour, status_text
from cytowatch.observe import wording
from cytowatch.record import reasons
from cytowatch.record.entries import FileEntry, ImageEntry, Manifest, SkippedEntry
from cytowatch.record.names import printable
from cytowatch.record.status import Status
from cytowatch.tree.find import Entry

__all__ = ["PLACES", "console", "facts", "history", "safe", "say", "tree"]

console = Console(highlight=False)

#: The words of `facts` whose text is a path.
PLACES = ("lies in", "original")
#: At most this many files of one folder are drawn on a terminal; a pipe gets all of them.
_MOST_FILES = 40
#: How many columns the lines of a tree take for each level.
_INDENT = 4
_WIDEST_BAR = 40
#: A tree deeper than this has no room for names.
_DEEPEST = 32
#: Parts of a cell, by eighths.
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def say(line: str) -> None:
    """Print a line, in colours on a terminal. It is never broken: a path can be copied, and a pipe gets it whole."""
    console.print(line, soft_wrap=True)


def safe(text: str) -> str:
    """`text` without anything that a terminal or the markup would act on."""
    return escape(printable(text))


@dataclass(slots=True)
class _Branch:
    """A node of the tree, how deep it is, and the folders below it by their path."""

    node: Tree
    depth: int
    width: int | None
    folders: dict[tuple[str, ...], _Branch] = field(default_factory=dict)

    def add(
        self, name: str, *more: tuple[str, str], style: str = "", prose: bool = False
    ) -> _Branch:
        """A branch called `name`; each (text, style) behind it that does not fit is left out.

        With `prose` the end of `name` is cut if it does not fit, not its middle.
        """
        depth = self.depth + 1
        room = None if self.width is None else self.width - _INDENT * depth
        if prose and room is not None:
            name = cut(name, max(room, 8), prose=True)
        return _Branch(self.node.add(_label(name, more, room, style)), depth, self.width)

    def folder(self, parts: Sequence[str]) -> _Branch:
        """The branch of a folder below this one, made where it is not there yet."""
        at = self
        for number, name in enumerate(parts, 1):
            path = tuple(parts[:number])
            if path not in self.folders:
                self.folders[path] = at.add(f"{printable(name)}/")
            at = self.folders[path]
        return at


def _label(name: str, more: Iterable[tuple[str, str]], room: int | None, style: str) -> Text:
    line = Text(no_wrap=True)
    kept = [(text, shade) for text, shade in more if text]
    if room is not None:
        room = max(room, 8)
        # The status stays as long as a few letters of the name have room beside it.
        while kept and cells(name) + sum(2 + cells(text) for text, _ in kept) > room:
            if len(kept) == 1 and cells(kept[0][0]) + 2 + 8 <= room:
                break
            kept.pop()
        name = cut(name, room - sum(2 + cells(text) for text, _ in kept))
    line.append(name, style=style)
    for text, shade in kept:
        line.append(f"  {text}", style=shade)
    return line


def _of_entry(entry: Entry) -> list[tuple[str, str]]:
    about = entry.manifest
    form = about["format"]["name"] if about["format"] else ""
    return [
        (status_text(entry), colour(entry.status)),
        (printable(form), "dim"),
        (bytes_text(about["size_bytes"]), "dim"),
    ]


def tree(entry: Entry, everything: Sequence[Entry], width: int | None) -> Tree:
    """`entry` with all its files, all that came out of it, and the folders of its archive.

    Parameters
    ----------
    everything
        `entry` and what came out of it, in any order.
    width
        Of the terminal; None draws everything in full.
    """
    children: dict[str, list[Entry]] = {}
    for one in sorted(everything, key=lambda one: (one.manifest["drop_path"], one.manifest["id"])):
        if parent := one.manifest["parent_id"]:
            children.setdefault(parent, []).append(one)
    root = Tree(_label(printable(entry.manifest["name"]), _of_entry(entry), width, "bold"))
    # Not by recursion, and each once: how deep it is, and that it is a tree, manifests only say.
    left = [(_Branch(root, 0, width), entry)]
    while left:
        branch, one = left.pop()
        _describe(branch, one)
        inside = f"{one.manifest['drop_path']}/"
        # What came out of an archive, or was passed over in it, hangs in the folder that it lay in there.
        below: list[tuple[str, Entry | SkippedEntry]] = [
            (child.manifest["drop_path"].removeprefix(inside), child)
            for child in children.pop(one.manifest["id"], [])
            if child.manifest["id"] != entry.manifest["id"]
        ]
        below += [(skipped["name"], skipped) for skipped in one.manifest["skipped"]]
        for path, item in sorted(below, key=lambda pair: pair[0]):
            *folders, name = path.split("/")
            at = branch.folder(folders[:_DEEPEST])
            if isinstance(item, Entry):
                called = printable(item.manifest["name"])
                left.append((at.add(called, *_of_entry(item), style="bold"), item))
            else:
                why = (("skipped", "yellow"), (printable(item["reason"]), "dim"))
                at.add(printable(name), *why, style="dim")
    return root


def _describe(branch: _Branch, entry: Entry) -> None:
    about = entry.manifest
    for image in about["images"]:
        branch.add(_image_text(image), style="dim", prose=True)
    by_folder: dict[str, list[FileEntry]] = {}
    for file in about["files"]:
        folder = file["path"].rpartition("/")[0]
        # The first level, source/ or derived/, stays before the name: most have one file there.
        by_folder.setdefault(folder if "/" in folder else "", []).append(file)
    for folder, files in sorted(by_folder.items()):
        first, _, rest = folder.partition("/")
        second, *deeper = rest.split("/")
        at = branch.folder([f"{first}/{second}", *deeper][:_DEEPEST]) if folder else branch
        most = len(files) if branch.width is None else _MOST_FILES
        for file in files[:most]:
            shown = file["path"].removeprefix(f"{folder}/") if folder else file["path"]
            at.add(printable(shown), *_of_file(file))
        if others := files[most:]:
            size = bytes_text(sum(file["size_bytes"] for file in others))
            at.add(f"and {len(others):,} more files, {size}", style="dim")


def _of_file(file: FileEntry) -> list[tuple[str, str]]:
    size = (bytes_text(file["size_bytes"]), "dim")
    if file["role"] == "pyramid":
        status = Status[file["status"]]
        return [(status.label, colour(status)), size]
    return [("" if file["role"] == "source" else file["role"], "dim"), size]


def _image_text(image: ImageEntry) -> str:
    mpp = f"{image['mpp_x']:.4g} µm/px" if image["mpp_x"] else "pixel size unknown"
    power = f", {image['objective_power']:g}x" if image["objective_power"] else ""
    levels = len(image["levels"])
    shown = f"{levels} level" if levels == 1 else f"{levels} levels"
    return f"{image['width']:,} x {image['height']:,} px, {shown}, {mpp}{power}"


def facts(
    entry: Entry, first: Entry | None, others: Sequence[Entry], *, in_archive: bool = False
) -> Iterator[tuple[str, str, str]]:
    """What is known of it, as (word, its colour, text).

    Parameters
    ----------
    first
        The uploaded file whose content it has too, if that is still there.
    others
        The duplicates of it.
    in_archive
        Whether it came in an archive.
    """
    about = entry.manifest
    yield "id", "", about["id"]
    yield "user", "", about["user"]
    yield "dropped", "", f"{about['drop_path']}, {bytes_text(about['size_bytes'])}"
    yield "received", "", f"{about['received_at'][:19]}Z"
    if about["projects"]:
        yield "projects", "", ", ".join(about["projects"])
    yield PLACES[0], "", str(entry.path)
    if about["duplicate_of"] is not None:
        yield "duplicate", "yellow", f"the same content as {_called(first, about['duplicate_of'])}"
    for other in others:
        yield "duplicate", "yellow", f"{_called(other, '')} has the same content"
    for warning in about["warnings"]:
        yield "note", "yellow", warning
    for skipped in about["skipped"]:
        yield "skipped", "yellow", f"{skipped['name']}: {skipped['reason']}"
    if about["error"]:
        yield "reason", "red", about["error"]["reason"]
        yield "", "", about["error"]["detail"]
        if known := reasons.of(about["error"]["reason"]):
            _, to_do = wording.advice(
                about["error"]["reason"], about["error"]["detail"], in_archive=in_archive
            )
            yield "technician", "", to_do
            yield "admin", "", _advice(about, known.admin)
        for file in about["files"]:
            if file["role"] in ("source", "sidecar"):
                yield PLACES[1], "", f"{entry.path / file['path']}"


def _advice(about: Manifest, said: str) -> str:
    """What an administrator can do about this one, with its id in place of ``ID``."""
    if (
        about["error"]
        and about["error"]["reason"] == "incomplete"
        and about["parent_id"] is not None
    ):
        # `retry` refuses it: what came out of an archive or a folder never goes back by itself.
        return f"it was part of another drop ({about['parent_id']}): have that sent again, whole"
    return said.replace("`", "").replace(" ID", f" {about['id']}")


def _called(entry: Entry | None, id_: str) -> str:
    if entry is None:
        return f"{id_}, which is gone"
    about = entry.manifest
    return f"{where_dropped(about['drop_path'])} of {about['received_at'][:10]} ({about['id']})"


def history(entry: Entry, width: int) -> RenderableType:
    """Which status it entered when, how long it stayed, and that as bars, the longest the widest."""
    rows = entry.manifest["history"]
    stayed = [None if Status[row["status"]].is_final else row["seconds"] for row in rows]
    longest = max((seconds for seconds in stayed if seconds is not None), default=0.0)
    dates = width >= 60
    room = min(_WIDEST_BAR, width - (49 if dates else 38))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("STATUS", "ENTERED (UTC)" if dates else "AT (UTC)", "TIME", ""):
        table.add_column(name, justify="right" if name == "TIME" else "left", no_wrap=True)
    for row, seconds in zip(rows, stayed, strict=True):
        status = Status[row["status"]]
        table.add_row(
            f"[{colour(status)}]{status.label}[/]",
            safe(
                row["at"]
                .replace("T", " ")
                .removesuffix("Z")[0 if dates else 11 :][: 19 if dates else 8]
            ),
            "" if seconds is None else _seconds_text(seconds),
            _bar(seconds, longest, room),
        )
    return table


def _seconds_text(seconds: float) -> str:
    """A duration, precise where it is short.

    >>> _seconds_text(0.0123), _seconds_text(7.25), _seconds_text(185), _seconds_text(7300)
    ('0.012 s', '7.2 s', '3 min 5 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def _bar(seconds: float | None, longest: float, room: int) -> str:
    if not seconds or longest <= 0 or room <= 0:
        return ""
    eighths = max(1, round(8 * room * seconds / longest))
    if not console.encoding.lower().startswith("utf"):
        return "#" * max(1, eighths // 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
