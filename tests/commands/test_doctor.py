"""`cdarts doctor`: a machine that is well, and one fault at a time."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cdarts import __version__
from cdarts.commands import doctor
from cdarts.engine import checkpoint, files

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine that tests run on may have one."""
    monkeypatch.delenv("CDARTS_NASBENCH201", raising=False)
    monkeypatch.setenv("CDARTS_DATA", str(tmp_path / "data"))


def test_a_machine_that_is_well(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    began = time.monotonic()
    result = call("doctor", "--path", folder)
    assert time.monotonic() - began < 10
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"cdarts {__version__}  doctor  path {folder}"
    assert [line.split()[0] for line in lines[1:-1]] == [
        *("versions", "versions", "device", "device", "compiler", "compiler", "disk", "disk", "disk", "data", "table")
    ]
    assert f"torch {torch.__version__}, " in result.out
    assert "a flipped bit is noticed" in result.out
    assert f"in {tmp_path / 'data'}: nothing yet" in result.out
    assert lines[-1] == "all is well"
    assert list(folder.iterdir()) == [], "nothing stays behind"


def test_the_first_line_comes_before_torch(tmp_path: Path) -> None:
    code = (
        "import builtins, sys; from cdarts.cli import main; say = builtins.print\n"
        "def watch(*words, **options): say(*words, 'torch' in sys.modules, **options)\n"
        "builtins.print = watch; sys.exit(main(['doctor', '--path', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    first, second, *_, last = done.stdout.splitlines()
    assert first.endswith(f"path {tmp_path} False") and second.endswith("False")
    assert last.endswith("True")


def test_a_folder_that_is_not_there(call: Call, tmp_path: Path) -> None:
    result = call("doctor", "--path", tmp_path / "absent")
    assert result.code == 6
    assert (
        result.error() == f"--path {tmp_path / 'absent'}: cannot be written to: No such file or directory; "
        "name another folder"
    )
    assert "disk      FAILED" in result.out
    assert "device    " in result.out and "table     no " in result.out, "the other checks are made all the same"
    assert result.out.endswith("1 of 5 checks failed\n")


def test_a_disk_that_is_full(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)
    result = call("doctor", "--path", tmp_path)
    assert result.code == 6
    assert "No space left on device" in result.error()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_forgets(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda path: load(path) | {"step": 8})
    result = call("doctor", "--path", tmp_path)
    assert result.code == 4
    assert result.error() == f"a checkpoint in {tmp_path} does not come back as it was written: use another disk"


def test_damage_that_goes_unnoticed(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "load", lambda _: {"step": 7, "weight": torch.arange(2.0**16)})
    result = call("doctor", "--path", tmp_path)
    assert result.code == 4
    assert "a flipped bit in a checkpoint goes unnoticed" in result.error()


def test_a_library_that_is_missing(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    result = call("doctor", "--path", tmp_path)
    assert result.code == 2
    assert "torchvision" in result.error() and "install" in result.error()


def test_threads_beyond_the_cores(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "usable_cores", lambda: 0)
    result = call("doctor", "--path", tmp_path)
    assert "more threads than cores" in result.out
    assert result.code == 0


@pytest.mark.parametrize(
    ("named", "answer"),
    [
        (
            "no-such-compiler",
            "no C++ compiler (no-such-compiler) was found: execution share is taken, at half the speed of fused",
        ),
        (sys.executable, f"{sys.executable}  Python {sys.version.split()[0]}"),
    ],
)
def test_compilers(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, answer: str) -> None:
    monkeypatch.setenv("CXX", named)
    result = call("doctor", "--path", tmp_path)
    assert f"compiler  {answer}\n" in result.out
    assert result.code == 0


def test_data_that_is_there(call: Call, tmp_path: Path) -> None:
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "data" / "FashionMNIST").mkdir()
    assert "data: cifar10, fashion-mnist; " in call("doctor", "--path", tmp_path).out


def test_a_table_that_is_damaged(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv.gz"
    monkeypatch.setenv("CDARTS_NASBENCH201", str(path))
    result = call("doctor", "--path", tmp_path)
    assert result.code == 3
    assert f"{path}: no table of NAS-Bench-201 there" in result.error(), "a table that is named must be there"
    path.write_bytes(b"no table")
    result = call("doctor", "--path", tmp_path)
    assert result.code == 3
    assert f"{path}: not a readable table" in result.error()


def test_a_table_that_is_whole(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cdarts_data: Path) -> None:
    monkeypatch.setenv("CDARTS_DATA", str(cdarts_data))
    result = call("doctor", "--path", tmp_path)
    assert result.code == 0
    assert f"table     {cdarts_data / 'nasbench201.csv.gz'}: 15,625 cells" in result.out
