"""Run directories: created whole, held by one process, readable after any crash."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cdarts import __version__
from cdarts.engine.run_dir import RunDir, check_free, is_done, read_json
from cdarts.errors import CheckpointError, ConfigurationError, DataError, DiskError, RunInUseError

HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "a+")
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
lock.truncate(0)
lock.write("process 1 on elsewhere")
lock.flush()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir.create(tmp_path / "run", {"command": "search", "settings": {}}) as run_dir:
        yield run_dir


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3,), value)}


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# -- begin -------------------------------------------------------------------------------------------------------------


def test_create_and_open(tmp_path: Path) -> None:
    config = {"command": "search", "settings": {"seed": 3}}
    with RunDir.create(tmp_path / "deep" / "run", config) as run:
        assert run.config() == config
        assert run.load_checkpoint() is None
        assert not is_done(run.path)
    with RunDir(tmp_path / "deep" / "run") as run:
        assert run.config() == config


def test_an_empty_folder_is_free_and_a_full_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunDir.create(tmp_path / "empty", {}).close()
    with pytest.raises(ConfigurationError, match=r"holds a run already.*cdarts resume .*--out") as raised:
        RunDir.create(tmp_path / "empty", {})
    assert raised.value.exit_code == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="not an empty folder"):
        RunDir.create(tmp_path / "full", {})
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigurationError, match="not an empty folder"):
        check_free(tmp_path / "full" / "thesis.txt")


def test_a_run_that_was_killed_while_it_began_can_begin_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.123.tmp").write_text('{"comm')
    with RunDir.create(tmp_path / "run", {"command": "search"}):
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "run.lock"]


def test_what_cannot_be_written_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DiskError, match="No space left"):
        RunDir.create(tmp_path / "run", {})
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot create"):
        RunDir.create(tmp_path / "file" / "run", {})


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no config\.json"):
        RunDir(tmp_path)
    with pytest.raises(ConfigurationError, match="no such folder"):
        RunDir(tmp_path / "absent")


def test_a_folder_that_cannot_be_written_to(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    run.close()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DiskError, match=r"cannot write to .*Permission denied"):
        RunDir(run.path)


# -- one process -------------------------------------------------------------------------------------------------------


def test_a_run_is_held_by_one_process(run: RunDir) -> None:
    run.close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path / "run.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RunInUseError, match="in use by process 1 on elsewhere") as raised:
            RunDir(run.path)
        assert raised.value.exit_code == 7
        holder.kill()
    with RunDir(run.path):  # the dead hold nothing
        assert (run.path / "run.lock").read_text().startswith(f"process {os.getpid()} on ")


def test_without_posix_locks(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.close()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with RunDir(run.path) as opened:
        opened.status("running")
        assert not is_done(opened.path)


# -- status, environment, results --------------------------------------------------------------------------------------


def test_status_says_how_to_go_on(tmp_path: Path) -> None:
    with RunDir.create(tmp_path / "my run", {}) as run:
        run.status("interrupted", "stopped by SIGTERM")
        status = read_json(run.path / "status.json")
        assert (status["state"], status["message"]) == ("interrupted", "stopped by SIGTERM")
        assert status["resume"] == f"cdarts resume '{run.path}'"
        assert not is_done(run.path)
        run.status("done")
        assert is_done(run.path)
        assert "resume" not in read_json(run.path / "status.json")


def test_environment(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.write_environment(device="cpu", threads=3, data="abc")
    environment = read_json(run.path / "environment.json")
    assert (environment["cdarts"], environment["torch"]) == (__version__, torch.__version__)
    assert (environment["device"], environment["threads"], environment["data"]) == ("cpu", 3, "abc")
    before = (run.path / "environment.json").read_bytes()
    run.write_environment(device="cpu", threads=4, data="abc")
    assert (run.path / "environment.json").read_bytes() == before
    assert capsys.readouterr().err == ""


def test_another_environment_is_warned_about(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.write_environment(device="cuda", threads=1, data="abc")
    path = run.path / "environment.json"
    path.write_text(json.dumps(read_json(path) | {"torch": "0.4.1"}))
    run.write_environment(device="cpu", threads=1, data="abc")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {run.path} was begun with torch 0.4.1, now {torch.__version__}; ")
    assert "device cuda, now cpu" in line and "platform" not in line
    assert read_json(path)["torch"] == "0.4.1"


def test_other_data_is_refused(run: RunDir) -> None:
    run.write_environment(device="cpu", threads=1, data="abc")
    with pytest.raises(DataError, match="not the one"):
        run.write_environment(device="cpu", threads=1, data="def")
    assert read_json(run.path / "environment.json")["data"] == "abc"


def test_results(run: RunDir) -> None:
    run.write_text("cell.svg", "<svg/>")
    run.write_json("summary.json", {"a": 1})
    assert (run.path / "cell.svg").read_text() == "<svg/>"
    assert json.loads((run.path / "summary.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("content", ['{"a": 1', "[1]", "", "\xff"])
def test_damaged_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        read_json(path)


# -- journals ----------------------------------------------------------------------------------------------------------


def test_journals(run: RunDir) -> None:
    assert run.journal("metrics") == []
    run.append("metrics", {"epoch": 0, "seconds": 1.25})
    run.append("metrics", {"epoch": 1, "seconds": 2.0, "text": "line\nbreak"})
    assert [line["epoch"] for line in run.journal("metrics")] == [0, 1]
    assert run.seconds() == 3.2
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "sec')
    assert len(run.journal("metrics")) == 2, "a line that is not whole is none"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a disk that is always full")
def test_a_journal_on_a_full_disk(run: RunDir) -> None:
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskError, match="No space left"):
        run.append("metrics", {"epoch": 0})


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_the_newest_two_are_kept(run: RunDir) -> None:
    for epoch in range(1, 5):
        run.save_checkpoint(epoch, state(epoch))
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["epoch-00003.safetensors", "epoch-00004.safetensors"]
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert loaded[0] == 4
    assert torch.equal(loaded[1]["weight"], torch.full((3,), 4.0))


def test_journals_are_cut_back_to_the_checkpoint(run: RunDir) -> None:
    run.append("metrics", {"epoch": 0})
    run.save_checkpoint(1, state(1))
    run.append("metrics", {"epoch": 1})
    run.append("genotypes", {"epoch": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epo')
    assert run.load_checkpoint() is not None
    assert run.journal("metrics") == [{"epoch": 0}]
    assert (run.path / "metrics.jsonl").read_text().endswith("}\n")
    assert run.journal("genotypes") == []


def test_journals_are_emptied_if_there_is_no_checkpoint_yet(run: RunDir) -> None:
    run.append("metrics", {"epoch": 0})
    assert run.load_checkpoint() is None
    assert run.journal("metrics") == []


def test_a_journal_that_was_shortened_is_not_filled_up(run: RunDir) -> None:
    run.append("metrics", {"epoch": 0})
    run.save_checkpoint(1, state(1))
    (run.path / "metrics.jsonl").write_text("")
    assert run.load_checkpoint() is not None
    assert (run.path / "metrics.jsonl").read_bytes() == b""


def test_a_damaged_newest_is_set_aside_loudly(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for epoch in (1, 2):
        run.append("metrics", {"epoch": epoch - 1})
        run.save_checkpoint(epoch, state(epoch))
    damage(run.path / "checkpoints" / "epoch-00002.safetensors")
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert loaded[0] == 1
    assert loaded[1]["weight"].tolist() == [1, 1, 1]
    assert run.journal("metrics") == [{"epoch": 0}]
    message = capsys.readouterr().err
    assert message.startswith("warning: ")
    assert "epoch-00002.safetensors" in message and "the checkpoint before" in message
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["epoch-00001.safetensors", "epoch-00002.damaged"]


def test_all_damaged_never_starts_over_in_silence(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for epoch in (1, 2):
        run.save_checkpoint(epoch, state(epoch))
        damage(run.path / "checkpoints" / f"epoch-{epoch:05}.safetensors")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"no usable checkpoint.*epoch-00001.damaged.*epoch-00002") as raised:
            run.load_checkpoint()
        assert raised.value.exit_code == 4
    assert capsys.readouterr().err.count("warning") == 2
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    assert run.load_checkpoint() is None, "deleting them is how one starts from the beginning"


def test_a_file_of_another_kind_is_no_checkpoint(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    from cdarts.engine import checkpoint

    run.save_checkpoint(1, state(1))
    checkpoint.save(run.path / "checkpoints" / "epoch-00002.safetensors", {"network": state(9)})
    loaded = run.load_checkpoint()
    assert loaded is not None and loaded[0] == 1
    assert "not a checkpoint of a run" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_leaves_those_before(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in (1, 2):
        run.save_checkpoint(epoch, state(epoch))

    def refuse(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(DiskError):
            run.save_checkpoint(3, state(3))
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["epoch-00001.safetensors", "epoch-00002.safetensors"]
    loaded = run.load_checkpoint()
    assert loaded is not None and loaded[0] == 2


def test_leftovers_of_a_killed_process_are_swept(run: RunDir) -> None:
    run.close()
    left = run.path / "checkpoints" / ".epoch-00001.safetensors.99.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with RunDir(run.path):
        assert not left.exists()
