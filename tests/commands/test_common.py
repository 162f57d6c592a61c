"""What the commands share: the status that a session leaves, and the words about data."""

from pathlib import Path

import pytest
import torch

from cdarts.commands.common import default_out, describe, session
from cdarts.data import load
from cdarts.engine.run_dir import RunDir, read_json
from cdarts.engine.runtime import Interrupted
from cdarts.errors import ConfigurationError, DiskError, NonFiniteError


def begin(path: Path) -> RunDir:
    return RunDir.create(path, {"command": "search"})


def test_a_session_that_ends_well(tmp_path: Path) -> None:
    with session(begin(tmp_path / "run")) as stop:
        assert read_json(tmp_path / "run" / "status.json")["state"] == "running"
        stop.check()
    assert read_json(tmp_path / "run" / "status.json")["state"] == "done"


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (Interrupted(15), "interrupted", "stopped by SIGTERM"),
        (NonFiniteError("the loss is nan"), "failed", "the loss is nan"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
    ],
)
def test_a_session_that_does_not(tmp_path: Path, error: Exception, state: str, message: str) -> None:
    with pytest.raises(type(error)), session(begin(tmp_path / "run")):
        raise error
    status = read_json(tmp_path / "run" / "status.json")
    assert (status["state"], status["message"]) == (state, message)
    assert status["resume"] == f"cdarts resume {tmp_path / 'run'}"


def test_of_nested_sessions_the_outer_one_is_resumed(tmp_path: Path) -> None:
    outer, inner = tmp_path / "run", tmp_path / "run" / "search"
    run = begin(outer)
    with pytest.raises(Interrupted) as raised, session(run), session(begin(inner)):
        raise Interrupted(2)
    assert str(raised.value) == f"stopped by SIGINT; go on: cdarts resume {outer}"
    assert raised.value.exit_code == 130
    for path in (outer, inner):
        status = read_json(path / "status.json")
        assert (status["state"], status["resume"]) == ("interrupted", f"cdarts resume {path}")


def test_a_full_disk_does_not_hide_what_ended_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match="the checkpoint"), session(begin(tmp_path / "run")):
        monkeypatch.setattr(Path, "replace", refuse)
        raise DiskError("the checkpoint")


def test_the_directory_is_released(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), session(run):
        raise ZeroDivisionError
    assert run._lock is None


def test_words_about_data() -> None:
    assert describe(load("synthetic")) == "data    synthetic: 256 training and 64 test images, 8x8x3, 4 classes"


def test_default_names_sort_by_time() -> None:
    name = default_out("smoke", "", "seed0").name
    assert name.startswith("smoke-seed0-2")
    assert default_out("a").parent == Path("runs")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        MemoryError(),
    ],
)
def test_too_little_memory_says_what_to_change(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(ConfigurationError, match="smaller --batch-size, fewer --channels"),
        session(begin(tmp_path / "run")),
    ):
        raise error
    assert "not enough memory" in read_json(tmp_path / "run" / "status.json")["message"]


def test_other_errors_of_torch_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), session(begin(tmp_path / "run")):
        raise RuntimeError("shapes do not fit")
