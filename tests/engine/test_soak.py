"""A search on CIFAR-10 images whose process is killed every minute: the same bits, and nothing piles up.

``pytest -m slow -n 0 -s tests/engine/test_soak.py`` takes some forty minutes on two idle cores, and says what it saw.
"""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median
from threading import Event
from typing import Any, NamedTuple

import pytest

from cdarts.engine import checkpoint

SECONDS_BETWEEN_KILLS = 60.0
SECONDS_BETWEEN_LOOKS = 1.0
IDLE_LIVES = 5
"""After so many that came no further the machine is too busy for this test."""
SEARCH = [
    *("search", "smoke", "--data", "cifar10-5k", "--image-size", "16", "--cycles", "50", "--threads", "1"),
    *("--device", "cpu", "--checkpoint-seconds", "5"),
]


class Look(NamedTuple):
    """What a process holds at a time."""

    resident: int
    """Memory in KiB."""
    descriptors: int
    """Open files."""


def look_at(pid: int) -> Look | None:
    """None if it has just ended."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    if "VmRSS" not in status:
        return None
    return Look(int(status["VmRSS"].split()[0]), sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))


def live(arguments: list[str], log: Path, seconds: float, over: Event) -> tuple[bool, list[Look]]:
    """Whether a process has done its work within so many seconds; and what was seen of it.

    After that time, or when all is `over`, it is killed.
    """
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", "cdarts.cli", *arguments], stdout=output, stderr=output)
    looks: list[Look] = []
    until = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() >= until or over.is_set():
            process.kill()
            process.wait()
            break
        look = look_at(process.pid)
        looks += [] if look is None else [look]
        time.sleep(SECONDS_BETWEEN_LOOKS)
    assert process.returncode in (0, -signal.SIGKILL), log.read_text()
    return process.returncode == 0, looks


def results(run: Path) -> dict[str, Any]:
    """The last state to the bit, the genotype and the journals without what the clock says."""
    stored = checkpoint.load(max((run / "checkpoints").glob("*.safetensors")))
    checkpoint.save(run / "compared", stored["task"])
    found: dict[str, Any] = {"state": (run / "compared").read_bytes(), "genotype": (run / "genotype.json").read_bytes()}
    for journal in sorted(run.glob("*.jsonl")):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        found[journal.name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return found


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.usefixtures("cdarts_data")
def test_a_kill_every_minute(tmp_path: Path) -> None:
    killed, straight, log = tmp_path / "killed", tmp_path / "straight", tmp_path / "log"
    began, over = time.monotonic(), Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            # one that is never killed, at the same time
            beside = pool.submit(live, [*SEARCH, "--out", str(straight)], tmp_path / "log beside", float("inf"), over)
            done, looks = live([*SEARCH, "--out", str(killed)], log, SECONDS_BETWEEN_KILLS, over)
            lives, places = [looks], ["nothing"]
            while not done:
                again = (
                    ["resume", str(killed)] if (killed / "config.json").exists() else [*SEARCH, "--out", str(killed)]
                )
                done, looks = live(again, log, SECONDS_BETWEEN_KILLS, over)
                lives.append(looks)
                places.append(max((path.stem for path in killed.glob("checkpoints/*.safetensors")), default="nothing"))
                line = f"{len(lives) - 1} kills in {time.monotonic() - began:.0f} s, at {places[-1]}, {looks[-1]}"
                print(line, flush=True)
                assert len(set(places[-IDLE_LIVES:])) > 1 or len(places) < IDLE_LIVES, "too busy a machine"
                assert not beside.done() or beside.result()[0]
            seconds = time.monotonic() - began
            assert len(lives) > 2, "too fast a machine for this search to be killed twice"
            done, whole = beside.result()
            assert done
        finally:
            over.set()
    late, later = whole[len(whole) // 3 : 2 * len(whole) // 3], whole[2 * len(whole) // 3 :]
    growth = mean(look.resident for look in later) / mean(look.resident for look in late) - 1.0
    peaks = [max(look.resident for look in looks) // 1024 for looks in lives[:-1]]
    # more while a process starts and reads its run; then as many in every life
    usual = [median(look.descriptors for look in looks) for looks in lives]
    most = max(look.descriptors for looks in (*lives, whole) for look in looks)
    print(
        f"{len(lives) - 1} kills in {seconds:.0f} s; of the one never killed: memory from the second third to the "
        f"last {growth:+.2%}, peaks of the lives {min(peaks)} to {max(peaks)} MiB; "
        f"files open in a life, median {min(usual):g} to {max(usual):g}, at most {most}",
        flush=True,
    )
    assert results(killed) == results(straight)
    assert growth < 0.02
    assert max(peaks) < 1.05 * max(look.resident for look in whole) / 1024, "no life needs more than one that is whole"
    early, last = (max(look.descriptors for look in looks) for looks in (late, later))
    assert last <= early + 1, "one more while a file is written"
    assert max(usual) <= early
    assert most <= 2 * early
