"""Others are notified when an uploaded file is finished: at least once, no matter what happens."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import hmac
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cytowatch.config import from_mapping
from cytowatch.durable import failpoints
from cytowatch.record.errors import ConfigError
from tests import builders
from tests.lab.root import Root, command
from tests.lab.told import free_port, json_lines, metric


class Receiver:
    """A real server that notes what it is sent, and answers as it is asked to."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = outer.answers.pop(0) if outer.answers else 204
                if code == 0:
                    time.sleep(3)
                    code = 204
                outer.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/slides?from=scanner"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def hook(name: str, **values: Any) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"name": name, **values}.items()]
    return "\n".join(["[[hooks]]", *lines, ""])


def test_a_post_is_signed_and_sent_until_it_arrives(
    root: Root, tmp_path: Path, receiver: Receiver
) -> None:
    """A CloudEvent with the manifest; refused, redirected and late answers are tried again."""
    port = free_port()
    key = b"thirty-two bytes of a secret....."
    (tmp_path / "secret").write_text("whsec_" + base64.b64encode(key).decode() + "\n")
    receiver.answers = [500, 302]
    root.configure(
        listen=f"127.0.0.1:{port}",
        more=hook("viewer", url=receiver.url, secret_file=str(tmp_path / "secret"),
                  on=["DEPLOYED", "ERROR_FORMAT"]),
    )  # fmt: skip
    root.start()
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.wait(lambda: metric(port, 'cytowatch_hook_deliveries_total{hook="viewer",outcome="delivered"}') == 1)  # fmt: skip
    assert len(receiver.got) == 3
    [document] = root.manifests().values()
    for sent, body in receiver.got:
        assert sent["webhook-id"] == f"{document['id']}.DEPLOYED"
        signed = b".".join((sent["webhook-id"].encode(), sent["webhook-timestamp"].encode(), body))
        wanted = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert sent["webhook-signature"] == f"v1,{wanted}"
        told = json.loads(body)
        assert (told["specversion"], told["id"]) == ("1.0", f"{document['id']}.DEPLOYED")
        assert told["type"] == "cytowatch.uploaded-file.deployed"
        assert told["data"] == json.loads((document["_path"] / "manifest.json").read_text())
    (root.path / "inbox" / "ann" / "letter.pdf").write_bytes(b"%PDF-1.4 hello")
    root.wait(lambda: len(receiver.got) == 4)
    assert json.loads(receiver.got[3][1])["data"]["error"]["reason"] == "unsupported_format"
    # What it is not to be notified of is not noted.
    root.drop(builders.png(tmp_path / "b.png"))
    root.wait(lambda: root.by_name().get("b.png", {}).get("status") == "CONVERTED")
    assert list((root.path / "state" / "hooks").iterdir()) == []
    assert key.decode() not in root.log.read_text()
    assert root.stop() == 0
    root.assert_clean()


def script(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [sys.executable, str(path)]


def test_a_command_is_given_the_manifest(root: Root, tmp_path: Path) -> None:
    """On its standard input, with a few words in its environment; no shell, no descriptors."""
    words = script(
        tmp_path / "told.py",
        "import json, os, sys\n"
        "found = json.load(sys.stdin)\n"
        f"out = open({str(tmp_path / 'out')!r}, 'a')\n"
        "out.write(json.dumps([found['name'], sys.argv[1], os.environ['CYTOWATCH_STATUS'],\n"
        "    os.environ['CYTOWATCH_PATH'], sorted(os.listdir('/proc/self/fd'))[:3]]) + '\\n')\n",
    )
    root.configure(more=hook("mail", command=[*words, "$(reboot)"], on=["DEPLOYED", "EXTRACTED"]))
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()
    [line] = (tmp_path / "out").read_text().splitlines()
    assert json.loads(line)[:4] == ["a.svs", "$(reboot)", "DEPLOYED", str(document["_path"])]
    assert [one["outcome"] for one in json_lines(root.log) if one["event"] == "hook"] == [
        "delivered"
    ]


def test_a_hook_that_fails_is_a_dead_letter_and_no_error(root: Root, tmp_path: Path) -> None:
    """It hangs and leaves a process behind: ended with it; slides go on, another hook is served."""
    slow = script(
        tmp_path / "slow.py",
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"if os.fork() == 0:\n    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(1000)\n",
    )
    good = script(tmp_path / "good.py", f"open({str(tmp_path / 'out')!r}, 'a').write('x')\n")
    more = hook("slow", command=slow, timeout_s=1.0, max_attempts=1) + hook("good", command=good)
    root.configure(more=more)
    root.start()
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.wait((tmp_path / "out").exists)
    page = root.wait(lambda: json.loads(command(root, "status", "--json").stdout)["dead_letters"])
    assert [(one["hook"], one["tries"]) for one in page] == [("slow", 1)]
    assert "more than 1 s" in page[0]["said"]
    assert "untold   slow" in command(root, "status").stdout
    left = Path(f"/proc/{(tmp_path / 'pid').read_text()}/cmdline")
    # Gone, or dead and not buried by anyone who inherited it.
    assert not left.exists() or left.read_bytes() == b""
    assert [one["status"] for one in root.manifests().values()] == ["DEPLOYED"]
    assert root.stop() == 0
    root.assert_clean()


@pytest.mark.parametrize("place", ["hook.noted", "stage.renamed"])
def test_killed_before_and_after_the_rename_it_is_told_all_the_same(
    root: Root, tmp_path: Path, receiver: Receiver, place: str
) -> None:
    """Noted and not yet so, or so and not yet told: after the next start, with the same id."""
    root.configure(more=hook("viewer", url=receiver.url))
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    # The fourth rename of an <id>/ is that into storage.
    root.environment = {failpoints.VARIABLE: f"{place}=kill@{1 if place == 'hook.noted' else 4}"}
    assert root.run_until_idle() == -signal.SIGKILL
    assert receiver.got == []
    assert len(list((root.path / "state" / "hooks").iterdir())) == 1
    root.environment = {}
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()
    assert {sent["webhook-id"] for sent, _ in receiver.got} == {f"{document['id']}.DEPLOYED"}
    assert list((root.path / "state" / "hooks").iterdir()) == []
    root.assert_clean()


def test_killed_while_it_is_told(root: Root, tmp_path: Path, receiver: Receiver) -> None:
    """It is notified again: at least once, and both sides know it by the same id."""
    receiver.answers = [0]
    root.configure(more=hook("viewer", url=receiver.url))
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.start()
    root.wait(lambda: receiver.answers == [])
    root.kill()
    assert root.run_until_idle() == 0
    assert len({sent["webhook-id"] for sent, _ in receiver.got}) == 1


def test_problems_of_hooks_are_told_by_their_number() -> None:
    """All of one kind at once."""
    with pytest.raises(ConfigError) as raised:
        from_mapping(
            {"hooks": [{"name": "a", "command": ["mail"]}, {"name": "a"}, {"on": ["DONE"]}]}
        )
    assert any("hooks[2].on" in one for one in raised.value.problems)
    with pytest.raises(ConfigError) as raised:
        from_mapping({"hooks": [{"name": "a", "command": ["mail"]}, {"name": "a"}]})
    told = " ".join(raised.value.problems)
    for words in ("hooks[0].command: 'mail' is not an absolute path", "has this name as well", "hooks[1]: expected either"):  # fmt: skip
        assert words in told


def test_hooks_change_with_a_reload(root: Root, tmp_path: Path, receiver: Receiver) -> None:
    """A new one is notified from then on; what waits for one that is gone waits, and `hooks` says so."""
    root.configure(more=hook("old", command=["/bin/false"], on=["DEPLOYED"], max_attempts=100))
    root.start()
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.wait(lambda: [one for one in json_lines(root.log) if one["event"] == "hook"])
    root.configure(more=hook("new", url=receiver.url, on=["CONVERTED"]))
    assert root.process
    root.process.send_signal(signal.SIGHUP)
    root.wait(lambda: [one for one in json_lines(root.log) if one["event"] == "reloaded"])
    [line] = [one for one in json_lines(root.log) if one["event"] == "reloaded"]
    assert line["changed"] == ["hooks"]
    builders.png(tmp_path / "b.png")
    root.drop(tmp_path / "b.png")
    root.wait(lambda: receiver.got)
    assert json.loads(receiver.got[0][1])["data"]["name"] == "b.png"
    told = command(root, "hooks")
    assert told.returncode == 0
    assert "no hook of that name any more" in told.stdout
    assert root.stop() == 0


def test_the_recipe_for_mail_tells_the_technician(root: Root, tmp_path: Path) -> None:
    """The program of docs/hooks.md, with a real SMTP server: one mail, that says what is wrong."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.handlers import Mailbox

    page = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
    recipe = page.split("```python\n")[1].split("```")[0]
    box = tmp_path / "mail"
    controller = Controller(Mailbox(str(box)), hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        program = tmp_path / "mail-the-technician"
        # Port 25 may be taken on the machine that runs the tests.
        program.write_text(recipe.replace('"localhost"', f'"127.0.0.1", {controller.port}'))
        program.chmod(0o755)
        errors = [f"ERROR_{word}" for word in ("FORMAT", "EXTRACTION", "CONVERSION", "DEPLOYMENT")]
        root.configure(more=hook("mail", command=[str(program)], on=errors))
        (root.path / "inbox" / "ann").mkdir()
        (root.path / "inbox" / "ann" / "Größe 1\n.pdf").write_bytes(b"%PDF-1.4 hello")
        assert root.run_until_idle() == 1
    finally:
        controller.stop()
    [file] = (box / "new").iterdir()
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert mail["To"] == "ann@lab.example"
    assert "Größe 1" in mail["Subject"]
    assert "ERROR FORMAT" in mail["Subject"]
    assert "PDF" in mail.get_content()
