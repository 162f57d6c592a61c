"""The documents as a site: it builds without a warning, and its generated parts are what the source says."""

import importlib
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cdarts.algorithms import ALGORITHMS
from cdarts.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def flags() -> Iterator[ModuleType]:
    """The extension that writes the reference of flags."""
    folder = str(DOCS / "_extensions")
    sys.path.insert(0, folder)
    yield importlib.import_module("flags")
    sys.path.remove(folder)


def sections(text: str) -> dict[str, str]:
    """Heading -> what stands below it, up to the next heading of any level."""
    parts = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def named(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z0-9.-]*", text)) - {"--help"}


def help_of(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_every_flag_of_every_command_is_in_the_reference(
    flags: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sections(flags.reference())
    for name in COMMANDS:
        command = importlib.import_module(f"cdarts.commands.{name}").COMMAND
        if isinstance(command, type):  # the others have subcommands
            text = help_of([name], capsys, monkeypatch)
            known = set(re.findall(r"^[│ ]*(--[a-z][a-z0-9.-]*)", text, flags=re.MULTILINE)) - {"--help"}
            listed = {flag for row in found[f"cdarts {name}"].splitlines() for flag in named(row.split(" | ")[0])}
            assert known <= listed, name
            assert listed <= named(text), name
    for name in ALGORITHMS:
        assert f"Flags of {name}" in found
    listed = named(found["Flags of every method"] + found["Flags of cdarts"])
    assert {"--seed", "--dry-run", "--teaching-weight", "--alpha.lr", "--space.stem-name"} <= listed
    assert "--json" in found["cdarts show genotype"]


def test_subcommands_with_defaults_have_their_flags(flags: ModuleType) -> None:
    from cdarts.commands.search import COMMAND
    from cdarts.presets import PRESETS

    found = dict(flags.subcommands(COMMAND))
    assert set(found) == set(PRESETS)
    (cycles,) = [flag for flag in found["smoke"] if flag.names == ("--cycles",)]
    assert cycles.default == "3"


def test_defaults_and_meanings_are_taken_over(flags: ModuleType) -> None:
    from cdarts.commands.retrain import COMMAND

    by_name = {flag.names[0]: flag for flag in flags.flags(COMMAND)}
    assert by_name["--epochs"].default == str(COMMAND.__dataclass_fields__["training"].default_factory().epochs)
    assert by_name["--seed"].meaning == "Everything random follows from it."
    assert by_name["--device"].values == "{auto,cpu,cuda}"
    assert by_name["--dry-run"].values == ""
    assert all(flag.meaning or flag.values for flag in by_name.values())


def test_what_markdown_would_swallow_is_escaped(flags: ModuleType) -> None:
    flag = flags.Flag(("--out",), "{None}|PATH|STR", "None", "runs/<data>-<seed> or *_x | `a|b`")
    assert flag.row() == r"| `--out` `PATH\|STR` |  | runs/&lt;data&gt;-&lt;seed&gt; or \*\_x \| `a\|b` |"
    assert (
        flags.Flag(("--device",), "{auto,cpu}", "auto", "").row() == "| `--device` | `auto` | Values: `auto`, `cpu`. |"
    )


def test_figures_are_what_the_drawing_code_draws() -> None:
    drawn = runpy.run_path(str(DOCS / "figures" / "draw.py"))["figures"]()
    for name, svg in drawn.items():
        assert (DOCS / "figures" / name).read_text(encoding="utf-8") == svg, f"python docs/figures/draw.py ({name})"
        assert "prefers-color-scheme:dark" in svg


def test_every_page_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    lists = re.findall(r"^```\{toctree\}\n(.*?)^```$", index, flags=re.DOTALL | re.MULTILINE)
    patterns = [line for text in lists for line in text.splitlines() if line and not line.startswith(":")]
    assert len(patterns) == len(set(patterns))
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or any(page.match(f"{pattern}.md") for pattern in patterns), page.name


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-b",
        "html",
        "-d",
        str(tmp_path / "cache"),
        str(DOCS),
        str(site),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = {page.stem: page.read_text(encoding="utf-8") for page in site.glob("*.html")}
    assert {page.stem for page in DOCS.glob("*.md")} <= set(pages)
    for name in COMMANDS:
        assert f'id="cdarts-{name}"' in pages["flags"]
    for name in ("search", "retrain", "load", "create_model", "Run", "Run.model"):
        assert f'id="cdarts.api.{name}"' in pages["api"]
    for page, text in pages.items():
        for link in re.findall(r'<a [^>]*href="([^"#:]+)(?:#[^"]*)?"', text):
            assert (site / link).exists(), f"{page}: {link}"
