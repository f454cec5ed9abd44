"""The names in a zip as text: what each states of its encoding, else UTF-8, else a guess over all.

A zip may state that a name is UTF-8 (flag 0x800), and may repeat it as UTF-8 (field 0x7075). Most
programs do neither and write the code page of their machine, so all names that state nothing are
looked at together: the encoding in which they read most like names is theirs.

Source: PKWARE APPNOTE 6.3.10, sections 4.4.4, 4.6.9 and appendix D
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from cytowatch.archives.code_pages import guess, is_wide, read
from cytowatch.archives.directory import Entry

__all__ = ["AUTO", "Name", "decoded"]

#: The value of `extract.names` that lets names be guessed.
AUTO = "auto"
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
#: What a name is read as where nothing else fits: every byte is a character of it (APPNOTE D.1).
_LAST_RESORT = "cp437"
_SEPARATORS = b"/\\"
#: A backslash behind what is not ASCII and before an extension.
_DOUBTED = re.compile(r"(?<=[^\x00-\x7f])\\(?=\.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A path in a zip as `text`, which is `raw` in that `encoding`, or a guess at it."""

    text: str
    raw: bytes
    encoding: str
    guessed: bool

    def tail(self, last: str) -> bytes:
        """The bytes of `last`, the last part of the path.

        >>> Name(text="能/表.jpg", raw=b"\\x94\\\\/\\x95\\\\.jpg", encoding="cp932", guessed=True).tail("表.jpg")
        b'\\x95\\\\.jpg'
        """
        if self.encoding == "utf-8":
            return last.encode()
        # Of two codes for one character only the zip's own is right, so nothing is encoded again.
        for at in range(len(self.raw), -1, -1):
            if at and self.raw[at - 1] not in _SEPARATORS:
                continue
            if _text(self.raw[at:], self.encoding) == last:
                head = _text(self.raw[:at], self.encoding)
                if head is not None and head + last == self.text:
                    return self.raw[at:]
        return self.raw


def decoded(entries: Sequence[Entry], encoding: str) -> list[Name]:
    """The name of every entry; what states no encoding is read as `encoding` says."""
    stated = [_stated(entry) for entry in entries]
    open_ = [entry.name for entry, name in zip(entries, stated, strict=True) if name is None]
    foreign = [raw for raw in open_ if read(raw, "utf-8") is None]
    found = encoding if encoding != AUTO else guess(foreign) if foreign else "utf-8"
    # Two bytes of Chinese can look like one letter of UTF-8. They are Chinese where the other names are.
    doubted = is_wide(found) and (bool(foreign) or encoding != AUTO)
    others = guess(foreign) if encoding != AUTO and foreign else found
    return [
        name or _unstated(entry.name, found, others, doubted=doubted)
        for entry, name in zip(entries, stated, strict=True)
    ]


def _stated(entry: Entry) -> Name | None:
    """The name, if the zip says how it is to be read and it can be read so."""
    again = _unicode_path(entry)
    if again is not None:
        return Name(text=again, raw=again.encode(), encoding="utf-8", guessed=False)
    if entry.flags & _UTF8_FLAG or entry.name.isascii():
        text = read(entry.name, "utf-8")
        if text is not None:
            return Name(text=text, raw=entry.name, encoding="utf-8", guessed=False)
    return None


def _unicode_path(entry: Entry) -> str | None:
    """The name in field 0x7075, which holds the CRC of the name that it was made for."""
    for number, data in entry.fields():
        if number == _UNICODE_PATH and len(data) > 5:
            version, crc = struct.unpack_from("<BI", data)
            if version == 1 and crc == zlib.crc32(entry.name):
                return read(data[5:], "utf-8")
    return None


def _unstated(raw: bytes, found: str, others: str, *, doubted: bool) -> Name:
    text = read(raw, "utf-8")
    if text is not None and not (doubted and all(ord(char) < 0x800 for char in text)):
        return Name(text=text, raw=raw, encoding="utf-8", guessed=False)
    for encoding in (found, others, "utf-8", _LAST_RESORT):
        text = _text(raw, encoding)
        if text is not None and not any("\x80" <= char < "\xa0" for char in text):
            return Name(text=text, raw=raw, encoding=encoding, guessed=True)
    raise AssertionError("every byte is a character of the last resort")


def _text(raw: bytes, encoding: str) -> str | None:
    """`raw` in an encoding that is guessed, so that a backslash may be half of a character."""
    text = read(raw, encoding)
    # As in ``ò\\.jpg``, of which half a character and a hidden file would be left.
    return None if text is None else _DOUBTED.sub("_", text)
