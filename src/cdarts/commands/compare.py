"""Many searches under one protocol, method by method and seed by seed, and one table of what they found."""

import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cdarts.algorithms import AnyAlgorithm, CyclicConfig, Protocol
from cdarts.benchmarks.nasbench201 import SPACE, Table, find_table
from cdarts.commands.common import announce, config_of, default_out, describe
from cdarts.commands.search import Search
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS
from cdarts.protocols import PROTOCOLS
from cdarts.settings import to_json

if TYPE_CHECKING:
    from cdarts.report.comparison import Found

COMPARISON = "comparison.json"
"""What a comparison's directory says about itself."""

TABLE_PREFIX = "table-"
"""Before the names of searches on the table, some of which searches with images bear too."""


# -- what can be compared ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A method with one thing changed: a control."""

    method: str
    """Name of the preset that is changed."""
    change: Callable[[Search], Search]


def _changed(**values: Any) -> Callable[[Search], Search]:
    """Other settings of CDARTS."""

    def change(settings: Search) -> Search:
        assert isinstance(settings.algorithm, CyclicConfig)
        return replace(settings, algorithm=replace(settings.algorithm, **values))

    return change


VARIANTS: dict[str, Variant] = {
    "cdarts-no-feedback": Variant("cdarts", _changed(feedback_weight=0.0, teaching_weight=0.0)),
    "cdarts-prior-only": Variant("cdarts", _changed(prior_only=True)),
    "cdarts-shuffled-labels": Variant("cdarts", lambda settings: replace(settings, shuffled_labels=True)),
}
"""Controls by name: E-Net teaches nothing; alpha follows its regularisers alone; labels that say nothing."""


def method_names() -> list[str]:
    """Every method that can be compared: presets without their space, variants, searches on the table."""
    from cdarts.benchmarks.searches import TABLE_SEARCHES

    presets = [name for name in PRESETS if not name.endswith(f"-{SPACE}")]
    return [*presets, *VARIANTS, *(f"{TABLE_PREFIX}{name}" for name in TABLE_SEARCHES)]


def method_settings(method: str, protocol: Protocol) -> tuple[AnyAlgorithm, Callable[[Search], Search]]:
    """What a method that searches with images searches with, and what it changes beyond that."""
    variant = VARIANTS.get(method)
    preset = method if variant is None else variant.method
    in_space = f"{preset}-{protocol.space.name}"
    algorithm = PRESETS[in_space if in_space in PRESETS else preset]
    return algorithm.under(protocol), (lambda settings: settings) if variant is None else variant.change


def find_protocol(name: str) -> Protocol:
    """A protocol by name. Raises `ConfigurationError`."""
    if name not in PROTOCOLS:
        raise ConfigurationError(f"--protocol {name}: {_unknown(name, PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if protocol.space.name != SPACE:
        raise ConfigurationError(
            f"--protocol {name}: searches space {protocol.space.name}; there is a table of {SPACE}"
        )
    return protocol


def parse_methods(text: str) -> list[str]:
    """``cdarts,darts`` as names, in order. Raises `ConfigurationError`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = method_names()
    for name in names:
        if name not in known:
            raise ConfigurationError(f"--methods {name}: {_unknown(name, known)}")
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"--methods {text}: name one or more methods, each once, with commas between")
    return names


MAX_SEEDS = 10_000


def parse_seeds(text: str) -> list[int]:
    """``10-13`` or ``10,11,20-23`` as numbers, in order. Raises `ConfigurationError`."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        first, last = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
        if last < first or last - first >= MAX_SEEDS:
            raise ConfigurationError(f"--seeds {text}: write 10-13 or 10,11,20")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"--seeds {text}: a seed is named twice")
    return seeds


def _unknown(name: str, known: Iterable[str]) -> str:
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]}? " if nearest else ""
    return f"there is none of that name. {hint}There are {', '.join(names)}"


# -- the command -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """One method with one seed."""

    method: str
    seed: int
    path: Path
    settings: Search

    def __str__(self) -> str:
        return f"{self.method} seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Search with several methods and seeds under one protocol, and make one table of what NAS-Bench-201 says of it.

    Every search is a run directory of its own, OUT/METHOD/seed-N. The same command goes on where it was stopped, and
    with more methods or seeds only they are searched. The table takes in the methods and seeds that are named.
    """

    protocol: str = "nasbench201-small"
    """Name of what all methods share: images, network, epochs."""
    methods: str = "cdarts,cdarts-no-feedback,darts,pc-darts,gdas,drnas,beta-darts,single-path,random"
    """Names of presets, without their space, of controls, and of searches on the table, with commas between."""
    seeds: str = "10-13"
    """E.g. 10-13 or 10,11,20."""
    out: Path | None = None
    """Directory of the comparison; default: runs/compare-<protocol>-<time>."""
    jobs: int | None = None
    """Searches at a time, each on one thread; default: one for each core, on a GPU one."""
    only_table: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Search nothing: make the table of the searches that are done."""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The table; default: $CDARTS_NASBENCH201, else nasbench201.csv.gz in $CDARTS_DATA, else in ~/.cache/cdarts."""
    data_root: Path | None = None
    """Where downloaded data sets lie; $CDARTS_DATA, else ~/.cache/cdarts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def run(self) -> int:
        announce("compare", f"protocol {self.protocol}", f"methods {self.methods}", f"seeds {self.seeds}")
        methods, seeds = parse_methods(self.methods), parse_seeds(self.seeds)
        from cdarts.engine.run_dir import is_done

        protocol = find_protocol(self.protocol)
        if self.jobs is not None and self.jobs < 1:
            raise ConfigurationError(f"--jobs {self.jobs}: must be at least 1")
        table = Table.load(find_table(self.table))
        out = self.out or default_out("compare", self.protocol)
        settle(out, self.protocol, protocol)
        contenders = self._contenders(methods, seeds, protocol, out)
        if self.only_table:
            contenders = [contender for contender in contenders if is_done(contender.path)]
            if not contenders:
                raise ConfigurationError(f"--only-table: no search of these methods and seeds is done in {out}")
        failures = self._search(contenders, out)
        found = [found_by(contender) for contender in contenders if str(contender) not in failures]
        for method in methods:
            if method.startswith(TABLE_PREFIX):
                found += [found_on_table(method, seed, table) for seed in seeds]
        found.sort(key=lambda search: (methods.index(search.method), seeds.index(search.seed)))
        self._write(out, contenders, found, failures, table, seeds)
        return 0

    def _contenders(
        self, methods: Sequence[str], seeds: Sequence[int], protocol: Protocol, out: Path
    ) -> list[Contender]:
        """Every search with images, seed by seed, so that a table of all methods is there early."""
        from cdarts.engine.runtime import choose_device

        device = choose_device(self.device)
        searching = [method for method in methods if not method.startswith(TABLE_PREFIX)]
        contenders = []
        for seed in seeds:
            for method in searching:
                algorithm, change = method_settings(method, protocol)
                path = out / method / f"seed-{seed}"
                settings = Search(
                    algorithm=algorithm,
                    preset=f"{method}, {self.protocol}",
                    data=protocol.data,
                    data_root=self.data_root,
                    image_size=protocol.image_size,
                    seed=seed,
                    out=path,
                )
                contenders.append(Contender(method, seed, path, change(settings.settled(device, 1))))
        return contenders

    def _search(self, contenders: Sequence[Contender], out: Path) -> dict[str, str]:
        """Carry the searches out that are not done yet; returns why those failed that did, by contender."""
        from cdarts.engine.processes import RunsProgress, resume_all
        from cdarts.engine.run_dir import is_done
        from cdarts.engine.runtime import Interrupted, stop_on_signals

        for contender in contenders:
            open_run(contender)
        pending = [contender for contender in contenders if not is_done(contender.path)]
        print(f"runs    {len(contenders)} in {out}, {len(contenders) - len(pending)} of them done already", flush=True)
        if not pending:
            return {}
        # data that cannot be had fails here, once
        print(describe(pending[0].settings.load_data()), flush=True)
        jobs = min(self.jobs or default_jobs(pending[0].settings.device), len(pending))
        labels = {contender.path: str(contender) for contender in contenders}
        progress = RunsProgress("compare", labels, {contender.path: contender.method for contender in contenders}, jobs)
        try:
            with stop_on_signals() as stop:
                resume_all([contender.path for contender in pending], jobs, stop, progress)
        except Interrupted as error:
            raise Interrupted(error.number, self._how_to_go_on(out)) from error
        return {labels[path]: message for path, message in progress.failures.items()}

    def _how_to_go_on(self, out: Path) -> str:
        """The command that goes on with this comparison."""
        flags: dict[str, object] = {
            "protocol": self.protocol,
            "methods": self.methods,
            "seeds": self.seeds,
            "out": out,
            "jobs": self.jobs,
            "table": self.table,
            "data-root": self.data_root,
            "device": None if self.device == "auto" else self.device,
        }
        words = [f"--{name} {shlex.quote(str(value))}" for name, value in flags.items() if value is not None]
        return f"cdarts compare {' '.join(words)}"

    def _write(
        self,
        out: Path,
        contenders: Sequence[Contender],
        found: "Sequence[Found]",
        failures: Mapping[str, str],
        table: Table,
        seeds: Sequence[int],
    ) -> None:
        """``table.md``, ``table.csv``, ``table.json``, and the first of them on the terminal."""
        import numpy as np

        from cdarts import __version__
        from cdarts.engine.files import write_bytes, write_json
        from cdarts.randomness import key
        from cdarts.report.comparison import Comparison, rows_of, search_record, to_csv, to_json, to_markdown

        draw = np.random.Generator(np.random.PCG64(key(0, "permutations")))
        comparison = Comparison(
            title=f"{self.protocol}: {len(dict.fromkeys(search.method for search in found))} methods",
            about=[
                describe_protocol(find_protocol(self.protocol)),
                f"seeds {self.seeds}; cdarts {__version__}; {self._machine(contenders)}",
                f"command: `{self._how_to_go_on(out)}`",
            ],
            rows=rows_of(found, table, len(seeds), draw),
            searches=[search_record(search, table) for search in found],
            failures=[
                {"method": contender.method, "seed": contender.seed, "message": failures[str(contender)]}
                for contender in contenders
                if str(contender) in failures
            ],
        )
        markdown = to_markdown(comparison)
        for name, text in (("table.md", markdown), ("table.csv", to_csv(comparison))):
            write_bytes(out / name, text.encode())
        write_json(out / "table.json", to_json(comparison))
        print(f"\n{markdown}\ntable   {out}: table.md, table.csv, table.json", flush=True)

    def _machine(self, contenders: Sequence[Contender]) -> str:
        """Where the searches with images ran, as their runs' environments say."""
        from cdarts.engine.run_dir import read_json

        environments = [
            read_json(file) for contender in contenders if (file := contender.path / "environment.json").is_file()
        ]
        told = {
            f"{environment['device']}, {environment['threads']} thread a search, torch {environment['torch']}, "
            f"{environment['processor']}"
            for environment in environments
        }
        return "; ".join(sorted(told)) or "no search with images"


# -- the directory -----------------------------------------------------------------------------------------------------


def settle(out: Path, name: str, protocol: Protocol) -> None:
    """Make the comparison's directory, or make sure that it was begun with the same protocol.

    Raises `ConfigurationError`, `DiskError`.
    """
    from cdarts.engine.files import write_json
    from cdarts.engine.run_dir import check_free, read_json
    from cdarts.errors import DiskError

    wanted = {"protocol": name, **to_json(protocol)}
    if (out / COMPARISON).is_file():
        begun = read_json(out / COMPARISON)
        if begun != wanted:
            changes = [field for field in {**begun, **wanted} if begun.get(field) != wanted.get(field)]
            raise ConfigurationError(
                f"{out} was begun with another protocol, {begun.get('protocol')} (other: {', '.join(changes)}): "
                "what is in it cannot be compared with this one; choose a new name with --out"
            )
        return
    check_free(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot create {out}: {error.strerror or error}") from error
    write_json(out / COMPARISON, wanted)


def open_run(contender: Contender) -> None:
    """Make a search's run directory, or make sure that the one there was begun with the same settings.

    Raises `ConfigurationError`, `DiskError`.
    """
    from cdarts.engine.run_dir import RunDir, read_json

    config = config_of("search", contender.settings)
    if not (contender.path / "config.json").is_file():
        RunDir.create(contender.path, config).close()
        return
    begun = read_json(contender.path / "config.json").get("settings")
    changes = [
        name
        for name in ("algorithm", "data", "image_size", "seed", "shuffled_labels", "device", "threads", "execution")
        if not isinstance(begun, dict) or begun.get(name) != config["settings"][name]
    ]
    if changes:
        raise ConfigurationError(
            f"{contender.path} was begun with other settings than {contender.method} has now "
            f"({', '.join(changes)}); remove it, or choose a new name with --out"
        )


def default_jobs(device: str) -> int:
    """Searches at a time: one for each core that this process may use; on a GPU one."""
    if device == "cuda":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def found_by(contender: Contender) -> "Found":
    """What a search that is done has found."""
    from cdarts.engine.processes import resources_of
    from cdarts.engine.run_dir import read_json
    from cdarts.report.comparison import Found
    from cdarts.topology import read_genotype

    resources = resources_of(contender.path)
    return Found(
        contender.method,
        contender.seed,
        read_genotype(contender.path / "genotype.json"),
        seconds=read_json(contender.path / "summary.json")["seconds"],
        peak_memory_bytes=None if resources is None else resources.peak_memory_bytes,
    )


def found_on_table(method: str, seed: int, table: Table) -> "Found":
    """What a search on the table finds."""
    from cdarts.benchmarks.searches import TABLE_SEARCHES
    from cdarts.report.comparison import Found

    trace = TABLE_SEARCHES[method.removeprefix(TABLE_PREFIX)]().search(table, seed)
    return Found(method, seed, table.genotype(trace.best.index), simulated_seconds=trace.seconds)


def describe_protocol(protocol: Protocol) -> str:
    """One line about a protocol."""
    side = "" if protocol.image_size is None else f" at {protocol.image_size}x{protocol.image_size}"
    return (
        f"data {protocol.data}{side}, space {protocol.space.name}, {protocol.cells} cells of {protocol.channels} "
        f"channels, batch {protocol.batch_size}, {protocol.epochs} epochs, alpha still for {protocol.still_epochs}"
    )


COMMAND = Compare
