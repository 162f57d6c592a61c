"""Many searches under one protocol, method by method and seed by seed, and one table of what they found."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cdarts.algorithms import AnyAlgorithm, CyclicConfig, Protocol
from cdarts.benchmarks.nasbench201 import SPACE, Table, find_table
from cdarts.commands.common import ExecutionChoice, announce, config_of, default_out
from cdarts.commands.many_runs import (
    PlannedRun,
    carry_out,
    check_jobs,
    machine_of,
    parse_names,
    parse_seeds,
    preset_words,
    settle,
    unknown,
)
from cdarts.commands.search import Search
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS, preset_under
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
    return preset_under(base_of(method), protocol), (lambda settings: settings) if variant is None else variant.change


def base_of(method: str) -> str:
    """The preset that a method is, or is a variant of."""
    return VARIANTS[method].method if method in VARIANTS else method


def find_protocol(name: str) -> Protocol:
    """A protocol by name. Raises `ConfigurationError`."""
    if name not in PROTOCOLS:
        raise ConfigurationError(f"--protocol {name}: {unknown(name, PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if protocol.space.name != SPACE:
        raise ConfigurationError(
            f"--protocol {name}: searches space {protocol.space.name}; there is a table of {SPACE}"
        )
    return protocol


# -- the command -------------------------------------------------------------------------------------------------------


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
    execution: ExecutionChoice = "auto"
    """How cells are computed, the same for all searches: another execution finds other cells."""

    def run(self) -> int:
        announce("compare", f"protocol {self.protocol}", f"methods {self.methods}", f"seeds {self.seeds}")
        methods, seeds = parse_names("--methods", self.methods, method_names(), "methods"), parse_seeds(self.seeds)
        from cdarts.engine.run_dir import is_done

        protocol = find_protocol(self.protocol)
        check_jobs(self.jobs)
        table = Table.load(find_table(self.table))
        out = self.out or default_out("compare", self.protocol)
        settle(out, COMPARISON, {"protocol": self.protocol, **to_json(protocol)})
        contenders = self._contenders(methods, seeds, protocol, out)
        if self.only_table:
            contenders = [contender for contender in contenders if is_done(contender.path)]
            if not contenders and not any(method.startswith(TABLE_PREFIX) for method in methods):
                raise ConfigurationError(f"--only-table: no search of these methods and seeds is done in {out}")
        failures = carry_out("compare", contenders, out, self.jobs, self._how_to_go_on(out))
        found = [found_by(contender) for contender in contenders if contender not in failures]
        for method in methods:
            if method.startswith(TABLE_PREFIX):
                found += [found_on_table(method, seed, table) for seed in seeds]
        found.sort(key=lambda search: (methods.index(search.method), seeds.index(search.seed)))
        self._write(out, contenders, found, failures, table, seeds)
        return 0

    def _contenders(
        self, methods: Sequence[str], seeds: Sequence[int], protocol: Protocol, out: Path
    ) -> list[PlannedRun]:
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
                    preset=preset_words(base_of(method), method, self.protocol),
                    data=protocol.data,
                    data_root=self.data_root,
                    image_size=protocol.image_size,
                    seed=seed,
                    execution=self.execution,
                    out=path,
                )
                settings = change(settings.settled(device, 1))
                contenders.append(PlannedRun(method, seed, path, settings, config_of("search", settings)))
        return contenders

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
            "execution": None if self.execution == "auto" else self.execution,
        }
        words = [f"--{name} {shlex.quote(str(value))}" for name, value in flags.items() if value is not None]
        return f"cdarts compare {' '.join(words)}"

    def _write(
        self,
        out: Path,
        contenders: Sequence[PlannedRun],
        found: "Sequence[Found]",
        failures: Mapping[PlannedRun, str],
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
                f"seeds {self.seeds}; cdarts {__version__}; {machine_of(contenders) or 'no search with images'}",
                f"command: `{self._how_to_go_on(out)}`",
            ],
            rows=rows_of(found, table, len(seeds), draw),
            searches=[search_record(search, table) for search in found],
            failures=[
                {"method": contender.name, "seed": contender.seed, "message": failures[contender]}
                for contender in contenders
                if contender in failures
            ],
        )
        markdown = to_markdown(comparison)
        for name, text in (("table.md", markdown), ("table.csv", to_csv(comparison))):
            write_bytes(out / name, text.encode())
        write_json(out / "table.json", to_json(comparison))
        print(f"\n{markdown}\ntable   {out}: table.md, table.csv, table.json", flush=True)
        leave_comparison(out, contenders, found, table)


# -- what was found ---------------------------------------------------------------------------------------------------


def leave_comparison(out: Path, contenders: Sequence[PlannedRun], found: "Sequence[Found]", table: Table) -> None:
    """Write the page of all searches, with the true accuracy of what they found."""
    from cdarts.commands.report import leave_page_of_several

    genotypes = {(search.method, search.seed): search.genotype for search in found}
    known = {
        contender.path: {"true_test_accuracy": table.result(genotype, "cifar10").test_200 / 100}
        for contender in contenders
        if (genotype := genotypes.get((contender.name, contender.seed))) is not None
    }
    leave_page_of_several([contender.path for contender in contenders], out, known)


def found_by(contender: PlannedRun) -> "Found":
    """What a search that is done has found."""
    from cdarts.engine.processes import resources_of
    from cdarts.engine.run_dir import read_json
    from cdarts.report.comparison import Found
    from cdarts.topology import read_genotype

    resources = resources_of(contender.path)
    return Found(
        contender.name,
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
