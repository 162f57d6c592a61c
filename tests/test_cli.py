"""The command line itself: quick help, exit codes, errors of one line."""

import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdarts import __version__, cli
from cdarts.cli import COMMANDS, main
from cdarts.errors import CdartsError, ConfigurationError, NonFiniteError

LENIENCE = 2.0
"""Times are promised on an idle machine; tests share theirs."""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def without_torch(*arguments: str) -> str:
    """Run a command in a process of its own and see that torch was not imported; returns what it printed."""
    code = "import sys; from cdarts.cli import main; code = main(sys.argv[1:])"
    done = python(f"{code}; assert 'torch' not in sys.modules; sys.exit(code)", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seconds_to_first_line(*arguments: str) -> tuple[float, str]:
    """From the start of a process to the first line it prints; the better of two."""
    best, line = 1e9, ""
    for _ in range(2):
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "cdarts.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            assert process.stdout is not None
            line = process.stdout.readline()
            best = min(best, time.monotonic() - began)
            process.kill()
    return best, line


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_command(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    output = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", output, re.MULTILINE)
    assert "exit codes: 0 done, 1 bug, 2 usage" in output


def test_help_without_torch() -> None:
    assert "usage: cdarts COMMAND" in without_torch("--help")
    assert without_torch("--version") == f"cdarts {__version__}\n"


def test_help_at_once() -> None:
    seconds, line = seconds_to_first_line("--help")
    assert line.startswith("usage: cdarts")
    assert seconds < 0.8 * LENIENCE


@pytest.mark.parametrize(
    "arguments",
    [("search", "smoke", "--dry-run"), ("retrain", "darts-v2", "--dry-run"), ("run",), ("resume", "x"), ("doctor",)],
)
def test_the_first_line_comes_before_anything_slow(arguments: tuple[str, ...]) -> None:
    seconds, line = seconds_to_first_line(*arguments)
    assert line.startswith(f"cdarts {__version__}  {arguments[0]}")
    assert seconds < 1.0 * LENIENCE


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert hasattr(importlib.import_module(f"cdarts.commands.{name}"), "COMMAND")
    with pytest.raises(SystemExit) as raised:
        main([name, "--help"])
    assert raised.value.code == 0
    assert f"usage: cdarts {name}" in capsys.readouterr().out


def test_help_of_a_preset_shows_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search", "smoke", "--help"])
    output = capsys.readouterr().out
    for words in ("--channels", "Channels of the first stage", "(default: 4)", "--temperature", "--dry-run"):
        assert words in output


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cdarts {__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("serach", "did you mean 'search'?"), ("Retrain", "did you mean 'retrain'?"), ("xyzzy", "commands: run,")],
)
def test_unknown_commands(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: unknown command '{word}'; ")
    assert hint in error


def test_usage_errors_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["search", "smoke", "--no-such-flag"], ["retrain"], ["search", "smoke", "--device", "tpu"]):
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        assert raised.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


class Failing:
    """A command that fails as told."""

    error: BaseException

    @classmethod
    def call(cls, *_: object) -> int:
        raise cls.error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigurationError("--cells 0: too few"), 2, "error: --cells 0: too few\n"),
        (NonFiniteError("the loss is nan"), 5, "error: the loss is nan\n"),
        (CdartsError("else"), 1, "error: else\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "internal error: ZeroDivisionError: by zero\nThis is a bug; -v shows where.\n",
        ),
        (KeyboardInterrupt(), 130, "error: stopped by SIGINT; nothing was begun\n"),
    ],
)
def test_errors_and_exit_codes(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing.error = error
    monkeypatch.setattr(cli, "_call", Failing.call)
    assert main(["run"]) == code
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("words", [["run", "-v"], ["-v", "run"], ["run", "--verbose"]])
def test_the_traceback_comes_when_asked_for(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing.error = ConfigurationError("--cells 0: too few")
    monkeypatch.setattr(cli, "_call", Failing.call)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("error: --cells 0: too few\n")


def test_every_exit_code_is_in_the_help() -> None:
    codes = {error.exit_code for error in (CdartsError, *_subclasses(CdartsError))}
    for code in codes:
        assert re.search(rf"\b{code} \w", cli.HELP), code


def _subclasses(kind: type[CdartsError]) -> list[type[CdartsError]]:
    from cdarts import errors

    return [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, kind)]


def test_imports_without_fcntl(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fcntl'] = None; import importlib; from cdarts.cli import COMMANDS\n"
        "for name in COMMANDS: importlib.import_module(f'cdarts.commands.{name}')\n"
        "from cdarts.engine.run_dir import RunDir; from pathlib import Path\n"
        "RunDir.create(Path(sys.argv[1]), {'command': 'search'}).close()"
    )
    done = python(code, str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "config.json").is_file()


@pytest.mark.parametrize("arguments", [("show", "genotypes", "--json"), ("show", "presets"), ("--help",)])
def test_a_reader_that_goes_away(arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "cdarts.cli", *arguments], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (141, "")
