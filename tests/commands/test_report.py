"""`cdarts report`, and the page that a run leaves behind by itself; a real browser plays with it (slow)."""

import json
import os
import runpy
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cdarts.ablations import components
from cdarts.algorithms import CyclicConfig
from cdarts.commands import report
from cdarts.commands.ablate import Components
from cdarts.commands.common import config_of, session
from cdarts.commands.report import PAGE, LivePage, leave_page, reference_of
from cdarts.commands.search import Search, search
from cdarts.engine import loop
from cdarts.engine.run_dir import RunDir
from cdarts.engine.runtime import Interrupted
from cdarts.errors import DiskError, NonFiniteError
from cdarts.presets import preset_under
from cdarts.protocols import PROTOCOLS
from cdarts.report import page as page_module
from cdarts.report.page import write_page
from cdarts.report.page_records import read_record, whole_run
from cdarts.settings import differences

_PAGES = runpy.run_path(str(Path(__file__).parents[1] / "report" / "pages.py"))  # tests are no package
Page, journal, make_run, make_training = (_PAGES[name] for name in ("Page", "journal", "make_run", "make_training"))

Call = Callable[..., Any]


def page_at(path: Path) -> Any:
    return Page((path / PAGE).read_text())


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_page_of_a_run(call: Call, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=2, space_name="nasbench201")
    result = call("report", run)
    assert (result.code, result.err) == (0, "") and str(run / PAGE) in result.out
    assert "algorithm.channels" in page_at(run).text(), "what differs from the preset"
    assert call("report", run, "--out", tmp_path / "mine.html").code == 0
    assert (tmp_path / "mine.html").is_file()


def test_one_page_of_several_runs(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [make_run(tmp_path / name, epochs=2, space_name="nasbench201") for name in ("a", "b")]
    assert call("report", *runs).code == 0
    assert "2 runs" in page_at(tmp_path).text()


def test_event_files_in_place_of_a_page(call: Call, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, epochs=2, space_name="nasbench201") for name in ("a", "b")]
    for run in runs:
        run.rename(run.with_name(f"seed-{ord(run.name)}"))
    (tmp_path / "config.json").write_text('{"command": "retrain", "settings": {"seeds": "97,98"}}')
    result = call("report", tmp_path, "--tensorboard", tmp_path / "events")
    assert (result.code, result.err) == (0, "") and f"--logdir {tmp_path / 'events'}" in result.out
    assert all(
        len(list((tmp_path / "events" / name).glob("events.out.tfevents.*"))) == 1 for name in ("seed-97", "seed-98")
    )
    assert not (runs[0] / PAGE).exists()
    assert "name one of them" in call("report", *runs, "--tensorboard", tmp_path / "e", "--out", "x.html").error()


def test_bad_input(call: Call, tmp_path: Path) -> None:
    assert "not a run directory" in call("report", tmp_path / "nowhere").error()
    run = make_run(tmp_path / "run", epochs=1, space_name="nasbench201")
    result = call("report", run, "--out", tmp_path / "no" / "page.html")
    assert result.code == 6 and "cannot write" in result.error()
    assert call("report").code == 2


# -- what a run leaves behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "name", "channels"),
    [("cdarts-paper", "preset cdarts-paper", 16), ("cdarts, sized to 4m", "preset cdarts", 16),
     ("pc-darts, nasbench201-small", "preset pc-darts under nasbench201-small", 8),
     ("cdarts, cdarts-no-feedback, nasbench201-small", "preset cdarts under nasbench201-small", 8),
     ("cdarts-paper, paper-no-l1, darts-small", "preset cdarts-paper under darts-small", 4)],
)  # fmt: skip
def test_what_a_search_is_compared_with(tmp_path: Path, preset: str, name: str, channels: int) -> None:
    record = read_record(make_run(tmp_path / "run", epochs=1, preset=preset))
    reference = reference_of(record)
    assert reference is not None and reference.name == name
    assert reference.settings["algorithm"]["channels"] == channels
    space = "nasbench201" if "nasbench201" in preset else "darts"
    assert reference.settings["algorithm"]["space"]["name"] == space


def test_nothing_is_compared_with_what_was_not_used(tmp_path: Path) -> None:
    run, _, _ = make_training(tmp_path / "run")
    for name, known in (("quick", True), ("of my own", False), ("", False)):
        (run / "config.json").write_text(json.dumps({"command": "retrain", "settings": {"preset": name}}))
        found = reference_of(read_record(run))
        assert (found is not None) == known and (found is None or found.name == f"preset {name}")
    assert reference_of(read_record(make_run(tmp_path / "search", epochs=1, preset="mine, nasbench201-small"))) is None


@pytest.mark.parametrize("row", ["paper-no-l1", "feedback", "cdarts-not-sharp", "separate"])
def test_the_page_of_an_ablation_shows_what_its_row_changes(tmp_path: Path, row: str) -> None:
    protocol = PROTOCOLS["nasbench201-small"]
    (setting,) = [setting for setting in components(protocol) if setting.name == row]
    (search_of_row,) = Components(device="cpu").searches([setting], [10], protocol, tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(search_of_row.config))
    found = reference_of(read_record(run))
    assert found is not None and found.name == f"preset {setting.preset} under nasbench201-small"
    own = read_record(run).settings["algorithm"]
    differing = {key for key in own if own[key] != found.settings["algorithm"][key]}
    assert differing == set(differences(setting.algorithm, preset_under(setting.preset, protocol)))
    assert differing, "a row that is varied differs"


def test_a_search_leaves_its_page(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = call("search", "smoke", "--data", "synthetic", "--cycles", "1", "--threads", "1", "--out", out)
    assert result.code == 0 and f"report  {out / PAGE}" in result.out
    found = page_at(out)
    assert "done" in found.text()
    last = journal(out, "metrics")[-1]
    assert found.numbers["eval_accuracy"] == f"{100 * last['eval_accuracy']:.2f} %"


@pytest.mark.parametrize(
    ("error", "state"), [(Interrupted(15), "interrupted"), (NonFiniteError("loss is nan"), "failed"),
                         (ZeroDivisionError("by zero"), "failed")],
)  # fmt: skip
def test_every_end_leaves_its_page(tmp_path: Path, error: Exception, state: str) -> None:
    with pytest.raises(type(error)), session(RunDir.create(tmp_path / "run", {"command": "search"})):
        raise error
    text = page_at(tmp_path / "run").text()
    assert state in text and f"cdarts resume {tmp_path / 'run'}" in text


def test_stages_have_the_page_of_their_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir.create(tmp_path / "run", {"command": "run"})
    with session(run), session(RunDir.create(tmp_path / "run" / "search", {"command": "search"})):
        pass
    assert whole_run(tmp_path / "run" / "search") == whole_run(tmp_path / "run") == tmp_path / "run"
    assert (tmp_path / "run" / PAGE).is_file() and not (tmp_path / "run" / "search" / PAGE).exists()
    assert capsys.readouterr().out.count("report  ") == 1


def broken(*_: Any, **__: Any) -> None:
    raise ValueError("a\nbug")


def test_a_page_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page_module, "write_page", broken)
    with session(RunDir.create(tmp_path / "run", {"command": "search"})):
        pass
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"
    assert capsys.readouterr().err == "warning: the run's page was not written: a bug\n"


def test_a_full_disk_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise DiskError("no room")

    monkeypatch.setattr(page_module, "write_page", full)
    leave_page(tmp_path, failed=True)
    assert capsys.readouterr().err == ""
    leave_page(tmp_path, failed=False)
    assert "no room" in capsys.readouterr().err


def test_after_epochs_it_costs_a_hundredth_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[float] = []
    now = 0.0

    def write(*_: Any) -> None:
        nonlocal now
        written.append(now)
        now += 2.0

    monkeypatch.setattr(page_module, "write_page", write)
    monkeypatch.setattr(report.time, "monotonic", lambda: now)
    live = LivePage(tmp_path)
    for _ in range(100):
        now += 10.0
        live.after_epoch()
    assert written[0] == 100.0, "the first is taken to cost a second"
    assert all(second - first >= 200.0 for first, second in pairwise(written))
    assert len(written) >= 4


def test_the_loop_calls_it_after_every_epoch(
    tmp_path: Path, few_digits: Path, toy_search: CyclicConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    walk = loop.run

    def watched(*arguments: Any, **options: Any) -> None:
        def look() -> None:
            seen.append(len(journal(tmp_path / "run", "metrics")))

        walk(*arguments, **{**options, "after_epoch": look})

    monkeypatch.setattr(loop, "run", watched)
    settings = Search(
        data=str(few_digits), algorithm=replace(toy_search, cycles=1, batch_size=10), device="cpu", threads=1
    )
    data = settings.load_data()
    device, threads = settings.machine()
    settings = settings.settled(device, threads)
    task = settings.build(data, device)
    search(RunDir.create(tmp_path / "run", config_of("search", settings)), settings, data, task)
    assert seen == list(range(1, len(task.plan()) + 1)), "each time with that epoch's line"


# -- in a browser ------------------------------------------------------------------------------------------------------


class Browser:
    """Headless Chromium over the two pipes of its DevTools protocol; no package is needed for that."""

    def __init__(self, executable: str, folder: Path) -> None:
        to_browser, from_us = os.pipe()
        to_us, from_browser = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --remote-debugging-pipe --no-first-run"
        command = f'exec "$0" {flags} --user-data-dir="$1" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, executable, str(folder / "profile")],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.writing, self.reading = os.fdopen(from_us, "wb", buffering=0), os.fdopen(to_us, "rb", buffering=0)
        self.buffer = b""
        self.number = 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        self.writing.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            read = self.reading.read(1 << 20)
            assert read, "the browser is gone"
            self.buffer += read
        text, _, self.buffer = self.buffer.partition(b"\0")
        value: dict[str, Any] = json.loads(text)
        return value

    def open(self, path: Path, width: int) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.05)

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def complaints(self) -> list[dict[str, Any]]:
        """Errors of the console, exceptions, and requests for anything but the page itself."""
        found = []
        for event in self.events:
            match event.get("method"), event.get("params", {}):
                case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded", _:
                    found.append(event)
                case "Network.requestWillBeSent", {"type": kind, "request": {"url": url}} if (
                    kind != "Document" and not url.startswith("data:")
                ):
                    found.append({"request": url})
        return found

    def close(self) -> None:
        self.writing.close()
        self.reading.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    opened = Browser(executable, tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


CELL = "document.querySelector('svg.cell').getAttribute('aria-label')"
DRAWN = "document.querySelector('svg.cell').innerHTML.replace(/(\\d)\\.0(?=[^\\d])/g, '$1')"


@pytest.mark.slow
@pytest.mark.parametrize("space_name", ["darts", "nasbench201"])
def test_a_person_plays_with_the_page(browser: Browser, tmp_path: Path, space_name: str) -> None:
    run = make_run(tmp_path / "run", epochs=50, space_name=space_name, classes=["</script><b onclick=alert(1)>"])
    write_page([run], run / PAGE, reference_of)
    lines = journal(run, "genotypes")
    # without the script: what stands there is the newest epoch, and what the script draws is the same picture
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(run / PAGE, 1280)
    static = browser.run(DRAWN)
    assert browser.run("document.querySelector('.control').hidden && document.querySelector('#theme').hidden")
    browser.ask("Emulation.setScriptExecutionDisabled", value=False)
    browser.open(run / PAGE, 1280)
    strip = r"""replace(/ style="[^"]*"/g, '').replace(/[\s;]/g, '')"""
    assert browser.run(f"{DRAWN}.{strip}") == browser.run(f"({json.dumps(static)}).{strip}")
    assert browser.run("document.querySelector('.where').textContent").startswith("Epoch 50 of 50")

    browser.run("document.querySelector('.epoch').focus()")
    newest = browser.run(CELL)
    browser.press("Home", 36)
    assert browser.run("document.querySelector('.epoch').value") == "1"
    assert browser.run(CELL) != newest
    accuracy = browser.run("document.querySelector('[data-key=eval_accuracy]').textContent")
    assert accuracy == f"{100 * journal(run, 'metrics')[0]['eval_accuracy']:.2f} %"
    browser.press("ArrowRight", 39)
    assert browser.run("document.querySelector('.epoch').getAttribute('aria-valuetext')").startswith(
        "epoch 2 of 50, joint"
    )
    kind = next(iter(lines[1]["strengths"]))
    shown = browser.run(
        "[...document.querySelector('table.matrix').tBodies[0].rows[0].cells].map((c) => c.textContent)"
    )
    assert shown[1:] == [f"{value:.5f}" for value in lines[1]["strengths"][kind][0]]

    browser.run("document.querySelector('.play').click()")
    assert browser.run("document.querySelector('.play').getAttribute('aria-label')") == "Pause the search"
    browser.until("Number(document.querySelector('.epoch').value) > 3")
    browser.run("document.querySelector('.play').click()")
    assert browser.run("document.querySelector('.play').getAttribute('aria-label')") == "Play the search"

    browser.run("document.querySelector('[data-copy=form-1]').click()")
    assert browser.run("getSelection().toString().trim()") == lines[-1]["text"]
    browser.until("document.querySelector('[data-copy=form-1]').textContent === 'Copied'")

    ground = "getComputedStyle(document.body).backgroundColor"
    seen = []
    for _ in range(3):
        browser.run("document.querySelector('#theme').click()")
        seen.append((browser.run("document.documentElement.dataset.theme"), browser.run(ground)))
    assert [theme for theme, _ in seen] == ["light", "dark", None] and seen[0][1] != seen[1][1]
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 800, 1440])
@pytest.mark.parametrize("state", ["done", "interrupted", "failed"])
def test_every_width_and_state(browser: Browser, tmp_path: Path, width: int, state: str) -> None:
    run = make_run(tmp_path / ("long-" * 20), epochs=0 if state == "failed" else 4, state=state, message="x" * 300)
    write_page([run], run / PAGE, reference_of)
    browser.open(run / PAGE, width)
    assert browser.run("document.documentElement.scrollWidth") <= width, "the page itself never scrolls sideways"
    names = browser.run(
        "[...document.querySelectorAll('button, input')].filter((e) => !(e.textContent || e.labels?.length)).length"
    )
    assert names == 0, "everything that can be used has a name"
    assert browser.complaints() == []


@pytest.mark.slow
def test_several_runs_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, epochs=5, seed=seed) for seed, name in enumerate(("<b>", "b", "c"))]
    write_page(runs, tmp_path / PAGE, reference_of)
    browser.open(tmp_path / PAGE, 360)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.run("document.querySelectorAll('table.runs tbody')[0].rows.length") == 3
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 800, 1440])
def test_answers_and_pictures_in_a_browser(browser: Browser, tmp_path: Path, width: int) -> None:
    names = ["</script><b onclick=alert(1)>", "a very long name of a class, longer than its column", *"cdefgh"]
    run, _, _ = make_training(tmp_path / "run", classes=names, images=120)
    write_page([run], run / PAGE, reference_of)
    browser.open(run / PAGE, width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert browser.run("document.images.length") == 25, "24 worst errors and a sheet"
    assert browser.run("document.querySelector('.confusion').tBodies[0].rows.length") == 8
    assert not browser.complaints()
