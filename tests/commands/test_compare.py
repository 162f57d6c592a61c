"""`cdarts compare`: what is compared, that it can be stopped and goes on, what its table says."""

import csv
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdarts import zoo
from cdarts.algorithms import CyclicConfig
from cdarts.benchmarks.nasbench201 import DATASETS, Table
from cdarts.benchmarks.published import PUBLISHED
from cdarts.cli import COMMANDS
from cdarts.commands import many_runs as module
from cdarts.commands.compare import VARIANTS, Compare, Variant, method_names, method_settings
from cdarts.commands.many_runs import parse_seeds
from cdarts.commands.search import Search
from cdarts.engine.run_dir import read_json
from cdarts.engine.runtime import Interrupted
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS
from cdarts.protocols import PROTOCOLS
from cdarts.report.comparison import FIXED, NOT_RUN, ON_TABLE, RUN, Comparison, Found, fixed_rows, rows_of, to_markdown
from cdarts.spaces import ToySpace

Call = Callable[..., Any]

TINY = replace(
    PROTOCOLS["nasbench201-small"], data="digits", image_size=None, channels=2, batch_size=128, epochs=4, still_epochs=1
)
"""A search of about two seconds beside its start."""

METHODS, SEEDS = ("cdarts", "cdarts-no-feedback"), (10, 11)


def diverging(settings: Search) -> Search:
    assert isinstance(settings.algorithm, CyclicConfig)
    weights = replace(settings.algorithm.search_weights, lr=1e30, clip_norm=None)
    return replace(settings, algorithm=replace(settings.algorithm, search_weights=weights))


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROTOCOLS, "tiny", TINY)
        patch.setitem(VARIANTS, "cdarts-diverging", Variant("cdarts", diverging))
        yield


def compare(out: Path, data: Path, methods: tuple[str, ...] = METHODS, **fields: Any) -> Compare:
    settings = {"protocol": "tiny", "seeds": "10-11", "jobs": 2, "device": "cpu", "table": data / "nasbench201.csv.gz"}
    return Compare(**{**settings, "methods": ",".join(methods), "out": out, **fields})  # type: ignore[arg-type]


def states(out: Path) -> dict[str, str]:
    """State of each run that has begun, by METHOD/seed-N."""
    files = sorted(out.glob("*/seed-*/status.json"))
    return {str(file.parent.relative_to(out)): read_json(file)["state"] for file in files}


@pytest.fixture(scope="module")
def stopped(cdarts_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Interrupted]:
    """A comparison that a signal has stopped while its first runs were learning, and what it raised."""
    out = tmp_path_factory.mktemp("compare") / "out"

    def stop() -> None:
        while not list(out.glob("*/seed-*/metrics.jsonl")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises(Interrupted) as raised:
        compare(out, cdarts_data).run()
    thread.join()
    assert (out / "comparison.json").is_file() and not (out / "table.md").exists()
    return out, raised.value


@pytest.fixture(scope="module")
def compared(stopped: tuple[Path, Interrupted], cdarts_data: Path) -> Path:
    """The same, gone on to its end, with a method more."""
    out, _ = stopped
    # where the run that was stopped had got to
    begun = {path: path.read_bytes() for path in out.glob("*/seed-*/metrics.jsonl")}
    assert compare(out, cdarts_data, (*METHODS, "table-random"), seeds="11,10").run() == 0
    for path, first in begun.items():
        assert path.read_bytes().startswith(first[: first.rfind(b"\n") + 1])
    return out


# -- stopped and gone on with ------------------------------------------------------------------------------------------


def test_a_signal_stops_the_runs_where_they_can_be_resumed(stopped: tuple[Path, Interrupted]) -> None:
    out, error = stopped
    assert error.exit_code == 143
    assert f"go on: cdarts compare --protocol tiny --methods {','.join(METHODS)} --seeds 10-11 --out {out}" in str(
        error
    )
    assert "interrupted" in states(out).values()
    assert set(states(out).values()) <= {"interrupted", "done"}
    for seed in SEEDS:
        for method in METHODS:
            assert (out / method / f"seed-{seed}" / "config.json").is_file()


def test_the_execution_is_that_of_all_searches_and_stands_in_the_command(
    compared: Path, cdarts_data: Path, tmp_path: Path
) -> None:
    written = read_json(compared / METHODS[0] / "seed-10" / "config.json")["settings"]["execution"]
    assert f"execution {written}, cpu" in (compared / "table.md").read_text()
    other = "plain" if written != "plain" else "share"
    with pytest.raises(ConfigurationError, match=r"\(execution\)"):
        compare(compared, cdarts_data, execution=other).run()
    on_table = compare(tmp_path / "table", cdarts_data, ("table-random",), execution=other, only_table=True)
    assert on_table.run() == 0  # nothing of it needs to be done before
    assert f"--execution {other}" in (tmp_path / "table" / "table.md").read_text()


def test_each_run_is_an_ordinary_one(compared: Path, results: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    """Stopped, resumed, in a process of its own beside others: the same bits as a plain search."""
    assert {name for name, state in states(compared).items() if state == "done"} == {
        f"{method}/seed-{seed}" for method in METHODS for seed in SEEDS
    }
    algorithm = PRESETS["cdarts-nasbench201"].under(TINY)
    Search(algorithm=algorithm, preset="x", data="digits", seed=10, out=tmp_path / "run", threads=1, device="cpu").run()
    plain, ours = results(tmp_path / "run"), results(compared / "cdarts" / "seed-10")
    assert ours["state"] == plain["state"]
    assert ours["genotypes.jsonl"] == plain["genotypes.jsonl"]


def test_what_each_run_used_is_kept(compared: Path) -> None:
    for method in METHODS:
        for seed in SEEDS:
            used = read_json(compared / method / f"seed-{seed}" / "resources.json")
            assert used["wall_seconds"] > 0
            # Python and torch alone take more than this
            assert used["peak_memory_bytes"] > 100 * 2**20


def test_going_on_when_all_is_done_searches_nothing(
    compared: Path, cdarts_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in compared.glob("*/seed-*/*")}
    assert compare(compared, cdarts_data, seeds="10").run() == 0
    assert {path: path.stat().st_mtime_ns for path in compared.glob("*/seed-*/*")} == before
    output = capsys.readouterr().out
    assert f"runs    2 in {compared}, 2 of them done already" in output
    assert "| a random cell " in output  # the best of one
    # the table of the other tests
    compare(compared, cdarts_data, (*METHODS, "table-random"), seeds="11,10").run()


def test_only_the_table_of_what_is_done(compared: Path, cdarts_data: Path) -> None:
    made = sorted(compared.glob("*/*"))
    both = replace(compare(compared, cdarts_data, seeds="10,12"), only_table=True)
    assert both.run() == 0
    rows = [row for row in read_json(compared / "table.json")["rows"] if row["name"] in METHODS]
    assert [row["num_seeds"] for row in rows] == [1, 1]
    with pytest.raises(ConfigurationError, match="no search of these methods and seeds is done"):
        replace(both, seeds="12").run()
    assert sorted(compared.glob("*/*")) == made
    # the table of the other tests
    compare(compared, cdarts_data, (*METHODS, "table-random"), seeds="11,10").run()


def test_another_protocol_is_refused(compared: Path, cdarts_data: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROTOCOLS, "tiny", replace(TINY, epochs=5))
        with pytest.raises(ConfigurationError, match=r"was begun with another protocol, tiny \(other: epochs\)"):
            compare(compared, cdarts_data).run()
    with pytest.raises(ConfigurationError, match="begun with another protocol, tiny"):
        compare(compared, cdarts_data, protocol="nasbench201-small").run()


def test_a_method_that_has_changed_is_refused(compared: Path, cdarts_data: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        changed = replace(PRESETS["cdarts-nasbench201"], temperature=3.0)  # type: ignore[type-var]
        patch.setitem(PRESETS, "cdarts-nasbench201", changed)
        with pytest.raises(ConfigurationError, match=r"seed-10 was begun with other settings .* \(algorithm\)"):
            compare(compared, cdarts_data).run()


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_says_what_the_benchmark_says(compared: Path, cdarts_data: Path) -> None:
    compare(compared, cdarts_data, (*METHODS, "table-random"), seeds="11,10").run()
    table = Table.load(cdarts_data / "nasbench201.csv.gz")
    told = json.loads((compared / "table.json").read_text())
    rows = {(row["name"], row["kind"]): row for row in told["rows"]}
    for method in METHODS:
        genotypes = {seed: zoo.find(str(compared / method / f"seed-{seed}")) for seed in SEEDS}
        row = rows[method, RUN]
        for name in DATASETS:
            results = [table.result(genotypes[seed], name) for seed in SEEDS]
            figures = row["figures"][name]
            assert figures["test"]["mean"] == pytest.approx(np.mean([result.test_200 for result in results]))
            assert figures["test"]["std"] == pytest.approx(np.std([result.test_200 for result in results], ddof=1))
            assert figures["validation"]["mean"] == pytest.approx(np.mean([result.val_200 for result in results]))
            assert figures["percentile"] == pytest.approx(np.mean([result.percentile for result in results]))
            assert figures["regret"] == pytest.approx(np.mean([result.test_regret for result in results]))
        scores = {seed: table.result(genotypes[seed], "cifar10").test_200 for seed in SEEDS}
        assert (row["worst"], row["num_seeds"]) == (min(scores.values()), 2)
        assert scores[row["worst_seed"]] == row["worst"]
        assert row["seconds"] > 0 and row["peak_memory_bytes"] > 0
    assert rows["cdarts", RUN]["test"] is None
    assert rows["cdarts-no-feedback", RUN]["test"]["floor"] == 0.5
    on_table = rows["table-random", ON_TABLE]
    assert on_table["seconds"] is None and on_table["simulated_seconds"] > 12_000
    assert [search["seed"] for search in told["searches"]] == [11, 10] * 3
    with (compared / "table.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert [record["method"] for record in records] == [row["name"] for row in told["rows"]]
    assert float(records[0]["c10_test_mean"]) == pytest.approx(
        rows["cdarts", RUN]["figures"]["cifar10"]["test"]["mean"], abs=1e-4
    )


def test_it_ends_with_a_page_of_its_runs(compared: Path) -> None:
    page = (compared / "report.html").read_text()
    assert "True test accuracy" in page
    for search in json.loads((compared / "table.json").read_text())["searches"]:
        if search["seconds"] is not None:
            assert f"{search['results']['cifar10']['test']:.2f} %" in page


def test_a_run_that_fails_is_told_and_counts_nowhere(
    compared: Path, cdarts_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(compared, cdarts_data, ("cdarts", "cdarts-diverging"), seeds="10").run() == 0
    output = capsys.readouterr().out
    assert "cdarts-diverging seed 10 failed after" in output
    told = json.loads((compared / "table.json").read_text())
    (failure,) = told["failures"]
    assert (failure["method"], failure["seed"]) == ("cdarts-diverging", 10)
    assert "nan" in failure["message"] or "finite" in failure["message"] or "inf" in failure["message"]
    assert "cdarts-diverging" not in {row["name"] for row in told["rows"]}
    assert f"- failed: cdarts-diverging, seed 10: {failure['message']}" in (compared / "table.md").read_text()


def test_searches_on_the_table_alone_need_no_process(
    tmp_path: Path, cdarts_data: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "compare", "")
    monkeypatch.setenv("CDARTS_NASBENCH201", str(cdarts_data / "nasbench201.csv.gz"))
    methods = "table-random,table-regularized-evolution"
    result = call("compare", "--protocol", "tiny", "--methods", methods, "--seeds", "0-4", "--out", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "comparison.json",
        "table.csv",
        "table.json",
        "table.md",
    ]
    lines = result.out.splitlines()
    assert lines[0].endswith(f"compare  protocol tiny  methods {methods}  seeds 0-4")
    assert "12," in next(line for line in lines if line.startswith("| table-random")) and "simulated" in result.out


def test_fixed_rows(cdarts_data: Path) -> None:
    table = Table.load(cdarts_data / "nasbench201.csv.gz")
    optimum, resnet, convolutions, luck = fixed_rows(table, 4)
    tests = [round(optimum.figures[name].test.mean, 2) for name in DATASETS]
    assert tests == [94.37, 73.51, 47.31]
    assert round(resnet.figures["cifar10"].test.mean, 2) == 93.91
    assert [round(convolutions.figures[name].test.mean, 2) for name in DATASETS] == [93.76, 71.11, 41.44]
    # by simulation
    draw = np.random.default_rng(0)
    cells = draw.integers(15_625, size=(20_000, 4))
    validation, test = (table.accuracies("cifar10", split, 200) for split in ("val", "test"))  # type: ignore[arg-type]
    best = cells[np.arange(len(cells)), validation[cells].argmax(axis=1)]
    figures = luck.figures["cifar10"]
    assert luck.name == "best of 4 random cells"
    assert figures.test.mean == pytest.approx(test[best].mean(), abs=0.06)
    assert figures.test.std == pytest.approx(test[best].std(), abs=0.2)
    assert figures.regret == pytest.approx(test.max() - test[best].mean(), abs=0.06)
    results = [table.result(table.genotype(int(index)), "cifar10").percentile for index in best[:2000]]
    assert figures.percentile == pytest.approx(np.mean(results), abs=1.5)


def test_eight_seeds_and_the_test_against_cdarts(cdarts_data: Path) -> None:
    """One method finds the optimum on every seed, the other the collapsed cell: no p can be smaller."""
    table = Table.load(cdarts_data / "nasbench201.csv.gz")
    cells = {
        "cdarts": table.genotype(13_714),
        "darts": zoo.find(
            "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
        ),
    }
    found = [Found(name, seed, cell, seconds=1.0) for name, cell in cells.items() for seed in range(8)]
    found = [search for search in found if (search.method, search.seed) != ("darts", 3)]
    rows = {(row.name, row.kind): row for row in rows_of(found, table, 8, np.random.default_rng(0))}
    darts = rows["darts", RUN]
    assert darts.test is not None
    assert (darts.test.p_value, darts.test.floor, darts.test.num_pairs) == (2 / 2**7, 2 / 2**7, 7)
    assert round(darts.figures["cifar10"].test.mean, 2) == 54.30
    assert (rows["cdarts", RUN].num_seeds, darts.num_seeds) == (8, 7)
    markdown = to_markdown(Comparison("title", ["about"], list(rows.values())))
    assert "0.01562 (floor 0.01562, n 7)" in markdown
    assert sum(NOT_RUN in line for line in markdown.splitlines()) == len(PUBLISHED)
    assert sum(f"| {FIXED} " in line for line in markdown.splitlines()) == 4
    widths = {len(line) for line in markdown.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_published_rows_are_those_of_the_papers() -> None:
    rows = {row.name: row for row in PUBLISHED}
    assert len(rows) == len(PUBLISHED)
    assert [rows["CDARTS"].test[name].mean for name in DATASETS] == [94.02, 71.92, 45.51]
    assert [rows["CDARTS"].validation[name].mean for name in DATASETS] == [91.12, 72.12, 45.09]
    assert [rows["DrNAS"].test[name].mean for name in DATASETS] == [94.36, 73.51, 46.34]
    for row in PUBLISHED:
        assert row.test.keys() == DATASETS.keys()
        assert row.source
        # nobody is better than the best cell, as NATS-Bench rounds it
        for name, best in zip(DATASETS, (94.38, 73.52, 47.32), strict=True):
            assert row.test[name].mean < best


# -- words -------------------------------------------------------------------------------------------------------------


def test_seeds() -> None:
    assert parse_seeds("10-13") == [10, 11, 12, 13]
    assert parse_seeds("10,11, 20-21") == [10, 11, 20, 21]
    for text in ("", "a", "13-10", "1-", "-3", "1,,2", "1.5", "0-10000", "1,1", "1-3,2"):
        with pytest.raises(ConfigurationError, match="--seeds"):
            parse_seeds(text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"methods": "cdarts,drats"}, "--methods drats: there is none of that name"),
        ({"methods": "cdarts,cdarts"}, "--methods cdarts,cdarts: name one or more methods, each once"),
        ({"methods": ""}, "--methods : name one or more methods"),
        ({"methods": "cdarts-nasbench201"}, "Did you mean"),
        ({"protocol": "nasbench201-smal"}, "--protocol nasbench201-smal: .* Did you mean nasbench201-small?"),
        ({"seeds": "x"}, "--seeds x: write 10-13 or 10,11,20"),
        ({"jobs": 0}, "--jobs 0: must be at least 1"),
    ],
)
def test_wrong_words_leave_nothing_behind(tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Compare(**{"out": tmp_path / "out", "methods": "cdarts", **flags}).run()
    assert not (tmp_path / "out").exists()


def test_a_protocol_needs_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "toy", replace(TINY, space=ToySpace()))
    with pytest.raises(ConfigurationError, match="--protocol toy: searches space toy; there is a table of nasbench201"):
        Compare(protocol="toy", methods="cdarts", out=tmp_path / "out").run()


def test_methods_take_their_preset_for_the_space() -> None:
    assert not any(name.endswith("-nasbench201") for name in method_names())
    algorithm, change = method_settings("cdarts-paper", TINY)
    assert algorithm == PRESETS["cdarts-paper-nasbench201"].under(TINY)
    settings = Search(algorithm=algorithm)
    assert change(settings) == settings


def test_every_variant_differs_from_its_method_in_one_thing() -> None:
    changes: dict[str, dict[str, Any]] = {
        "cdarts-no-feedback": {"feedback_weight": 0.0, "teaching_weight": 0.0},
        "cdarts-prior-only": {"prior_only": True},
    }
    for name, values in changes.items():
        algorithm, change = method_settings(name, TINY)
        changed = change(Search(algorithm=algorithm))
        assert changed.algorithm == replace(algorithm, **values)  # type: ignore[type-var]
        assert changed == replace(Search(algorithm=algorithm), algorithm=changed.algorithm)
    algorithm, change = method_settings("cdarts-shuffled-labels", TINY)
    assert change(Search(algorithm=algorithm)) == Search(algorithm=algorithm, shuffled_labels=True)


def test_jobs_follow_the_machine() -> None:
    assert module.default_jobs("cuda") == 1
    assert module.default_jobs("cpu") >= 1
