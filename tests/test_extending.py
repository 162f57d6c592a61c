"""The worked examples of docs/extending.md, made in a copy of the source and put to the project's own checks."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"

RUN = """
import json, sys
from cdarts.cli import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    if code:
        sys.exit(f"cdarts {' '.join(words)}: exit code {code}")
"""

CHECKED = " or ".join(
    [
        "conv_1x3_3x1",  # operations
        "narrow and not entropy and not cdarts",  # the space by itself
        "parity",
        "entropy-darts-narrow",
        "entropy-darts-toy",
    ]
)
"""Of the project's checks, those of the four examples, and not each of the other methods in the new space."""


def code_blocks(language: str, mark: str = "") -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    before = rf"^<!-- {mark} -->\n" if mark else "^"
    return re.findall(rf"{before}```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def changed(source: str, hunks: str) -> str:
    """The source with changes: of each, the lines without a plus stand in it once, and become those without a minus."""
    for hunk in hunks.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        assert all(line[0] in " +-" for line in lines), hunk
        kept = [line for line in lines if line[0] != "+"]
        old = "".join(line[1:] for line in kept)
        new = "".join(line[1:] for line in lines if line[0] != "-")
        assert source.count(old) == 1, f"stands {source.count(old)} times in the source:\n{old}"
        source = source.replace(old, new)
    return source


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's changes."""
    root = tmp_path_factory.mktemp("changed")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", root)
    for text in code_blocks("python"):
        path = root / text.splitlines()[0].removeprefix("# ")
        assert not path.exists()
        path.write_text(text.partition("\n")[2], encoding="utf-8")
    for text in code_blocks("diff"):
        head, _, hunks = text.partition("\n")
        path = root / head.removeprefix("+++ ")
        path.write_text(changed(path.read_text(encoding="utf-8"), hunks), encoding="utf-8")
    return root


def environment(copy: Path) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_commands_of_the_page_run_in_the_changed_source(copy: Path, tmp_path: Path) -> None:
    (block,) = code_blocks("console", "changed source")
    commands = [line.removeprefix("$ cdarts ").split() for line in block.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=tmp_path,
        env=environment(copy),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "narrow" in done.stdout
    last = (tmp_path / "runs/four/metrics.jsonl").read_text().splitlines()[-1]
    assert {"entropy", "val_loss"} <= set(json.loads(last))
    assert json.loads((tmp_path / "runs/four-trained/model.json").read_text())["class_names"] == ["even", "odd"]


@pytest.mark.slow
def test_the_checks_of_the_project_pass_on_the_examples(copy: Path) -> None:
    (block,) = code_blocks("bash")
    words = block.split()
    assert words[0] == "pytest"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words[1:], "-k", CHECKED, "-p", "no:cacheprovider"],
        cwd=copy,
        env=environment(copy),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 100, done.stdout[-500:]


def test_a_change_that_fits_nowhere_or_twice_is_refused() -> None:
    assert changed("a\nb\n", " a\n+c\n") == "a\nc\nb\n"
    for source in ("b\n", "a\na\n"):
        with pytest.raises(AssertionError):
            changed(source, " a\n+c\n")
