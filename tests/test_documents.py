"""The documents are true: their commands run, their links lead somewhere, their tables match the program.

Commands stand in code blocks without a language, or of the languages ``console`` and ``bash``. All of them must parse.
They also run, document by document, in order, in a folder of their own that holds the user's files they name. A comment
before a block changes that: ``<!-- slow -->`` runs it only among the slow tests, ``<!-- not run -->`` never, since it
downloads something or takes hours, and ``<!-- changed source -->`` in a source to which the document's changes have
been made (``test_extending.py``). Python blocks whose first line names a file of the source are such changes.
"""

import json
import os
import re
import runpy
import shlex
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torchvision
import tyro
from PIL import Image
from sklearn.datasets import load_digits

from cdarts import errors
from cdarts.cli import COMMANDS, main
from cdarts.data import load

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLI, DATA, TOUR = (ROOT / "docs" / name for name in ("cli.md", "data.md", "tour.md"))

COMMAND_LANGUAGES = ("", "console", "bash")
FOLLOWED_BY = {"search": [["smoke"]], "ablate": [["components"], ["correlation"], ["depth"], ["epochs"]]}
"""Words between a command and its flags."""
TRAINING_COMMANDS = ("run", "search", "retrain")


# -- reading Markdown --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A code block."""

    line: int
    language: str
    mark: str
    """The HTML comment before it: ``slow``, ``not run``, ``changed source``, or nothing."""
    text: str

    def commands(self) -> list[list[str]]:
        """The words of each of its `cdarts` commands, without `cdarts`, of a block for the source as it is."""
        return [] if self.mark == "changed source" else self.every_command()

    def every_command(self) -> list[list[str]]:
        """The words of each of its `cdarts` commands, without `cdarts`."""
        if self.language not in COMMAND_LANGUAGES:
            return []
        lines = [line.strip().removeprefix("$ ") for line in self.text.replace("\\\n", " ").splitlines()]
        return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("cdarts ")]

    def is_script(self) -> bool:
        """Whether it is Python to be run, and no file of the source."""
        return self.language == "python" and not self.text.startswith("# src/")


def blocks(document: Path) -> list[Block]:
    """The code blocks of a document."""
    found: list[Block] = []
    before = ""
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        fence = line.strip().startswith("```")
        if opened is not None and fence:
            found.append(Block(*opened, "\n".join(inside)))
            opened, before = None, ""
        elif opened is not None:
            inside.append(line)
        elif fence:
            mark = re.fullmatch(r"<!-- (slow|not run|changed source) -->", before)
            opened, inside = (number, line.strip().removeprefix("```"), mark[1] if mark else ""), []
        elif line.strip():
            before = line.strip()
    assert opened is None, f"{document.name}: a code block is not closed"
    return found


def prose(document: Path) -> str:
    """A document without its code blocks."""
    return re.sub(r"^\s*```.*?^\s*```\s*$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def section(document: Path, heading: str) -> str:
    """The prose between a second-level heading and the next one."""
    match = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", prose(document), flags=re.DOTALL | re.MULTILINE)
    assert match, f"{document.name} has no section {heading!r}"
    return match[1]


def table(text: str) -> list[list[str]]:
    """The rows of the last table in a text, its head apart; cells as Markdown."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    rules = [position for position, row in enumerate(rows) if all(re.fullmatch("-+", cell) for cell in row)]
    return rows[rules[-1] + 1 :]


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def anchors(document: Path) -> set[str]:
    """The names that headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- running -----------------------------------------------------------------------------------------------------------


def call(words: Sequence[str]) -> int:
    """`cdarts` with these words; its exit code."""
    try:
        return main(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line sets for its process ends with the test."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")


@pytest.fixture
def user_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in, with the files of a user: photos/cat, photos/dog, new.jpg and images.npz."""
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    pixels = (digits.images * 255 / 16).astype(np.uint8)
    for name, label in (("cat", 3), ("dog", 8)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number, image in enumerate(pixels[digits.target == label][:40], start=1):
            Image.fromarray(image).resize((24, 24)).convert("RGB").save(folder / f"{number}.jpg")
    Image.fromarray(pixels[digits.target == 3][50]).resize((64, 48)).convert("RGB").save(tmp_path / "new.jpg")
    np.savez(tmp_path / "images.npz", x_train=pixels[digits.target < 2], y_train=digits.target[digits.target < 2])
    return tmp_path


def run_document(document: Path, *, slow: bool) -> None:
    """Everything in a document that can be run, in order, in the current folder."""
    for block in blocks(document):
        if block.mark == "not run" or (block.mark == "slow" and not slow):
            continue
        for words in block.commands():
            assert call(words) == 0, f"{document.name}, block of line {block.line}: cdarts {shlex.join(words)}"
        if block.is_script():
            script = Path(f"{document.stem}_{block.line}.py")
            script.write_text(block.text, encoding="utf-8")
            runpy.run_path(str(script), run_name="__main__")


def with_name(document: Path) -> str:
    return document.name


COMMAND_CASES = [
    pytest.param(words, id=f"{document.name}:{block.line}:{' '.join(words)}")
    for document in DOCUMENTS
    for block in blocks(document)
    for words in block.commands()
]
RUNNABLE = [
    document
    for document in DOCUMENTS
    if any((block.commands() or block.is_script()) and not block.mark for block in blocks(document))
]
SLOW = [path for path in DOCUMENTS if any(block.mark == "slow" for block in blocks(path))]


class Parsed:
    """A command that was understood, and does nothing."""

    def run(self) -> int:
        return 0


@pytest.mark.parametrize("words", COMMAND_CASES)
def test_command_parses(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parse = tyro.cli

    def parse_only(*arguments: object, **options: object) -> Parsed:
        parse(*arguments, **options)  # type: ignore[call-overload]
        return Parsed()

    monkeypatch.setattr(tyro, "cli", parse_only)
    assert call(words) == 0


@pytest.mark.parametrize("document", RUNNABLE, ids=with_name)
@pytest.mark.usefixtures("user_files")
def test_document_runs(document: Path) -> None:
    run_document(document, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("document", SLOW, ids=with_name)
@pytest.mark.usefixtures("user_files")
def test_document_runs_with_its_slow_blocks(document: Path) -> None:
    run_document(document, slow=True)
    if document == CLI:
        # too few photos for a search: a published cell is trained
        assert files_of(Path("runs/photos")) == files_listed("run") - {"search"}
        exported = {Path(file).name for file in json.loads(Path("runs/photos/summary.json").read_text())["exported"]}
        assert files_of(Path("runs/photos/retrain")) == (files_listed("retrain") - {"report.html"}) | exported


# -- docs/cli.md -------------------------------------------------------------------------------------------------------


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `--help` prints, for all that a command can be followed by."""
    capsys.readouterr()
    for words in FOLLOWED_BY.get(command, [[]]):
        assert call([command, *words, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "show"])
def test_flags_in_the_reference_exist(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = section(CLI, f"cdarts {command}")
    if command in TRAINING_COMMANDS:
        text += section(CLI, "Flags of all commands that train")
    flags = {flag for words in in_backticks(text) for flag in re.findall(r"--[a-z][a-z0-9.-]*", words)}
    known = set(re.findall(r"--[a-z][a-z0-9.-]*", help_of(command, capsys)))
    assert flags <= known


def test_every_command_has_a_section_that_uses_it() -> None:
    used = {words[0] for block in blocks(CLI) for words in block.commands()}
    for command in COMMANDS:
        section(CLI, f"cdarts {command}")
        assert command in used


def test_exit_codes_are_those_of_the_errors() -> None:
    listed = {int(code) for row in table(section(CLI, "Exit codes")) for code in row[0].split(",")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CdartsError)]
    assert listed == {0, 130, 138, 141, 143} | {kind.exit_code for kind in kinds}


def files_listed(command: str) -> set[str]:
    """The entries of a run directory that docs/cli.md says a command writes."""
    text = section(CLI, "The run directory").partition("`status.json` holds")[0]
    return {
        name.rstrip("/") for names, by, _ in table(text) if command in by.split(", ") for name in in_backticks(names)
    }


def keys_listed(file: str) -> set[str]:
    """The keys that docs/cli.md says a file of a run has: those of its table, and those of every journal's line."""
    text = section(CLI, "Epochs, journals, summaries")
    always = {"epoch", "seconds", "skipped_batches"} if file.endswith(".jsonl") else set()
    head = rf"^\| `{re.escape(file)}` \|.*?(?=^$)"
    (rows,) = re.findall(head, text, flags=re.DOTALL | re.MULTILINE)
    return {key for row in table(rows) for key in in_backticks(row[0])} | always


def keys_of(file: Path) -> set[str]:
    """The keys of a run's file, of all lines of a journal."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    return {key for line in lines for key in json.loads(line)}


def files_of(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()}


@pytest.mark.usefixtures("user_files")
def test_run_directory_holds_what_is_listed() -> None:
    search = "search smoke --data synthetic --cycles 1 --pretrain-epochs 0 --warmup-epochs 0 --out found"
    retrain = "retrain found --data synthetic --cells 3 --channels 4 --epochs 1 --auxiliary-weight 0 --out trained"
    assert call(search.split()) == 0
    assert call(retrain.split()) == 0
    assert files_of(Path("found")) == files_listed("search")
    assert files_of(Path("trained")) == files_listed("retrain")
    for run in (Path("found"), Path("trained")):
        for file in [*run.glob("*.jsonl"), run / "summary.json"]:
            assert keys_of(file) <= keys_listed(file.name), file
    status_keys = {key for row in table(section(CLI, "The run directory")) for key in in_backticks(row[0])}
    assert set(json.loads(Path("found/status.json").read_text())) == status_keys - {"resume", "left_seconds"}


# -- docs/data.md, docs/tour.md ----------------------------------------------------------------------------------------


class StandIn:
    """In place of torchvision's CIFAR10: labels 0, 1, ... 9, 0, ...; image i is grey at i modulo 251."""

    def __init__(self, root: str, *, train: bool, download: bool) -> None:
        assert root
        assert download
        count = 6000 if train else 1500
        grey = np.arange(count, dtype=np.int64) % 251
        self.data = np.broadcast_to(grey.astype(np.uint8)[:, None, None, None], (count, 32, 32, 3))
        self.targets = [index % 10 for index in range(count)]
        self.classes = [f"class{label}" for label in range(10)]


@pytest.mark.usefixtures("user_files")
def test_cifar_subset_is_the_first_images_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = [block for block in blocks(DATA) if "CIFAR10" in block.text]
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", StandIn)
    Path("snippet.py").write_text(snippet.text, encoding="utf-8")
    runpy.run_path("snippet.py", run_name="__main__")
    data = load("cifar10_5k1k.npz")
    assert data.class_names == tuple(f"class{label}" for label in range(10))
    for images, count in ((data.train, 5000), (data.test, 1000)):
        assert len(images) == count
        assert (np.bincount(images.labels) == count // 10).all()
        # with labels in turn, the first n of each class are the first 10 n images
        assert (images.pixels[:, 0, 0, 0] == np.arange(count) % 251).all()


def test_data_sets_in_the_table_are_those_there_are() -> None:
    from cdarts.data import DATASETS

    assert {name for row in table(section(DATA, "By name")) for name in in_backticks(row[0])} == set(DATASETS)
    for name in ("digits", "synthetic"):
        (row,) = [row for row in table(section(DATA, "By name")) if row[0] == f"`{name}`"]
        data = load(name)
        size = f"{len(data.train):,} + {len(data.test):,} {'grey' if data.channels == 1 else 'colour'} images"
        assert row[2] == f"{size}, {data.side}x{data.side}, {data.num_classes} classes"


def test_columns_of_the_benchmark_table(cdarts_data: Path) -> None:
    import gzip

    path = cdarts_data / "nasbench201.csv.gz"
    if not path.exists():
        pytest.skip("$CDARTS_DATA holds no nasbench201.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        columns = set(file.readline().strip().split(","))
    rows = table(section(DATA, "Data that tests look for"))
    assert {name for row in rows for name in in_backticks(row[0])} <= columns


def test_the_tour_visits_files_that_exist_and_forgets_none() -> None:
    source = ROOT / "src" / "cdarts"
    visited = {name for name in in_backticks(prose(TOUR)) if name.endswith(".py")}
    assert not [name for name in visited if not (source / name).is_file()]
    folders = {Path(name).parts[0] for name in visited}
    there = {path.name for path in source.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert there - {"__init__.py"} <= folders


# -- what stands around ------------------------------------------------------------------------------------------------


def test_readme_has_the_two_install_lines() -> None:
    lines = [line.strip().removeprefix("$ ") for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]
    install = [line for line in lines if line.startswith("pip install -e")]
    assert install == ["pip install -e . && cdarts run", "pip install -e '.[dev]' && pytest"]


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=with_name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(document)))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), f"{document.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{document.name}: {link}"


def test_documents_are_reachable_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)", prose(ROOT / "README.md"))}
    assert set(DOCUMENTS[1:]) <= linked


def test_licence_and_citation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith(f"{project['license']} License\n")
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"(  )*(- )?[a-z-]+:( \S.*)?", line) for line in lines if line)
    citation = dict(line.partition(": ")[::2] for line in lines if not line.startswith(" "))
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == project["license"]
    assert {"title", "message", "authors:", "preferred-citation:"} <= set(citation)
    assert "  title: Cyclic Differentiable Architecture Search" in lines


def test_the_continuous_integration_script_takes_its_command_from_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    (line,) = [line for line in script.read_text(encoding="utf-8").splitlines() if line.startswith("command=")]
    shell = f'{line}; printf "%s\\n%s" "${{command%% && *}}" "${{command#* && }}"'
    found = subprocess.run(["bash", "-c", shell], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert found.splitlines() == ["pip install -e '.[dev]'", "pytest"]
