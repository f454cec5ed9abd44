"""Clients that others wrote, against a real panel: curl as the document says, tuspy, aiotus, tus-js-client in Chromium."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import aiotus
import pytest
import yarl
from aiotus import core, creation
from playwright.sync_api import sync_playwright
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.needs import CHROMIUM, needs, unless

HOUSE = Path(__file__).resolve().parents[2]
MB = 1 << 20


@pytest.fixture
def panel(tree: Root) -> Iterator[Served]:
    """A panel that knows machines by their tokens."""
    served = Served(tree.path, more='auth = "proxy"\n')
    yield served
    served.stop()


@pytest.fixture
def token(panel: Served) -> str:
    """Ann's."""
    return panel.token("scanner-3", "ann")


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """Some MB of anything: only bytes matter here."""
    path = tmp_path / "slide.svs"
    path.write_bytes(os.urandom(5 * MB + 123))
    return path


def killed(panel: Served) -> None:
    """The panel, by -9 and started again."""
    assert panel.process
    panel.process.kill()
    panel.process.wait(HANGS_S)
    panel.start()


@needs("bash", "curl")
def test_curl_as_documented(tree: Root, panel: Served, token: str, slide: Path) -> None:
    """The lines of docs/how-to/add-files.md, as they stand, but for the address."""
    text = (HOUSE / "docs/how-to/add-files.md").read_text()
    [lines] = re.findall(r"```sh\n(curl .*?)```", text, re.DOTALL)
    assert lines.count("https://slides.lab.example/") == 1
    lines = lines.replace("https://slides.lab.example/", f"http://{panel.address}/")
    done = subprocess.run(
        ["bash", "-euc", lines], cwd=slide.parent, env={**os.environ, "CYTOWATCH_TOKEN": token},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("HTTP/1.1 201"), done.stdout
    assert f"upload-offset: {slide.stat().st_size}" in done.stdout.lower()
    assert (tree.path / "inbox/ann/slide.svs").read_bytes() == slide.read_bytes()


def test_tuspy(tree: Root, panel: Served, token: str, slide: Path) -> None:
    """With checksums, in pieces; it goes on after a kill of the panel with the address that it kept."""
    client = TusClient(f"http://{panel.address}/uploads", {"Authorization": f"Bearer {token}"})
    data = slide.read_bytes()
    more: dict[str, Any] = {
        "chunk_size": MB, "upload_checksum": True, "metadata": {"filename": "slide.svs", "project": "Trial 7"},
    }  # fmt: skip
    first = client.uploader(file_stream=io.BytesIO(data), **more)
    first.upload(stop_at=2 * MB)
    killed(panel)
    second = client.uploader(file_stream=io.BytesIO(data), url=first.url, **more)
    assert second.offset == 2 * MB
    second.upload()
    assert second.url == first.url
    drop = tree.path / "inbox/ann/@Trial 7/slide.svs"
    assert drop.read_bytes() == data
    # Without the token it learns nothing.
    stranger = TusClient(f"http://{panel.address}/uploads")
    with pytest.raises(TusCommunicationError, match="401"):
        stranger.uploader(file_stream=io.BytesIO(data), metadata={"filename": "a.svs"}).upload()


def test_aiotus(tree: Root, panel: Served, token: str, slide: Path) -> None:
    """What the server can do, a creation, its bytes in pieces, its offset."""
    end = yarl.URL(f"http://{panel.address}/uploads")
    headers = {"Authorization": f"Bearer {token}"}

    async def send() -> None:
        async with aiohttp.ClientSession(headers=headers) as session:
            told = await core.configuration(session, end)
            assert told.protocol_versions == ["1.0.0"]
            assert {"creation", "termination", "checksum"} <= set(told.protocol_extensions)
            with slide.open("rb") as file:
                metadata: dict[str, bytes | None] = {"filename": b"slide.svs", "is_public": None}
                at = await creation.create(session, end, file, metadata)
                # Its `upload` joins relative addresses wrongly; RFC 3986 says how.
                at = end.join(at)
                assert await core.offset(session, at) == 0
                await core.upload_buffer(session, at, file, chunksize=MB)
            assert await core.offset(session, at) == slide.stat().st_size

    asyncio.run(send())
    assert (tree.path / "inbox/ann/slide.svs").read_bytes() == slide.read_bytes()


#: An upload by tus-js-client that stops by itself after so many bytes, and can be gone on with.
SEND = """async ([text, most, options]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const file = new File([bytes], "slide.svs", {lastModified: 1700000000000});
  return await new Promise((done, failed) => {
    const upload = new tus.Upload(file, {
      endpoint: "/uploads", chunkSize: 1 << 20, retryDelays: [0, 100],
      metadata: {filename: "slide.svs", user: "ann"}, removeFingerprintOnSuccess: true, ...options,
      onError: (error) => failed(new Error(String(error))),
      onSuccess: () => done({url: upload.url, whole: true, resumed}),
      onChunkComplete: async (_size, accepted) => {
        if (most && accepted >= most) {
          await upload.abort(options.terminate);
          done({url: upload.url, whole: false, resumed});
        }
      },
    });
    let resumed = false;
    upload.findPreviousUploads().then((found) => {
      if (found.length) { upload.resumeFromPreviousUpload(found[0]); resumed = true; }
      upload.start();
    });
  });
}"""


@unless(None if CHROMIUM else "missing: chromium (Debian: apt install chromium)")
def test_tus_js_client(tree: Root, slide: Path) -> None:
    """Driven directly in Chromium: resumed after a kill, with the creation, in one request, and terminated."""
    served = Served(tree.path, words=("--actions",))
    data = slide.read_bytes()
    text = base64.b64encode(data).decode()
    inbox = tree.path / "inbox"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(base_url=f"http://{served.address}")
        page.goto("/upload")
        first = page.evaluate(SEND, [text, 2 * MB, {}])
        assert (first["whole"], first["resumed"]) == (False, False)
        killed(served)
        second = page.evaluate(SEND, [text, 0, {}])
        assert second == {"url": first["url"], "whole": True, "resumed": True}
        options: dict[str, Any] = {"uploadDataDuringCreation": True}
        assert page.evaluate(SEND, [text, 0, options])["whole"]
        options = {"chunkSize": 1 << 40, "overridePatchMethod": True}
        assert page.evaluate(SEND, [text, 0, options])["whole"]
        gone = page.evaluate(SEND, [text, MB, {"terminate": True}])
        answer = page.evaluate("(url) => fetch(url).then((one) => one.status)", gone["url"])
        assert answer == 404
        browser.close()
    served.stop()
    # The second and the third one found the name taken.
    drops = sorted(path.name for path in (inbox / "ann").iterdir())
    assert drops == ["slide (1).svs", "slide (2).svs", "slide.svs"]
    for name in drops:
        found = (inbox / "ann" / name).read_bytes()
        assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()


def test_a_size_that_comes_later_and_parts_are_refused_in_words(
    panel: Served, token: str, slide: Path
) -> None:
    """What aiotus does for several parts, and others for streams: the client learns why it cannot be."""
    end = f"http://{panel.address}/uploads"
    headers = {"Authorization": f"Bearer {token}"}
    with slide.open("rb") as one, slide.open("rb") as two:
        joined = aiotus.upload_multiple(
            end, [one, two], {"filename": b"slide.svs"}, headers=headers,
            config=aiotus.RetryConfiguration(retry_attempts=1),
        )  # fmt: skip
        assert asyncio.run(joined) is None
