"""Run directories: created whole, held by one process, readable after any crash."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cdarts import __version__
from cdarts.engine import run_dir as run_dir_module
from cdarts.engine.run_dir import Checkpoint, RunDir, check_free, is_done, read_json, read_last_state
from cdarts.errors import CheckpointError, ConfigurationError, DataError, DiskError, RunInUseError

WRITE = """
import sys
from pathlib import Path
from cdarts.engine.files import append_bytes, write_json
path = Path(sys.argv[1])
for epoch in range(200):
    append_bytes(path / "metrics.jsonl", b'{"epoch": %d, "text": "%s"}\\n' % (epoch, 5000 * b"x"))
    write_json(path / "status.json", {"state": "running", "text": 5000 * "x"})
"""

HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "a+")
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
lock.truncate(0)
lock.write("process 1 on elsewhere\\nboot 5")
lock.flush()
print("held", flush=True)
sys.stdin.read()
"""


IMAGES = {"train": {"cat": 4, "dog": 5}, "test": {"cat": 1, "dog": 1}}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir.create(tmp_path / "run", {"command": "search", "settings": {}}) as run_dir:
        yield run_dir


def save(run: RunDir, epoch: int, step: int = 0) -> None:
    """A checkpoint whose state tells its epoch."""
    weight = torch.full((3,), float(epoch))
    run.save_checkpoint(Checkpoint(epoch, step, {"seconds": 0.5}, {"weight": weight}))


def names(run: RunDir) -> list[str]:
    """The files among the checkpoints."""
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


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
    monkeypatch.setattr("cdarts.engine.files.os.open", refuse)
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
        with pytest.raises(RunInUseError, match="in use by process 1 on elsewhere; wait") as raised:
            RunDir(run.path)
        assert raised.value.exit_code == 7
        holder.kill()
    with RunDir(run.path):  # the dead hold nothing
        lines = (run.path / "run.lock").read_text().splitlines()
        assert lines[0].startswith(f"process {os.getpid()} on ")
        assert [line.split()[0] for line in lines[1:]] == (["boot"] if sys.platform == "linux" else [])


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


def test_a_heartbeat_says_where_the_run_is(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(run_dir_module.time, "monotonic", lambda: now)
    run.status("running")
    for step in range(1, 21):
        now += 1.0
        run.heartbeat("joint", 3, step, epochs=8, steps=30, left=lambda at=now: None if at < 105.0 else 60.04)
    status = read_json(run.path / "status.json")
    assert (status["state"], status["phase"], status["epoch"]) == ("running", "joint", 3)
    assert status["step"] == 11, "the first step shows at once, later ones every ten seconds"
    assert (status["epochs"], status["steps"], status["left_seconds"]) == (8, 30, 60.0)
    run.status("interrupted")
    assert "left_seconds" not in read_json(run.path / "status.json"), "nothing goes on"
    assert read_json(run.path / "status.json")["step"] == 20, "how it ended is up to date"


def test_a_heartbeat_does_not_end_a_run(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    run.heartbeat("joint", 0, 1, epochs=1, steps=1, left=lambda: None)


def test_environment(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.write_environment(device="cpu", threads=3, data="abc", images=IMAGES)
    environment = read_json(run.path / "environment.json")
    assert (environment["cdarts"], environment["torch"]) == (__version__, torch.__version__)
    assert (environment["device"], environment["threads"], environment["data"]) == ("cpu", 3, "abc")
    before = (run.path / "environment.json").read_bytes()
    run.write_environment(device="cpu", threads=3, data="abc", images=IMAGES)
    assert (run.path / "environment.json").read_bytes() == before
    assert capsys.readouterr().err == ""
    run.write_environment(device="cpu", threads=4, data="abc", images=IMAGES)
    assert "was begun with threads 3, now 4: numbers will differ" in capsys.readouterr().err


def test_another_environment_is_warned_about(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.write_environment(device="cuda", threads=1, data="abc", images=IMAGES)
    path = run.path / "environment.json"
    path.write_text(json.dumps(read_json(path) | {"torch": "0.4.1"}))
    run.write_environment(device="cpu", threads=1, data="abc", images=IMAGES)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {run.path} was begun with torch 0.4.1, now {torch.__version__}; ")
    assert "device cuda, now cpu" in line and "platform" not in line
    assert read_json(path)["torch"] == "0.4.1"


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (IMAGES, "as many images of each class as then, but not the same"),
        ({"train": {"cat": 3, "dog": 5}, "test": {"cat": 1, "dog": 1}}, "train cat 4 images, now 3"),
        (
            {"train": {"cat": 4, "cow": 5}, "test": {"cat": 1}},
            "train dog 5 images, now 0, train cow 0 images, now 5, test dog 1 images, now 0",
        ),
        (
            {"train": dict.fromkeys("abcdefg", 1), "test": IMAGES["test"]},
            "train cat 4 images, now 0, train dog 5 images, now 0, train a 0 images, now 1, train b 0 images, now 1, "
            "train c 0 images, now 1 and 4 more",
        ),
    ],
    ids=["content", "number", "class", "many"],
)
def test_other_data_is_refused(run: RunDir, now: dict[str, dict[str, int]], words: str) -> None:
    run.write_environment(device="cpu", threads=1, data="abc", images=IMAGES)
    with pytest.raises(DataError, match=f"not the one that .* was begun with: {words}; restore it"):
        run.write_environment(device="cpu", threads=1, data="def", images=now)
    assert read_json(run.path / "environment.json")["data"] == "abc"


def test_data_of_a_run_that_did_not_count_images(run: RunDir) -> None:
    run.write_environment(device="cpu", threads=1, data="abc", images=IMAGES)
    first = read_json(run.path / "environment.json")
    del first["images"]
    (run.path / "environment.json").write_text(json.dumps(first))
    with pytest.raises(DataError, match="not the same; restore it"):
        run.write_environment(device="cpu", threads=1, data="def", images=IMAGES)


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


def test_a_journal_on_a_full_disk_keeps_its_whole_lines(run: RunDir) -> None:
    run.append("metrics", {"epoch": 0})
    before = (run.path / "metrics.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"cannot append to .*metrics\.jsonl.*bytes"):
            run.append("metrics", {"text": 2000 * "long "})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (run.path / "metrics.jsonl").read_bytes() == before, "the part that was written is taken back"


@pytest.mark.parametrize("content", ["{]", "[1]", '"text"', "\xff", "[" * 100_000])
def test_a_line_that_is_none_is_named(run: RunDir, content: str) -> None:
    run.append("metrics", {"epoch": 0})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(content.encode("latin-1") + b"\n")
    with pytest.raises(ConfigurationError, match=r"metrics\.jsonl, line 2: "):
        run.journal("metrics")


def test_a_reader_never_sees_half_a_line_or_half_a_file(run: RunDir) -> None:
    """Two processes: one writes, this one reads as fast as it can."""
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(run.path)])
    looks = 0
    with writer:
        while writer.poll() is None or looks == 0:
            lines = run.journal("metrics")
            assert [line["epoch"] for line in lines] == list(range(len(lines)))
            if (run.path / "status.json").exists():
                assert read_json(run.path / "status.json")["state"] == "running"
            looks += 1
    assert writer.returncode == 0
    assert len(run.journal("metrics")) == 200
    assert looks > 10


# -- links -------------------------------------------------------------------------------------------------------------


def test_nothing_is_written_through_a_link(run: RunDir, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    for name in ("metrics.jsonl", "run.lock", "status.json"):
        run.close()
        (run.path / name).unlink(missing_ok=True)
        (run.path / name).symlink_to(precious)
        if name == "status.json":
            with RunDir(run.path) as opened:
                opened.status("running")
            assert not (run.path / name).is_symlink(), "the link itself is replaced"
        else:
            with pytest.raises(DiskError, match="not a regular file"), RunDir(run.path) as opened:
                opened.load_checkpoint()
            with pytest.raises(DiskError, match="not a regular file"), RunDir(run.path) as opened:
                opened.append("metrics", {"epoch": 0})
            (run.path / name).unlink()
        assert precious.read_text() == "mine\n"


def test_a_folder_of_checkpoints_that_is_a_link(run: RunDir, tmp_path: Path) -> None:
    run.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".notes.tmp").write_text("mine")
    (run.path / "checkpoints").symlink_to(elsewhere)
    with pytest.raises(DiskError, match="checkpoints is a link"):
        RunDir(run.path)
    assert (elsewhere / ".notes.tmp").exists()


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_the_newest_two_are_kept(run: RunDir) -> None:
    for epoch in range(1, 5):
        save(run, epoch)
    assert names(run) == ["step-00003-0000000.safetensors", "step-00004-0000000.safetensors"]
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert (loaded.epoch, loaded.step, loaded.so_far) == (4, 0, {"seconds": 0.5})
    assert torch.equal(loaded.task["weight"], torch.full((3,), 4.0))
    assert read_last_state(run.path)["weight"].tolist() == [4, 4, 4]


def test_within_an_epoch_the_latest_step_is_the_newest(run: RunDir) -> None:
    for epoch, step in ((0, 10), (1, 0), (1, 9), (1, 10)):
        save(run, epoch, step)
    assert names(run) == ["step-00001-0000009.safetensors", "step-00001-0000010.safetensors"]
    loaded = run.load_checkpoint()
    assert loaded is not None and (loaded.epoch, loaded.step) == (1, 10)


def test_journals_are_cut_back_to_the_checkpoint(run: RunDir) -> None:
    run.append("metrics", {"epoch": 0})
    save(run, 1)
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
    save(run, 1)
    (run.path / "metrics.jsonl").write_text("")
    assert run.load_checkpoint() is not None
    assert (run.path / "metrics.jsonl").read_bytes() == b""


def test_a_damaged_newest_is_set_aside_loudly(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for epoch in (1, 2):
        run.append("metrics", {"epoch": epoch - 1})
        save(run, epoch)
    damage(run.path / "checkpoints" / "step-00002-0000000.safetensors")
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert loaded.epoch == 1
    assert loaded.task["weight"].tolist() == [1, 1, 1]
    assert run.journal("metrics") == [{"epoch": 0}]
    message = capsys.readouterr().err
    assert message.startswith("warning: ")
    assert "step-00002-0000000.safetensors" in message and "the checkpoint before" in message
    assert names(run) == ["step-00001-0000000.safetensors", "step-00002-0000000.damaged"]


def test_all_damaged_never_starts_over_in_silence(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for epoch in (1, 2):
        save(run, epoch)
        damage(run.path / "checkpoints" / f"step-{epoch:05}-0000000.safetensors")
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match=r"no usable checkpoint.*step-00001-0000000.damaged.*step-00002"
        ) as raised:
            run.load_checkpoint()
        assert raised.value.exit_code == 4
    assert capsys.readouterr().err.count("warning") == 2
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    assert run.load_checkpoint() is None, "deleting them is how one starts from the beginning"


def test_a_file_of_another_kind_is_no_checkpoint(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    from cdarts.engine import checkpoint

    save(run, 1)
    checkpoint.save(run.path / "checkpoints" / "step-00002-0000000.safetensors", {"network": torch.ones(1)})
    loaded = run.load_checkpoint()
    assert loaded is not None and loaded.epoch == 1
    assert "not a checkpoint of a run" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_leaves_those_before(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in (1, 2):
        save(run, epoch)

    def refuse(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(DiskError):
            save(run, 3)
    assert names(run) == ["step-00001-0000000.safetensors", "step-00002-0000000.safetensors"]
    loaded = run.load_checkpoint()
    assert loaded is not None and loaded.epoch == 2


def test_a_damaged_checkpoint_that_cannot_be_set_aside(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Path) -> Path:
        raise OSError(30, "Read-only file system")

    save(run, 1)
    damage(run.path / "checkpoints" / "step-00001-0000000.safetensors")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DiskError, match=r"cannot rename .*step-00001.*: Read-only file system"):
        run.load_checkpoint()
    assert names(run) == ["step-00001-0000000.safetensors"]


def test_a_lock_that_cannot_be_written(run: RunDir) -> None:
    run.close()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"cannot write to .*: File too large"):
            RunDir(run.path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    RunDir(run.path).close()


def test_leftovers_of_a_killed_process_are_swept(run: RunDir) -> None:
    run.close()
    left = run.path / "checkpoints" / ".step-00001-0000000.safetensors.99.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with RunDir(run.path):
        assert not left.exists()
