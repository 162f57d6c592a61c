"""`cdarts ablate`: rows differ in what they say, tables and plots hold what the runs gave, nothing is done twice."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from cdarts import ablations
from cdarts.ablations import Setting, difference
from cdarts.algorithms import CyclicConfig
from cdarts.benchmarks.nasbench201 import Table
from cdarts.cli import COMMANDS
from cdarts.commands.ablate import (
    ABLATIONS,
    Ablate,
    Components,
    Correlation,
    Depth,
    Epochs,
    cells_by_epoch,
    learning_epochs,
)
from cdarts.commands.search import Search
from cdarts.data import load
from cdarts.engine.run_dir import read_json, read_last_state, read_snapshot
from cdarts.errors import CheckpointError, ConfigurationError
from cdarts.presets import preset_under
from cdarts.protocols import PROTOCOLS, RETRAININGS
from cdarts.report.ablation import Ablation, Measured, Metric, RowSpec, rows_of, to_csv, to_markdown
from cdarts.report.spread_plots import PlotRow, SeedValue, Series, SpreadPanel, curve_plot, near, row_plot
from cdarts.spaces import ToySpace
from cdarts.topology import read_genotype

Call = Callable[..., Any]

TINY = replace(
    PROTOCOLS["nasbench201-small"],
    data="synthetic",
    image_size=None,
    channels=2,
    batch_size=32,
    epochs=4,
    still_epochs=1,
)
TINY_DARTS = replace(
    PROTOCOLS["darts-small"],
    data="synthetic",
    image_size=None,
    channels=2,
    cells=2,
    batch_size=32,
    epochs=3,
    still_epochs=1,
)
TINY_RETRAINING = replace(RETRAININGS["darts-small"], cells=2, channels=2, epochs=2, batch_size=32, evaluate_every=2)
SEEDS = (10, 11)
MARKS = ("circle", "polygon")
"""Of seeds within a plot's frame, and beyond it."""
PROTOCOL_NAMES = [*PROTOCOLS]


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROTOCOLS, "tiny", TINY)
        patch.setitem(PROTOCOLS, "tiny-darts", TINY_DARTS)
        patch.setitem(RETRAININGS, "tiny-darts", TINY_RETRAINING)
        yield


def flags(out: Path, data: Path | None = None, **fields: Any) -> dict[str, Any]:
    table = None if data is None else data / "nasbench201.csv.gz"
    return {"protocol": "tiny", "seeds": "10-11", "jobs": 2, "device": "cpu", "table": table, "out": out, **fields}


# -- rows --------------------------------------------------------------------------------------------------------------


def every_list() -> dict[str, list[Setting]]:
    return {
        f"{name} {kind}": settings
        for name in PROTOCOL_NAMES
        for kind, settings in (
            ("components", ablations.components(PROTOCOLS[name])),
            *(
                (f"{kind.__name__} {preset}", kind(PROTOCOLS[name], preset))
                for kind in (ablations.depth, ablations.epochs)
                for preset in ("cdarts", "cdarts-paper", "cdarts-official")
            ),
        )
    }


@pytest.mark.parametrize("name", every_list())
def test_every_row_differs_in_one_field_from_the_row_that_it_names(name: str) -> None:
    settings = every_list()[name]
    names = [setting.name for setting in settings]
    assert len(set(names)) == len(names)
    for setting in settings:
        changes = difference(setting, settings)
        assert len(changes) == (setting.versus is not None), setting.name
        assert setting.versus is None or setting.versus in names
        assert re.fullmatch(r"[a-z0-9-]+", setting.name) and setting.says and setting.group


def test_the_rows_of_components_are_the_presets_taken_apart() -> None:
    protocol = PROTOCOLS["nasbench201-small"]
    settings = {setting.name: setting for setting in ablations.components(protocol)}
    for name, preset in (("paper", "cdarts-paper"), ("cdarts", "cdarts")):
        assert settings[name].algorithm == preset_under(preset, protocol)
    fields = {name: list(difference(setting, list(settings.values()))) for name, setting in settings.items()}
    assert fields["joint-training"] == ["eval_training"]
    assert fields["feedback"] == ["feedback_weight"]
    assert fields["feedback-2-levels"] == fields["feedback-3-levels"] == ["feedback_levels"]
    assert fields["l1"] == ["l1_weight"] and fields["paper"] == ["inherit_weights"]
    assert fields["paper-random-paths"] == fields["cdarts-random-paths"] == ["random_topology"]
    levels = {name: settings[f"paper-no-{name}"].algorithm for name in ("level-0", "level-1", "final-logits")}
    assert [config.feedback_levels for config in levels.values()] == [(1, 2), (0, 2), (0, 1)]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", every_list())
def test_every_row_is_a_search_that_can_be(name: str) -> None:
    for setting in every_list()[name]:
        setting.algorithm.check(load("synthetic"))


def test_numbers_are_what_rows_say() -> None:
    protocol = PROTOCOLS["nasbench201-small"]
    depths = ablations.depth(protocol, "cdarts")
    assert [setting.algorithm.eval_cells for setting in depths] == [2, 3, 5, 8, 12, 20]  # type: ignore[union-attr]
    assert [setting.position for setting in depths] == [2, 3, 5, 8, 12, 20]
    lengths = ablations.epochs(protocol, "cdarts")
    assert [setting.name for setting in lengths] == [f"{n}-epochs" for n in (6, 12, 18, 24, 36, 48)]
    for setting in lengths:
        config = setting.algorithm
        assert isinstance(config, CyclicConfig)
        assert config.pretrain_epochs + config.cycles * config.joint_epochs == setting.position


# -- components, on the table ------------------------------------------------------------------------------------------

ROWS = ("separate", "joint-training", "cdarts")


@pytest.fixture(scope="module")
def taken_apart(cdarts_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablate") / "out"
    # in another order than their own, and with a row less at first
    assert Components(**flags(out, cdarts_data, rows="joint-training,separate")).run() == 0
    before = stamps(out)
    assert Components(**flags(out, cdarts_data, rows=",".join(ROWS))).run() == 0
    assert before.items() <= stamps(out).items()
    return out


def lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


def stamps(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob("*/seed-*/**/*") if path.is_file()}


def test_the_table_holds_what_the_runs_found(taken_apart: Path, cdarts_data: Path) -> None:
    told = read_json(taken_apart / "table.json")
    table = Table.load(cdarts_data / "nasbench201.csv.gz")
    assert [row["spec"]["name"] for row in told["rows"]] == list(ROWS)
    for row in told["rows"]:
        name = row["spec"]["name"]
        found = [read_genotype(taken_apart / name / f"seed-{seed}" / "genotype.json") for seed in SEEDS]
        tests = [table.result(genotype, "cifar10").test_200 for genotype in found]
        assert row["figures"]["c10_test"]["mean"] == pytest.approx(np.mean(tests))
        assert row["figures"]["c10_test"]["std"] == pytest.approx(np.std(tests, ddof=1))
        assert (row["worst"], row["seeds"]) == (min(tests), list(SEEDS))
        assert tests[SEEDS.index(row["worst_seed"])] == min(tests)
        validation = [table.result(genotype, "cifar10").val_200 for genotype in found]
        assert row["figures"]["validation"]["mean"] == pytest.approx(np.mean(validation))
    with (taken_apart / "table.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert [(record["row"], int(record["seed"])) for record in records] == [
        (row, seed) for row in ROWS for seed in SEEDS
    ]
    assert records[2]["difference"] == "eval_training on, not off" and records[2]["against"] == "separate"
    text = (taken_apart / "table.md").read_text()
    execution = read_json(taken_apart / "cdarts" / "seed-10" / "config.json")["settings"]["execution"]
    assert f"execution {execution}, cpu, 1 thread a search" in text
    assert "eval_training on, not off" in text and "cdarts ablate components --protocol tiny" in text
    assert "- `cdarts`: the default preset, whole" in text


def test_an_evaluation_network_that_teaches_nothing_moves_nothing(taken_apart: Path) -> None:
    """S-Net and alpha take the same steps whether E-Net learns beside them or not."""
    for seed in SEEDS:
        apart, joint = (taken_apart / row / f"seed-{seed}" for row in ("separate", "joint-training"))
        strengths = [[line["strengths"] for line in lines(run / "genotypes.jsonl")] for run in (apart, joint)]
        assert strengths[0] == strengths[1]
        assert any("eval_loss" in line for line in lines(joint / "metrics.jsonl"))
        assert not any("eval_loss" in line for line in lines(apart / "metrics.jsonl"))
    gain = {row["spec"]["name"]: row["gain"] for row in read_json(taken_apart / "table.json")["rows"]}
    assert gain["joint-training"] == {"mean": 0.0, "std": 0.0} and gain["separate"] is None


def test_the_plot_has_a_point_for_every_seed(taken_apart: Path) -> None:
    root = ElementTree.parse(taken_apart / "plot.svg").getroot()
    marks = [element for element in root.iter() if element.tag.rpartition("}")[2] in MARKS]
    assert len(marks) == len(ROWS) * len(SEEDS)
    told = read_json(taken_apart / "table.json")
    labels = [mark[0].text for mark in marks]
    assert labels == [f"{run['row']}, seed {run['seed']}: {run['values']['c10_test']:.4g}" for run in told["runs"]]


def test_going_on_when_all_is_done_searches_nothing(
    taken_apart: Path, cdarts_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamps(taken_apart)
    assert Components(**flags(taken_apart, cdarts_data, rows=",".join(ROWS))).run() == 0
    assert stamps(taken_apart) == before
    assert f"runs    6 in {taken_apart}, 6 of them done already" in capsys.readouterr().out


def test_another_protocol_or_ablation_is_not_mixed_in(taken_apart: Path, cdarts_data: Path) -> None:
    with pytest.raises(ConfigurationError, match="was begun with another protocol"):
        Depth(**flags(taken_apart, cdarts_data)).run()
    with pytest.raises(ConfigurationError, match="was begun with another protocol"):
        Components(**flags(taken_apart, cdarts_data, protocol="nasbench201-small")).run()


def test_all_rows_have_the_execution_that_is_asked_for(taken_apart: Path, tmp_path: Path, cdarts_data: Path) -> None:
    command = Components(**flags(tmp_path / "out", cdarts_data, rows="separate", execution="share"))
    assert {run.settings.execution for run in command.searches(command.chosen(TINY), SEEDS, TINY, tmp_path)} == {
        "share"
    }
    assert "--execution share" in command.how_to_go_on(tmp_path)
    there = read_json(taken_apart / "separate" / "seed-10" / "config.json")["settings"]["execution"]
    other = "plain" if there != "plain" else "share"
    with pytest.raises(ConfigurationError, match=r"other settings than separate has now \(execution\)"):
        Components(**flags(taken_apart, cdarts_data, rows="separate", execution=other)).run()


@pytest.mark.parametrize(
    ("phases", "positions"),
    [
        (["pretrain", "warmup", "joint", "joint", "warmup", "joint"], [1, 3, 4, 6]),
        (["still", "search", "search"], [1, 2, 3]),
        (["train", "train", "select"], [1, 2]),
    ],
)
def test_epochs_in_which_the_search_network_learns(phases: list[str], positions: list[int]) -> None:
    assert learning_epochs(phases) == positions


def test_a_run_begun_with_other_settings_is_not_gone_on_with(taken_apart: Path, cdarts_data: Path) -> None:
    config = taken_apart / "separate" / "seed-10" / "config.json"
    kept = config.read_text()
    try:
        config.write_text(kept.replace('"feedback_weight": 0.0', '"feedback_weight": 2.0'))
        with pytest.raises(ConfigurationError, match=r"other settings than separate has now \(algorithm\)"):
            Components(**flags(taken_apart, cdarts_data, rows="separate")).run()
    finally:
        config.write_text(kept)


# -- the others --------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_the_rows_and_writes_nothing(
    tmp_path: Path, cdarts_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert Depth(**flags(out, cdarts_data, rows="2-cells,3-cells", dry_run=True)).run() == 0
    printed = capsys.readouterr().out
    assert not out.exists()
    assert "row     2-cells: 2 of 2 to do" in printed and "against 3-cells: eval_cells 2, not 3" in printed
    assert "time    at most" in printed and "with 2 at a time" in printed


def test_epochs_reads_the_longest_search_at_each_epoch_of_alpha(tmp_path: Path, cdarts_data: Path) -> None:
    out = tmp_path / "out"
    assert Epochs(**flags(out, cdarts_data, rows="3-epochs,4-epochs", seeds="10")).run() == 0
    rows = {row["spec"]["name"]: row for row in read_json(out / "table.json")["rows"]}
    assert list(rows) == ["3-epochs", "4-epochs", *(f"after-{epoch}" for epoch in (2, 3, 4))]  # still in the first
    # its last epoch's cell is what it found
    assert rows["after-4"]["figures"] == rows["4-epochs"]["figures"]
    cells = dict(cells_by_epoch(out / "4-epochs" / "seed-10"))
    assert list(cells) == [2, 3, 4]
    table = Table.load(cdarts_data / "nasbench201.csv.gz")
    for epoch, genotype in cells.items():
        assert rows[f"after-{epoch}"]["worst"] == table.result(genotype, "cifar10").test_200
    assert rows["3-epochs"]["spec"]["changes"] == {"cycles": [2, 3]}
    root = ElementTree.parse(out / "plot.svg").getroot()
    assert sum(len(list(root.iter(f"{{http://www.w3.org/2000/svg}}{kind}"))) for kind in MARKS) == 2 * 5


@pytest.mark.slow
def test_in_the_darts_space_cells_are_retrained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = Depth(**flags(out, protocol="tiny-darts", rows="2-cells,3-cells", seeds="10"))
    assert replace(command, dry_run=True).run() == 0
    assert "retrain 2 of 2 to do" in capsys.readouterr().out
    assert command.run() == 0
    before = stamps(out)
    told = read_json(out / "table.json")
    for run in told["runs"]:
        trained = out / run["row"] / f"seed-{run['seed']}-retrained"
        summary = read_json(trained / "summary.json")
        assert run["values"] == {
            "test": 100 * summary["test_accuracy"],
            "parameters": summary["parameters"] / 1e6,
        }
        assert run["genotype"] == summary["genotype"]
        config = read_json(trained / "config.json")["settings"]
        assert (config["training"]["epochs"], config["seed"], config["data"]) == (2, 10, "synthetic")
    assert command.run() == 0
    assert stamps(out) == before


@pytest.fixture(scope="module")
def correlated(cdarts_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("correlation") / "out"
    assert Correlation(**flags(out, cdarts_data, rows="cdarts,darts", seeds="10", cells=12, images=32)).run() == 0
    return out


def test_correlation_asks_networks_on_the_way(
    correlated: Path, cdarts_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {row["spec"]["name"]: row for row in read_json(correlated / "table.json")["rows"]}
    run = correlated / "cdarts" / "seed-10"
    assert [row["spec"]["group"].split(":")[0] for row in rows.values()] == ["cdarts"] * 4 + ["darts"] * 4
    assert list(rows) == [f"{name}-{share}" for name in ("cdarts", "darts") for share in (25, 50, 75, 100)]
    # 7 epochs: one of S-Net, three cycles of E-Net's warm-up and a joint one
    assert sorted(path.name for path in (run / "snapshots").iterdir()) == [
        f"epoch-000{epoch}.safetensors" for epoch in (1, 3, 5)
    ]
    end = read_json(run / "correlation" / "cells-12-images-32-end" / "correlation.json")
    taus = {
        (pair["first"], pair["second"], pair["over"]): pair["kendall"] and pair["kendall"]["value"]
        for pair in end["correlations"]
    }
    figures = rows["cdarts-100"]["figures"]
    shown = {key: figure and figure["mean"] for key, figure in figures.items()}
    assert shown["s_net"] == taus["S-Net", "test", "all cells"]
    assert shown["s_net_e_net"] == taus["S-Net", "E-Net", "all cells"]
    assert shown["met_cells"] == end["coverage"]["wholly_met_cells"]
    assert rows["darts-100"]["figures"]["e_net"] is rows["darts-100"]["figures"]["met_cells"] is None  # it has no E-Net
    assert (end["seed"], end["cells"]) == (10, 12)  # other cells for other seeds
    before = stamps(correlated)
    command = Correlation(**flags(correlated, cdarts_data, rows="cdarts,darts", seeds="10", cells=12, images=32))
    assert command.run() == 0
    assert stamps(correlated) == before
    assert "scores  8 networks, 8 of them scored already" in capsys.readouterr().out
    assert replace(command, cells=13, dry_run=True).run() == 0
    assert "scores  8 networks to score" in capsys.readouterr().out


def test_a_snapshot_is_the_state_after_its_epoch(correlated: Path, tmp_path: Path) -> None:
    """The same search, stopped there by a shorter journal: what the loop's checkpoint would hold."""
    run = correlated / "cdarts" / "seed-10"
    last, kept = read_last_state(run), read_snapshot(run, 5)
    assert kept.keys() == last.keys() and kept["cycle"] == 1 and last["cycle"] == 2
    with pytest.raises(CheckpointError, match="did not keep epoch 4 with --snapshots"):
        read_snapshot(run, 4)
    settings = read_json(run / "config.json")["settings"]
    assert settings["snapshots"] == [1, 3, 5]
    search = Search(
        algorithm=preset_under("cdarts", TINY), data="synthetic", seed=10, threads=1, device="cpu", out=tmp_path / "run"
    )
    with pytest.raises(ConfigurationError, match="--snapshots 8: the plan has epochs 1 to 7"):
        replace(search, snapshots=(8,)).run()
    assert not (tmp_path / "run").exists()
    # keeping it changes nothing
    assert search.run() == 0
    assert (tmp_path / "run" / "genotype.json").read_bytes() != b""
    assert read_genotype(tmp_path / "run" / "genotype.json").text() == read_genotype(run / "genotype.json").text()


def test_what_failed_is_told_and_counts_nowhere(
    tmp_path: Path, cdarts_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging = replace(preset_under("cdarts", TINY), alpha_decay=1e37)  # type: ignore[call-arg]
    settings = [
        Setting(name=name, group="group", preset="cdarts", algorithm=algorithm, says="says", versus=versus)
        for name, algorithm, versus in (
            ("good", preset_under("cdarts", TINY), None),
            ("bad", replace(diverging, search_weights=replace(diverging.search_weights, lr=1e30)), "good"),  # type: ignore[attr-defined]
        )
    ]
    monkeypatch.setattr(ablations, "components", lambda _: settings)
    out = tmp_path / "out"
    assert Components(**flags(out, cdarts_data, seeds="10")).run() == 0
    told = read_json(out / "table.json")
    assert [row["spec"]["name"] for row in told["rows"]] == ["good"]
    (failure,) = told["failures"]
    assert (failure["row"], failure["seed"]) == ("bad", 10) and failure["message"]
    assert f"- failed: bad, seed 10: {failure['message']}" in (out / "table.md").read_text()


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Components, {"rows": "seperate"}, "--rows seperate: there is none of that name. Did you mean separate?"),
        (Components, {"rows": "paper,paper"}, "--rows paper,paper: name one or more rows, each once"),
        (Components, {"protocol": "nasbench201-smal"}, "--protocol nasbench201-smal: .* Did you mean"),
        (Components, {"seeds": "x"}, "--seeds x: write 10-13 or 10,11,20"),
        (Components, {"jobs": 0}, "--jobs 0: must be at least 1"),
        (Depth, {"preset": "darts"}, "--preset darts: only searches with an evaluation network can be varied here"),
        (Epochs, {"preset": "cdart"}, "--preset cdart: there is none of that name. There are cdarts, cdarts-paper"),
        (Correlation, {"cells": 2}, "--cells 2: must be from 3 to 15,625"),
        (Correlation, {"images": 1}, "--images 1: must be at least 2"),
        (Correlation, {"protocol": "tiny-darts"}, "--protocol tiny-darts: searches space darts; there is a table of"),
    ],
)
def test_wrong_words_leave_nothing_behind(
    tmp_path: Path, kind: type[Ablate], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kind(**flags(tmp_path / "out", **fields)).run()
    assert not (tmp_path / "out").exists()


def test_a_space_without_table_and_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "toy", replace(TINY_DARTS, space=ToySpace()))
    with pytest.raises(ConfigurationError, match="--protocol toy: there is no table of space toy, and no retraining"):
        Epochs(**flags(tmp_path / "out", protocol="toy")).run()


def test_an_untrained_teacher_is_refused() -> None:
    config = preset_under("cdarts", TINY)
    assert isinstance(config, CyclicConfig)
    with pytest.raises(ConfigurationError, match="--no-eval-training: an E-Net that has learnt nothing can teach"):
        replace(config, eval_training=False).check(load("synthetic"))
    replace(config, eval_training=False, teaching_weight=0.0).check(load("synthetic"))


def test_the_command_line_knows_them(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(COMMANDS, "ablate", "")
    assert {kind.name for kind in ABLATIONS.values()} == set(ABLATIONS)
    result = call("ablate", "depth", "--rows", "4-cells", "--out", tmp_path / "out")
    assert result.code == 2
    assert "--rows 4-cells: there is none of that name" in result.error()


# -- tables and plots --------------------------------------------------------------------------------------------------


def test_rows_are_summed_up_over_seeds() -> None:
    metrics = [Metric("a", "A"), Metric("b", "B")]
    specs = [RowSpec("one", "group", "first"), RowSpec("two", "group", "second", "one", {"x": (True, False)})]
    values = {"one": {1: 10.0, 2: 12.0, 3: 14.0}, "two": {2: 11.0, 3: 16.0, 4: None}}
    runs = [Measured(row, seed, {"a": a, "b": None}) for row, mine in values.items() for seed, a in mine.items()]
    one, two = rows_of(specs, metrics, runs, np.random.default_rng(0))
    assert one.figures["a"] is not None and (one.figures["a"].mean, one.figures["a"].std) == (12.0, 2.0)
    assert (one.figures["b"], one.gain, one.test, one.worst, one.worst_seed) == (None, None, None, 10.0, 1)
    assert two.gain is not None and two.test is not None
    assert (two.gain.mean, two.test.num_pairs, two.test.floor) == (0.5, 2, 0.5)  # seeds 2 and 3: -1 and +2
    assert (two.worst, two.worst_seed, list(two.seeds)) == (11.0, 2, [2, 3, 4])
    assert (two.counts, one.counts) == ({"a": 2, "b": 0}, {"a": 3, "b": 0})
    ablation = Ablation("title", ["about"], metrics, [one, two], runs)
    text = to_markdown(ablation)
    assert "x on, not off" in text and "+0.50 ± 2.12" in text and "12.00 ± 2.00 " in text
    assert "13.50 ± 3.54 (n 2)" in text and "1 (0.5, n 2)" in text  # one of three seeds has no value
    assert "are compared" not in text  # one comparison needs no word about many
    rows = [one, two, replace(two, spec=replace(two.spec, name="three"))]
    assert "2 rows are compared with another; no p is corrected" in to_markdown(replace(ablation, rows=rows))
    assert len(to_csv(ablation).splitlines()) == 7
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1


def test_plots_put_values_where_they_belong() -> None:
    values = [SeedValue(value, f"{value} <seed>") for value in (90.0, 92.0, 94.0)]
    root = ElementTree.fromstring(row_plot("a & b", "x", [PlotRow("row", "group", values)]))
    xs = [float(circle.get("cx", "")) for circle in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1]) and xs[0] < xs[1]
    assert "92.00 ± 2.00 (n 3)" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    series = [Series("s", [(1.0, values), (3.0, values[:1])]), Series("t", [(2.0, values[2:])])]
    root = ElementTree.fromstring(curve_plot("title", [SpreadPanel("p", "x", "y", series)] * 2))
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 2 * 5
    ys = [float(circle.get("cy", "")) for circle in circles[:3]]
    assert ys[0] > ys[1] > ys[2] and ys[0] - ys[1] == pytest.approx(ys[1] - ys[2])


def test_values_far_from_all_others_lie_beyond_the_frame() -> None:
    assert near([94.0, 93.0, 93.5, 94.2, 92.9, 54.3]) == [94.0, 93.0, 93.5, 94.2, 92.9]
    assert near([54.3]) == [54.3]
    assert near([94.0, 94.0, 94.0, 94.0, 94.0, 93.9]) == [94.0] * 5 + [93.9]  # nothing says what is far
    values = [SeedValue(value, f"seed of {value}") for value in (94.0, 93.0, 93.5, 94.2, 92.9, 54.3, 140.0)]
    panel = SpreadPanel("p", "x", "y", [Series("s", [(1.0, values), (2.0, values[:3])])])
    for drawing in (row_plot("a", "x", [PlotRow("r", "g", values)]), curve_plot("a", [panel])):
        root = ElementTree.fromstring(drawing)
        triangles = list(root.iter("{http://www.w3.org/2000/svg}polygon"))
        assert [triangle[0].text for triangle in triangles] == ["seed of 54.3", "seed of 140.0"]
        assert "triangles: seeds beyond the frame" in drawing
        ticks = [
            float(text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text") if is_number(text.text)
        ]
        assert {92.5, 93.0, 94.0} <= set(ticks) and not {60.0, 140.0} & set(ticks)
    assert "beyond the frame" not in row_plot("a", "x", [PlotRow("r", "g", values[:5])])
    collapsed = [SeedValue(value, "seed") for value in (93.0, 93.1, 93.2, 93.3, 60.0)]
    drawing = row_plot("a", "x", [PlotRow("r", "g", collapsed), PlotRow("s", "g", collapsed[:4])])
    marks = [path for path in ElementTree.fromstring(drawing).iter() if path.get("class") == "mean c0"]
    assert len(marks) == 1  # the mean of 86.5 lies beyond
    # each panel has a frame of its own
    small = [SeedValue(value, "seed") for value in (0.05, 0.051, 0.052, 0.053)]
    panels = [SpreadPanel("p", "x", "y", [Series("s", [(1.0, those)])]) for those in (collapsed, small)]
    assert "triangles: seeds beyond" in curve_plot("a", panels)
    assert "triangles: seeds beyond" not in curve_plot("a", panels[1:])


def is_number(text: str | None) -> bool:
    return re.fullmatch(r"[\d.]+", text or "") is not None


def test_a_series_has_its_colour_in_every_panel_and_bars_are_cut_at_the_frame() -> None:
    values = [SeedValue(value, "seed") for value in (54.0, 94.0, 94.0)]
    both = SpreadPanel("p", "x", "y", [Series("s", [(1.0, values)]), Series("t", [(1.0, values)])])
    root = ElementTree.fromstring(curve_plot("title", [both, replace(both, series=both.series[1:])]))
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert [circle.get("class") for circle in circles] == ["seed c0"] * 3 + ["seed c1"] * 6
    many = Series("many", [(float(position), values) for position in range(20)])
    root = ElementTree.fromstring(curve_plot("title", [SpreadPanel("p", "x", "y", [many])]))
    assert [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "band c0"]
    root = ElementTree.fromstring(row_plot("title", "x", [PlotRow("row", "group", values)]))
    (frame,) = (rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if rect.get("class") == "frame")
    left, right = float(frame.get("x", "")), float(frame.get("x", "")) + float(frame.get("width", ""))
    (bar,) = (path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "bar c0")
    ends = re.match(r"M([\d.]+) [\d.]+H([\d.]+)(.*)", bar.get("d", ""))
    assert ends is not None and left < float(ends[1]) and float(ends[2]) == right
    assert ends[3].count("v8") == 1  # 80.67 + 23.09 lies beyond 100
