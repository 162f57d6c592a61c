"""`cdarts watch`: what stands in the files, read while another process writes them."""

import json
import os
import platform
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdarts.commands.watch import Watched, sparkline

_PAGES = runpy.run_path(str(Path(__file__).parents[1] / "report" / "pages.py"))  # tests are no package
make_run, make_training, journal = (_PAGES[name] for name in ("make_run", "make_training", "journal"))

Call = Callable[..., Any]


def status(run: Path, **values: Any) -> None:
    stored = json.loads((run / "status.json").read_text())
    temporary = run / ".status.tmp"
    temporary.write_text(json.dumps(stored | values))
    temporary.replace(run / "status.json")


def text(run: Path) -> str:
    from rich.console import Console

    console = Console(width=150, markup=False, highlight=False, emoji=False)
    watched = Watched(run)
    watched.look()
    with console.capture() as capture:
        console.print(watched.view())
    return capture.get()


def test_it_says_what_the_journals_say(call: Call, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=4, space_name="nasbench201")
    result = call("watch", run, "--once")
    assert (result.code, result.err) == (0, "")
    last = journal(run, "metrics")[-1]
    assert f"{100 * last['eval_accuracy']:.2f} %" in result.out and f"{last['search_loss']:.4g}" in result.out
    now, before = (journal(run, "genotypes")[place]["text"] for place in (-1, -2))
    changed = sum(
        a != b for a, b in zip(now.replace("+", "").split("|"), before.replace("+", "").split("|"), strict=True)
    )
    assert (f"{changed} of 6 choices changed" in result.out) if changed else ("unchanged" in result.out)
    for words in ("entropy of alpha", "skip connections", "done"):
        assert words in result.out


def test_progress_and_the_time_that_is_left(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=2, state="running")
    status(run, phase="joint", epoch=2, epochs=8, step=10, steps=20, left_seconds=75.0)
    shown = text(run)
    assert "epoch 3 of 8, joint, step 10 of 20, left 1m1" in shown
    assert shown.count("█" * 10) >= 1 and "░" * 22 in shown, "2.5 of 8 epochs of a bar of 32"


def test_a_whole_run_and_a_training(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"command": "run", "plan": {"retraining_seconds": 120.0}}))
    (run / "status.json").write_text(json.dumps({"state": "running"}))
    make_run(run / "search", epochs=2, state="running")
    status(run / "search", phase="joint", epoch=1, epochs=4, step=1, steps=2, left_seconds=30.0)
    assert "then a training of about 2m00s" in text(run)
    make_training(run / "retrain")
    shown = text(run)
    assert "test accuracy" in shown and "cell after" not in shown, "of a search that is over, a line"


def test_a_killed_run_is_said_and_ends_the_watch(call: Call, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=1, state="running")
    status(run, state="running", epochs=9, epoch=1, steps=10, step=5, left_seconds=100.0)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (run / "run.lock").write_text(f"process {int(ended.stdout)} on {platform.node()}\n")
    result = call("watch", run)
    assert result.code == 0 and "killed" in result.out and "go on with: cdarts resume" in result.out
    assert "epoch 2 of 9" in result.out and "left" not in result.out
    (run / "run.lock").write_text(f"process {os.getpid()} on {platform.node()}\n")
    watched = Watched(run)
    watched.look()
    assert not watched.has_ended()


def test_it_ends_with_the_run_that_it_follows(call: Call, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=3, space_name="nasbench201", state="running")
    lines = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(lines[: len(lines) // 2])

    def write() -> None:
        for place in range(len(lines) // 2, len(lines), 40):
            with (run / "metrics.jsonl").open("ab") as file:
                file.write(lines[place : place + 40])
            time.sleep(0.02)
        status(run, state="done")

    writer = threading.Thread(target=write)
    writer.start()
    result = call("watch", run, "--interval", "0.02")
    writer.join()
    assert (result.code, result.err) == (0, "") and "done" in result.out
    assert f"{100 * journal(run, 'metrics')[-1]['eval_accuracy']:.2f} %" in result.out


def test_names_do_not_move_the_cursor(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=1, state="failed", message="a\x1b[2Jb [bold]c[/bold]")
    shown = text(run)
    assert "\x1b" not in shown and "[bold]c[/bold]" in shown


def test_bad_input(call: Call, tmp_path: Path) -> None:
    assert "not a run directory" in call("watch", tmp_path, "--once").error()
    run = make_run(tmp_path / "run", epochs=1)
    assert call("watch", run, "--interval", "0").error().startswith("--interval 0.0: must be")


@pytest.mark.parametrize(
    ("values", "blocks"), [([0.0, 1.0], "▁█"), ([5.0] * 3, "▅▅▅"), ([0.0, 0.5, 1.0, 0.25], "▁▅█▃")]
)
def test_sparklines(values: list[float], blocks: str) -> None:
    assert sparkline(values) == blocks


def test_a_sparkline_is_of_the_newest() -> None:
    assert sparkline([9.0, 0.0, 1.0, 2.0, 3.0, 4.0], 5)[0] == "▁" and len(sparkline([1.0, 2.0] * 50)) == 40


def test_it_needs_no_torch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=1)
    code = (
        "import sys; from cdarts.cli import main; "
        "main(['watch', sys.argv[1], '--once']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, check=False).returncode == 0
