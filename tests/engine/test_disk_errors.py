"""Every error of the disk, at every call, on each kind of file: exit code 6, nothing lost, and a resume is exact."""

import errno
import json
import os
import re
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cdarts.algorithms.rsps import RspsConfig
from cdarts.cli import main
from cdarts.commands.search import Search
from cdarts.engine import checkpoint, loop
from cdarts.engine.run_dir import RunDir, read_json
from cdarts.engine.runtime import Interrupted
from cdarts.spaces import ToySpace
from cdarts.topology import read_genotype

ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS, errno.EFBIG]
CALLS = ["open", "write", "fsync", "rename"]
ARTEFACTS = {"checkpoint": r"step-\d+-\d+\.safetensors", "metrics": r"metrics\.jsonl", "genotype": r"genotype\.json"}
"""Files by name; unfinished, it stands within another."""


@dataclass
class Disk:
    """A disk that fails at one call on one file. A write takes half of the data before it fails.

    A journal is never renamed; there it is the way back that fails too, when half a line has been written.
    """

    number: int
    call: str
    name: re.Pattern[str]
    failures: int = 0
    faulty: set[int] = field(default_factory=set)
    """Descriptors of the file."""
    halved: bool = False

    def wear_out(self, patch: pytest.MonkeyPatch) -> None:
        opened, closed, written, flushed, cut = os.open, os.close, os.write, os.fsync, os.ftruncate
        renamed = Path.replace
        writes = self.call == "write" or (self.call == "rename" and "jsonl" in self.name.pattern)

        def open_(path: Any, flags: int, *mode: int) -> int:
            ours = self.name.search(os.fspath(path)) is not None
            if ours and self.call == "open":
                self.fail()
            descriptor = opened(path, flags, *mode)
            if ours:
                self.faulty.add(descriptor)
            return descriptor

        def close(descriptor: int) -> None:
            self.faulty.discard(descriptor)
            closed(descriptor)

        def write(descriptor: int, data: Any) -> int:
            if descriptor in self.faulty and writes:
                if self.halved:
                    self.fail()
                self.halved = True
                return written(descriptor, data[: len(data) // 2])
            return written(descriptor, data)

        def fsync(descriptor: int) -> None:
            if descriptor in self.faulty and self.call == "fsync":
                self.fail()
            flushed(descriptor)

        def ftruncate(descriptor: int, length: int) -> None:
            if descriptor in self.faulty and self.call == "rename":
                self.fail()
            cut(descriptor, length)

        def replace(path: Path, target: Path) -> Path:
            if self.call == "rename" and self.name.search(path.name):
                self.fail()
            return renamed(path, target)

        for name, function in (("open", open_), ("close", close), ("write", write), ("fsync", fsync)):
            patch.setattr(os, name, function)
        patch.setattr(os, "ftruncate", ftruncate)
        patch.setattr(Path, "replace", replace)

    def fail(self) -> None:
        self.failures += 1
        raise OSError(self.number, os.strerror(self.number))


def results(run: Path) -> dict[str, Any]:
    """The last state to the bit, the genotype and the journals without what the clock says."""
    stored = checkpoint.load(max((run / "checkpoints").glob("*.safetensors")))
    checkpoint.save(run.parent / "compared", stored["task"])
    found: dict[str, Any] = {
        "state": (run.parent / "compared").read_bytes(),
        "genotype": (run / "genotype.json").read_bytes(),
    }
    for journal in sorted(run.glob("*.jsonl")):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        found[journal.name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return found


def search(out: Path) -> Search:
    algorithm = RspsConfig(space=ToySpace(), channels=4, cells=2, batch_size=64, epochs=2, candidates=2)
    return Search(
        algorithm=algorithm,
        preset="toy",
        data="synthetic",
        out=out,
        threads=1,
        device="cpu",
        execution="share",
        checkpoint_seconds=0,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the search finds on a disk that does not fail."""
    out = tmp_path_factory.mktemp("straight") / "run"
    assert search(out).run() == 0
    return results(out)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same search, stopped within its second epoch."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    save = RunDir.save_checkpoint
    with pytest.MonkeyPatch.context() as patch:

        def save_and_signal(self: RunDir, content: Any) -> None:
            save(self, content)
            if (content.epoch, content.step) == (1, 1):
                signal.raise_signal(signal.SIGTERM)

        patch.setattr(loop.RunDir, "save_checkpoint", save_and_signal)
        with pytest.raises(Interrupted):
            search(out).run()
    return out


@pytest.mark.parametrize("artefact", ARTEFACTS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.__getitem__)
def test_a_disk_that_fails(
    tmp_path: Path,
    stopped: Path,
    straight: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    call: str,
    artefact: str,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    before = (run / "metrics.jsonl").read_bytes()
    newest = max((run / "checkpoints").iterdir())
    capsys.readouterr()
    disk = Disk(number, call, re.compile(ARTEFACTS[artefact]))
    with monkeypatch.context() as patch:
        disk.wear_out(patch)
        code = main(["resume", str(run)])
    assert disk.failures > 0
    assert code == 6
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: cannot ") and os.strerror(number) in error
    status = read_json(run / "status.json")
    assert status["state"] == "failed" and os.strerror(number) in status["message"]
    # nothing lost, nothing half-written under a final name
    assert checkpoint.load(newest if artefact == "checkpoint" else max((run / "checkpoints").glob("*.safetensors")))
    assert not list((run / "checkpoints").glob("*.tmp")) and not list(run.glob(".*.tmp"))
    if (run / "genotype.json").exists():
        read_genotype(run / "genotype.json")
    assert (run / "metrics.jsonl").read_bytes().startswith(before)
    assert main(["resume", str(run)]) == 0
    assert results(run) == straight
