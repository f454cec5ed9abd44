"""What copiers, file managers and servers leave in a folder: names that are never claimed.

One table, by who makes them; docs/reference/ignored-names.md is made from it. A program that writes
under the final name (Explorer, robocopy, Globus, scp, the clients of OneDrive and of S3) needs no row:
leases, quiet and the structure of the file show when it is done.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BESIDE", "LEFTOVERS", "PATTERNS", "TEMPORARY", "Leftover"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Names that match one of `patterns` are made by `by`; compared without regard to case.

    Those in `beside` are the name of a file and an ending: while such a one is there, its program is at work on
    that file, under its final name. With `temporary`, the file itself has such a name until it is whole: one that
    keeps it is a copy that broke off, and gets a note.
    """

    by: str
    patterns: tuple[str, ...]
    source: str
    beside: tuple[str, ...] = ()
    temporary: bool = False


LEFTOVERS = (
    Leftover(by="hidden files: rsync (`.NAME.XXXXXX`), Syncthing (`.syncthing.*`), Nextcloud and Dropbox clients, vsftpd and ProFTPD (`.in.*`), macOS (`._*`, `.DS_Store`), NFS (`.nfs*`)",
             patterns=(".*",), source="https://download.samba.org/pub/rsync/rsync.1#opt--temp-dir"),
    Leftover(by="Windows Explorer", patterns=("Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"),
             source="https://learn.microsoft.com/windows/win32/shell/how-to-customize-folders-with-desktop-ini"),
    Leftover(by="Microsoft Office", patterns=("~$*",), source="https://support.microsoft.com/office"),
    Leftover(by="macOS on a share", patterns=("Network Trash Folder", "Temporary Items", "*.sb-????????-??????"),
             source="https://developer.apple.com/documentation/foundation/nsdata/writingoptions"),
    Leftover(by="macOS, the icon of a folder (a name that ends in a carriage return, which Samba writes as U+F00D)",
             patterns=("Icon\r", "Icon\uf00d"), source="https://www.samba.org/samba/docs/current/man-html/vfs_fruit.8.html"),
    Leftover(by="Synology and QNAP", patterns=("@eaDir", "#recycle", "@Recycle", "*@SynoEAStream", "*@SynoResource"),
             source="https://kb.synology.com"),
    Leftover(by="Firefox, KDE, Nextcloud (`*.ocTransferId*.part`), FileZilla Pro, curl-based copiers", patterns=("*.part",), temporary=True,
             source="https://docs.nextcloud.com/server/latest/admin_manual/configuration_files/big_file_upload_configuration.html"),
    Leftover(by="rclone (`NAME.XXXXXXXX.partial` since 1.63, `NAME.partial`), Aspera with `partial_file_suffix`", patterns=("*.partial",), temporary=True,
             source="https://rclone.org/docs/#partial-suffix-string"),
    Leftover(by="Aspera, its resume files", patterns=("*.aspx", "*.aspera-ckpt"),
             source="https://www.ibm.com/support/pages/resuming-file-transfers-ascp"),
    Leftover(by="WinSCP", patterns=("*.filepart",), temporary=True, source="https://winscp.net/eng/docs/resume"),
    Leftover(by="Cyberduck", patterns=("*.cyberduckpart", "*.duckpart"), temporary=True, source="https://docs.cyberduck.io/cyberduck/download/"),
    Leftover(by="Syncthing on Windows", patterns=("~syncthing~*",), temporary=True,
             source="https://github.com/syncthing/syncthing/blob/main/lib/fs/tempname.go"),
    Leftover(by="Resilio Sync", patterns=("*.!sync",), temporary=True, source="https://help.resilio.com"),
    Leftover(by="FreeFileSync", patterns=("*.ffs_tmp",), temporary=True, source="https://freefilesync.org/manual.php"),
    Leftover(by="FreeFileSync, its notes", patterns=("*.ffs_lock", "sync.ffs_db"), source="https://freefilesync.org/manual.php"),
    Leftover(by="aria2", patterns=("*.aria2",), beside=(".aria2",), source="https://aria2.github.io/manual/en/html/aria2c.html#control-file"),
    Leftover(by="lftp", patterns=("*.lftp-pget-status",), beside=(".lftp-pget-status",), source="https://lftp.yar.ru/lftp-man.html"),
    Leftover(by="gsutil and gcloud", patterns=("*_.gstmp",), temporary=True, source="https://cloud.google.com/storage/docs/gsutil/commands/cp"),
    Leftover(by="µTorrent, qBittorrent, BitComet", patterns=("*.!ut", "*.!qB", "*.!bt", "*.bc!"), temporary=True,
             source="https://github.com/qbittorrent/qBittorrent/wiki/Explanation-of-Options-in-qBittorrent"),
    Leftover(by="Chrome, Edge, Opera, Safari", patterns=("*.crdownload", "*.opdownload", "*.download"), temporary=True,
             source="https://chromium.googlesource.com/chromium/src/+/main/components/download/"),
    Leftover(by="Nextcloud and ownCloud: a file that is not on the disk yet", patterns=("*.nextcloud", "*.owncloud"),
             source="https://doc.owncloud.com/desktop/next/vfs.html"),
    Leftover(by="many: Samba-aware copiers, Total Commander, Google Drive, Free Download Manager", patterns=("*.tmp", "*.fdmdownload"), temporary=True,
             source="https://www.freedownloadmanager.org"),
    Leftover(by="cytowatch itself", patterns=("_returned", "_status", "*.why.txt"), source="docs/how-to/stuck-slide.md"),
)  # fmt: skip

#: All of them.
PATTERNS = tuple(pattern for one in LEFTOVERS for pattern in one.patterns)
#: Those that a file has only while it is copied.
TEMPORARY = tuple(pattern for one in LEFTOVERS if one.temporary for pattern in one.patterns)
#: What a program appends to the name of a file to name the notes that it keeps while it writes that file.
BESIDE = tuple(ending for one in LEFTOVERS for ending in one.beside)
