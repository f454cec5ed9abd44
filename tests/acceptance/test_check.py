"""`check` beside a daemon, beside a stranger on its port, and what it says of a real Samba's shares."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from cytowatch.cli import samba
from tests.lab.prometheus import HOUSE
from tests.lab.root import Root
from tests.lab.told import free_port
from tests.needs import needs

SHIPPED = (HOUSE / "config/samba/cytowatch.conf").read_text()


def said(root: Root, name: str, **environment: str) -> list[tuple[bool | None, str]]:
    """What `check` answers under `name`."""
    words = root.command("check", "--root", str(root.path), "--config", str(root.config), "--json")
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    found = json.loads(done.stdout)
    assert done.returncode == (1 if any(one["good"] is False for one in found) else 0)
    return [(one["good"], one["detail"]) for one in found if one["name"] == name]


def test_the_port_of_the_metrics(root: Root) -> None:
    """Free, the daemon's own, a stranger's before the start and beside the daemon, another daemon's."""
    port, other = free_port(), free_port()
    at = f"127.0.0.1:{port}"
    root.configure(listen=at)
    assert said(root, "metrics") == [(True, f"{at} is free")]
    with socket.create_server(("127.0.0.1", port)):
        [(good, detail)] = said(root, "metrics")
        assert good is None
        assert "another program" in detail
    root.start()
    assert root.process
    pid = root.process.pid
    assert said(root, "metrics") == [(True, f"the daemon (process {pid}) answers on {at}")]

    # Changed since the start: nobody listens there, or somebody else does.
    root.configure(listen=f"127.0.0.1:{other}")
    [(good, detail)] = said(root, "metrics")
    assert good is None
    assert f"process {pid}" in detail
    with socket.create_server(("127.0.0.1", other)):
        [(good, detail)] = said(root, "metrics")
    assert good is False
    assert "another program" in detail

    # It hangs.
    root.configure(listen=at)
    root.process.send_signal(signal.SIGSTOP)
    [(good, detail)] = said(root, "metrics")
    root.process.send_signal(signal.SIGCONT)
    assert good is False
    assert f"the daemon (process {pid}) hangs, or another program" in detail

    second = Root(root.path.parent / "second")
    second.create()
    second.configure(listen=at)
    [(good, detail)] = said(second, "metrics")
    assert good is None
    assert f"another cytowatch (process {pid})" in detail
    assert root.stop() == 0


@needs("testparm")
def test_the_shares_as_shipped_need_no_advice(root: Root, tmp_path: Path) -> None:
    """Through a real testparm: included from an smb.conf, for the tree's own owner."""
    owner = pwd.getpwuid(root.path.stat().st_uid).pw_name
    shares = SHIPPED.replace("/srv/cytowatch", str(root.path)).replace("force user = cytowatch", f"force user = {owner}")  # fmt: skip
    (tmp_path / "shares.conf").write_text(shares)
    config = tmp_path / "smb.conf"
    config.write_text(f"[global]\n workgroup = LAB\n include = {tmp_path}/shares.conf\n")
    [(good, detail)] = said(root, "samba", SMB_CONF_PATH=str(config))
    assert good is True
    assert "cytowatch-inbox" in detail
    assert "cytowatch-slides" in detail


#: What is wrong with the shares, and a word of the advice.
WRONG = {
    "durable handles = no": ("", "durable handles"),
    "kernel share modes = no": ("kernel share modes = yes", "kernel share modes"),
    "follow symlinks = no": ("follow symlinks = yes", "follow symlinks"),
    "strict sync = yes": ("strict sync = no", "strict sync"),
    "unix extensions = no": ("", "unix extensions"),
    "server min protocol = SMB2_10": ("server min protocol = NT1", "SMB1"),
    "hide special files = yes": ("wide links = yes", "wide links"),
    "strict allocate = no": ("unix extensions = yes", "move it to [global]"),
}


@needs("testparm")
@pytest.mark.parametrize("line", WRONG)
def test_each_setting_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """By its own name, with what happens otherwise; it is advice, and no fault."""
    other, word = WRONG[line]
    shares = SHIPPED.replace("/srv/cytowatch", str(tmp_path))
    assert f"   {line}\n" in shares
    config = tmp_path / "smb.conf"
    config.write_text(shares.replace(f"   {line}\n", f"   {other}\n", 1))
    monkeypatch.setenv("SMB_CONF_PATH", str(config))
    found = list(samba.advise(tmp_path, "cytowatch"))
    assert [good for good, detail in found if word in detail] == [None], found
    # And who owns the tree matters too.
    assert any("force user = ann" in detail for _, detail in samba.advise(tmp_path, "ann"))


@needs("testparm")
def test_a_share_that_shows_the_tree_for_writing_is_wrong(root: Root, tmp_path: Path) -> None:
    """Also where its path only begins above the tree; one beside it is nobody's business."""
    config = tmp_path / "smb.conf"
    text = f"[lab]\n path = {root.path.parent}\n read only = no\n[x]\n path = /nowhere\n read only = no\n"
    config.write_text(text)
    found = said(root, "samba", SMB_CONF_PATH=str(config))
    assert [detail for good, detail in found if good is False] == [
        f"[lab] may be written to and shows {root.path.parent}: of the tree only inbox/ may be, or "
        "anyone can change what is stored"
    ]
    config.write_text("[x]\n path = /nowhere\n")
    [(good, detail)] = said(root, "samba", SMB_CONF_PATH=str(config))
    assert good is None
    assert "no share leads to" in detail
    config.write_text("[global]\n include = \x00\n nonsense\n[x\n")
    assert all(good is None for good, _ in said(root, "samba", SMB_CONF_PATH=str(config)))


def test_every_setting_of_the_advice_is_explained() -> None:
    """docs/smb.md has a row for each, and the shipped shares have each."""
    page = (HOUSE / "docs/smb.md").read_text()
    for rule in (*samba._INBOX, *samba._SERVER):
        name = rule.name.removeprefix("smb1 ")
        assert re.search(rf"^   {name} = {rule.wanted}$", SHIPPED, re.MULTILINE), name
        assert f"`{name} = {rule.wanted}`" in page, name
