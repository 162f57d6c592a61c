"""How well a search's networks rank cells: the accuracy they give to sampled cells, against the true one."""

import csv
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cdarts.benchmarks.nasbench201 import NUM_CELLS, SPACE, Table, find_table
from cdarts.commands.common import Setup, announce, memory_permitting
from cdarts.commands.resume import settings_of
from cdarts.commands.search import Search
from cdarts.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from cdarts.algorithms.base import SearchAlgorithm
    from cdarts.algorithms.scoring import ScoredCell
    from cdarts.report.plots import Panel
    from cdarts.statistics import Correlation

DATASET = "cifar10"
TRUTHS = {"validation": "val", "test": "test"}
"""Columns of the table that count as true accuracy, 200 epochs."""


@dataclass(frozen=True, kw_only=True)
class Correlate:
    """Rank correlation between the accuracy that a search assigns to cells and their true accuracy.

    Cells are drawn at random. Each is scored with the weights of the search network, on the half of the training images
    that alpha learned from, and for CDARTS with those of the evaluation networks, on the half that their steps have not
    learned from, if there is one. Writes correlation.json, correlation.csv
    and correlation.svg into the run; the run itself is only read.
    """

    run_dir: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The table; default: $CDARTS_NASBENCH201, else nasbench201.csv.gz in $CDARTS_DATA, else in ~/.cache/cdarts."""
    cells: int = 100
    """Cells drawn, all different."""
    images: int | None = None
    """Images that score a cell, rounded up to whole batches; default: all of the half."""
    seed: int = 0
    """Which cells are drawn follows from it; the images follow from the run's own."""
    epoch: int | None = None
    """Score with the weights after this epoch of the plan, kept by `cdarts search --snapshots`; default: the last."""
    out: Path | None = None
    """Where the files go; default: the run's own directory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """Threads torch computes with; default: those of the run."""

    def run(self) -> int:
        announce("correlate", str(self.run_dir), f"{self.cells} cells", f"seed {self.seed}")
        check_sample(self.cells, self.images)
        finished_search(self.run_dir)  # what cannot be scored is told before the table is read
        scored, pairs = self.measure(Table.load(find_table(self.table)), _progress)
        _print(pairs, coverage_of(scored), scored)
        out = self.out or self.run_dir
        print(f"files   {out}: correlation.json, correlation.csv, correlation.svg", flush=True)
        return 0

    def measure(self, table: Table, report: Callable[[int], None]) -> "tuple[list[ScoredCell], list[Pair]]":
        """Score the cells and write the files; `report` is told how many cells are done.

        Raises `ConfigurationError`, `CheckpointError`, `DataError`, `DiskError`.
        """
        from cdarts.algorithms.scoring import score_cells
        from cdarts.errors import DiskError

        settings = finished_search(self.run_dir)
        try:  # before the cells are scored, which takes a while
            (self.out or self.run_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"--out {self.out}: no folder can be made there: {error.strerror}") from error
        task = self._restored(settings)
        with memory_permitting():
            scored = score_cells(task, number=self.cells, images=self.images, seed=self.seed, report=report)
        return scored, self._write(scored, table, settings)

    def _restored(self, settings: Search) -> "SearchAlgorithm":
        """The search as it ended."""
        from cdarts.engine.run_dir import read_json, read_last_state, read_snapshot
        from cdarts.engine.runtime import choose_device, set_threads
        from cdarts.errors import CheckpointError

        device = choose_device(self.device)
        set_threads(settings.threads if self.threads is None else self.threads)
        data = settings.load_data()
        if data.fingerprint() != read_json(self.run_dir / "environment.json").get("data"):
            raise DataError(f"the data set is not the one that {self.run_dir} searched on; restore it")
        task = settings.build(data, device)
        state = read_last_state(self.run_dir) if self.epoch is None else read_snapshot(self.run_dir, self.epoch)
        try:
            task.load_state(state)
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint in {self.run_dir} does not fit the settings in its config.json; were they changed?"
            ) from error
        return task

    def _write(self, scored: "Sequence[ScoredCell]", table: Table, settings: Search) -> "list[Pair]":
        from cdarts.engine.files import write_bytes, write_json
        from cdarts.report.plots import scatter_plots

        indices = [table.index(cell.genotype) for cell in scored]
        truths = {
            name: [float(table.accuracies(DATASET, split, 200)[index]) for index in indices]  # type: ignore[arg-type]
            for name, split in TRUTHS.items()
        }
        comparisons = correlations(scored, truths, self.seed)
        coverage = coverage_of(scored)
        out = self.out or self.run_dir
        answer: dict[str, Any] = {
            "run": str(self.run_dir),
            "preset": settings.preset,
            "cells": self.cells,
            "images": scored[0].num_images,
            "seed": self.seed,
            "epoch": self.epoch,
            "coverage": coverage,
            "correlations": [
                {"first": pair.first, "second": pair.second, "over": pair.over, **_as_json(pair.correlation)}
                for pair in comparisons
            ],
        }
        write_json(out / "correlation.json", answer)
        write_bytes(out / "correlation.csv", _as_csv(scored, indices, truths).encode())
        when = "" if self.epoch is None else f" after epoch {self.epoch}"
        title = f"{settings.preset}, seed {settings.seed}{when}: {self.cells} random cells"
        note = "hollow: E-Net has not had all of the cell's operations" if coverage else ""
        drawing = scatter_plots(title, note, _panels(scored, truths, comparisons))
        write_bytes(out / "correlation.svg", drawing.encode())
        return comparisons


def check_sample(cells: int, images: int | None) -> None:
    """Raise `ConfigurationError` for numbers of cells and images that cannot be drawn."""
    if not 3 <= cells <= NUM_CELLS:
        raise ConfigurationError(f"--cells {cells}: must be from 3 to {NUM_CELLS:,}")
    if images is not None and images < 2:
        raise ConfigurationError(f"--images {images}: must be at least 2")


def finished_search(path: Path) -> Search:
    """The settings of a search that is done. Raises `ConfigurationError` for any other run."""
    from cdarts.engine.run_dir import is_done

    settings: Setup = settings_of(path)
    if not isinstance(settings, Search):
        raise ConfigurationError(
            f"{path} is not the run of a search; cells are scored by what cdarts search has learned"
        )
    if settings.algorithm.space.name != SPACE:
        raise ConfigurationError(
            f"{path} searched space {settings.algorithm.space.name}; true accuracies are known for space {SPACE} only"
        )
    if not is_done(path):
        raise ConfigurationError(f"{path} is not done: cdarts resume {shlex.quote(str(path))}")
    return settings


def _progress(done: int) -> None:
    if done % 25 == 0:
        print(f"scored  {done} cells", flush=True)


# -- figures -----------------------------------------------------------------------------------------------------------

S_NET, E_NET = "S-Net", "E-Net"
ALL, MET = "all cells", "wholly met cells"
"""Which cells a figure is over: E-Net knows only operations that it has had."""


@dataclass(frozen=True)
class Pair:
    """One figure."""

    first: str
    second: str
    over: str
    correlation: "Correlation | None"
    """None where nothing can be said: fewer than 3 cells, or all of one side equal."""


def correlations(scored: "Sequence[ScoredCell]", truths: Mapping[str, Sequence[float]], seed: int) -> list[Pair]:
    """S-Net, E-Net and true accuracies, each with each other; E-Net's over all cells and over those wholly met."""
    import numpy as np

    from cdarts.randomness import key
    from cdarts.statistics import rank_correlation

    columns: dict[str, Sequence[float | None]] = {
        S_NET: [cell.search_accuracy for cell in scored],
        E_NET: [cell.eval_accuracy for cell in scored],
        **truths,
    }
    groups = {ALL: list(range(len(scored)))}
    wanted = [(S_NET, truth) for truth in truths]
    if scored[0].coverage is not None:
        groups[MET] = [position for position, cell in enumerate(scored) if cell.coverage == 1.0]
        wanted += [*((E_NET, truth) for truth in truths), (S_NET, E_NET)]
    pairs = []
    for first, second in wanted:
        for over, positions in groups.items():
            x, y = ([columns[name][position] for position in positions] for name in (first, second))
            known = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
            draw = np.random.Generator(np.random.PCG64(key(seed, "bootstrap", first, second, over)))
            correlation = rank_correlation([a for a, _ in known], [b for _, b in known], draw)
            pairs.append(Pair(first, second, over, correlation))
    return pairs


def coverage_of(scored: "Sequence[ScoredCell]") -> dict[str, float] | None:
    """How much of the sampled cells the E-Nets have had; None for searches without them."""
    shares = [cell.coverage for cell in scored if cell.coverage is not None]
    if not shares:
        return None
    return {
        "mean_share_of_edges": round(sum(shares) / len(shares), 4),
        "wholly_met_cells": sum(share == 1.0 for share in shares),
    }


def _as_json(correlation: "Correlation | None") -> dict[str, Any]:
    if correlation is None:
        return {"num_cells": None, "kendall": None, "spearman": None}
    return {
        "num_cells": correlation.num_things,
        "kendall": asdict(correlation.kendall),
        "spearman": asdict(correlation.spearman),
    }


def _as_csv(scored: "Sequence[ScoredCell]", indices: Sequence[int], truths: Mapping[str, Sequence[float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "genotype", "search_net", "eval_net", "coverage", *truths])
    for position, cell in enumerate(scored):
        scores = [cell.search_accuracy, cell.eval_accuracy, cell.coverage]
        rounded = ["" if score is None else round(score, 4) for score in scores]
        truth = [values[position] for values in truths.values()]
        writer.writerow([indices[position], cell.genotype.text(), *rounded, *truth])
    return text.getvalue()


def _print(pairs: Sequence[Pair], coverage: Mapping[str, float] | None, scored: "Sequence[ScoredCell]") -> None:
    others = "" if coverage is None else "; E-Net on as many of the half that it has not learned from, if there is one"
    print(f"scored  on {scored[0].num_images} images of the half that alpha learned from{others}; truth: {DATASET}")
    if coverage is not None:
        print(
            f"E-Net   has had {coverage['mean_share_of_edges']:.0%} of the cells' edges, "
            f"all of {coverage['wholly_met_cells']:.0f} of {len(scored)} cells"
        )
    print(f"{'':22} {'over':17} {'n':>5}  {'Kendall tau (95 %)':26}  Spearman rho (95 %)")
    for pair in pairs:
        figures = "nothing to say: fewer than 3 cells, or all of one side equal"
        if pair.correlation is not None:
            estimates = (pair.correlation.kendall, pair.correlation.spearman)
            both = "  ".join(f"{e.value:6.3f} ({e.low:6.3f} to {e.high:6.3f})" for e in estimates)
            figures = f"{pair.correlation.num_things:>5}  {both}"
        print(f"{f'{pair.first} and {pair.second}':22} {pair.over:17} {figures}")


def _panels(
    scored: "Sequence[ScoredCell]", truths: Mapping[str, Sequence[float]], pairs: Sequence[Pair]
) -> "list[Panel]":
    """S-Net with truth, E-Net with truth, S-Net with E-Net; hollow where E-Net has not met the whole cell."""
    from cdarts.report.plots import Panel, Point

    test = truths["test"]
    search = [cell.search_accuracy for cell in scored]
    hollow = [cell.coverage is not None and cell.coverage < 1.0 for cell in scored]
    labels = [cell.genotype.text() for cell in scored]

    def panel(first: str, x: Sequence[float], second: str, y: Sequence[float], marked: Sequence[bool]) -> Panel:
        points = [Point(*values) for values in zip(x, y, marked, labels, strict=True)]
        caption = "  ".join(_caption(pair) for pair in pairs if (pair.first, pair.second) == (first, second))
        return Panel(f"{first} and {AXES[second]}", caption, f"{AXES[first]}, %", f"{AXES[second]}, %", points)

    panels = [panel(S_NET, search, "test", test, [False] * len(scored))]
    if scored[0].coverage is not None:
        evaluation = [0.0 if cell.eval_accuracy is None else cell.eval_accuracy for cell in scored]
        panels += [
            panel(E_NET, evaluation, "test", test, hollow),
            panel(S_NET, search, E_NET, evaluation, hollow),
        ]
    return panels


AXES = {S_NET: "S-Net's accuracy", E_NET: "E-Net's accuracy", "test": "true test accuracy"}


def _caption(pair: Pair) -> str:
    if pair.correlation is None:
        return ""
    over = "" if pair.over == ALL else "met: "
    kendall, spearman = pair.correlation.kendall.value, pair.correlation.spearman.value
    return f"{over}\u03c4 {kendall:.2f}, \u03c1 {spearman:.2f} (n {pair.correlation.num_things})"


COMMAND = Correlate
