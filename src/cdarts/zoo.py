"""Published cells by name. Each is a genotype file in ``genotypes/`` whose provenance says where it was published."""

import difflib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from cdarts.errors import GenotypeError
from cdarts.spaces import SPACES
from cdarts.topology import Genotype, parse_genotype, read_genotype

SUFFIX = ".json"

TEXT_FORMS = ("|", "Genotype(")
"""How the text forms of genotypes begin."""


def names() -> list[str]:
    """The names of all published cells, in alphabetical order."""
    return sorted(entry.name.removesuffix(SUFFIX) for entry in _folder().iterdir() if entry.name.endswith(SUFFIX))


def file(name: str) -> Traversable:
    """The file of a published cell. Raises `GenotypeError` with the nearest name."""
    if name not in names():
        raise GenotypeError(f"{name}: no published cell of that name.{_nearest(name)}")
    return _folder() / f"{name}{SUFFIX}"


def load(name: str) -> Genotype:
    """A published cell. Raises `GenotypeError` with the nearest name."""
    return parse_genotype(file(name).read_text(encoding="utf-8"))


def find(text: str) -> Genotype:
    """The genotype that a user means, checked against its space.

    A name of the zoo; a text form, ``|op~0|+...`` or ``Genotype(...)``; a genotype file, JSON or text form; or the run
    directory of a finished search. Names and text forms come before files: write ``./name`` for a file called name.

    Raises `GenotypeError` if it is none of them or does not belong to its space.
    """
    if text in names():
        genotype = load(text)
    elif text.lstrip().startswith(TEXT_FORMS):
        genotype = parse_genotype(text)
    else:
        genotype = read_genotype(_genotype_file(text))
    if genotype.space not in SPACES:
        raise GenotypeError(f"{text}: unknown space {genotype.space!r}; there are {', '.join(SPACES)}")
    try:
        SPACES[genotype.space]().check(genotype)  # type: ignore[call-arg]
    except GenotypeError as error:
        raise GenotypeError(f"{text}: {error}") from error
    return genotype


def run_of(text: str) -> Path | None:
    """The run directory that `find` would take the genotype from, if it is one."""
    if text in names() or text.lstrip().startswith(TEXT_FORMS):
        return None
    path = Path(text).expanduser()
    return path if (path / "config.json").is_file() else None


def _genotype_file(text: str) -> Path:
    """The file that a path names, itself or as a run directory. Raises `GenotypeError` if there is none."""
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            path = path / "genotype.json"
            if not path.is_file():
                raise GenotypeError(f"{text}: a directory without genotype.json, which a search writes when it is done")
        elif not path.exists():
            what = "no published cell, genotype file or run directory of that name"
            raise GenotypeError(f"{text}: {what}.{_nearest(text)}")
    except OSError as error:  # a name that the file system cannot have
        raise GenotypeError(f"{text}: {error.strerror}") from error
    return path


def _folder() -> Traversable:
    return files("cdarts") / "genotypes"


def _nearest(name: str) -> str:
    nearest = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"{hint} Published cells: {', '.join(names())}"
