"""`kill -9` of real processes at random times, with images read from files by no thread or by two: the same bits.

``pytest -m slow -n 0 -s tests/commands/test_killed_processes.py`` takes some twenty minutes on an idle core.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Results = Callable[[Path], dict[str, Any]]

KILLS = 50
"""Of each case."""
COMMON = ["--images", "files", "--image-size", "16", "--device", "cpu", "--threads", "1", "--checkpoint-seconds", "0"]
COMMANDS = {
    "search": ["search", "smoke", "--cycles", "2", "--batch-size", "8"],
    "retrain": ["retrain", "darts-v2", "--cells", "2", "--channels", "4", "--epochs", "4", "--batch-size", "8"],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, write_photos: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    pixels = np.random.default_rng(0).integers(0, 256, (72, 24, 24, 3), dtype=np.uint8)
    write_photos(folder, pixels, np.arange(72) % 3, ("one", "two", "three"), sides=(16, 24))
    return folder


def begun(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen([sys.executable, "-m", "cdarts.cli", *arguments], stdout=output, stderr=output)


def is_done(process: subprocess.Popen[bytes], seconds: float, log: Path) -> bool:
    """Whether it has done its work within so many seconds; it is killed if not."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    assert code == 0, log.read_text()
    return True


def whole(arguments: list[str], out: Path, log: Path) -> tuple[float, float]:
    """A run that is never killed: seconds until its first checkpoint, and from then on."""
    process, start = begun(arguments, log), time.monotonic()
    while not any(out.glob("checkpoints/*.safetensors")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    first = time.monotonic()
    assert is_done(process, 600, log)
    return first - start, time.monotonic() - first


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("command", COMMANDS)
def test_processes_killed_at_random_times(
    tmp_path: Path, photos: Path, results: Results, command: str, workers: int
) -> None:
    def arguments(out: Path, workers: int) -> list[str]:
        return [*COMMANDS[command], *COMMON, "--data", str(photos), "--workers", str(workers), "--out", str(out)]

    log, draw = tmp_path / "log", random.Random(workers)
    starting, working = whole(arguments(tmp_path / "straight", 0), tmp_path / "straight", log)
    expected = results(tmp_path / "straight")
    kills = runs = 0
    while kills < KILLS:
        out = tmp_path / f"run-{runs}"
        done = False
        while not done:
            again = ["resume", str(out)] if (out / "config.json").exists() else arguments(out, workers)
            # few while it starts, where there is nothing yet to lose
            seconds = draw.uniform(0.8 * starting, starting + working / 2) if kills < KILLS else float("inf")
            done = is_done(begun(again, log), min(seconds, 600), log)
            kills += not done
        runs += 1
        assert results(out) == expected
    print(f"{command}, {workers} workers: {kills} kills of {runs} runs, 0 mismatches")
