"""`cdarts correlate`: scores equal those of networks built by hand, the run is only read, figures equal SciPy's."""

import csv
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from scipy import stats

from cdarts.algorithms import CyclicConfig, DartsConfig, scoring
from cdarts.algorithms.cyclic import CyclicSearch
from cdarts.algorithms.sampling import unaugmented
from cdarts.algorithms.scoring import ScoredCell, score_cells, search_network
from cdarts.benchmarks.nasbench201 import Table
from cdarts.cli import COMMANDS
from cdarts.commands.correlate import MET, Correlate, correlations, finished_search
from cdarts.commands.search import Search
from cdarts.data import load
from cdarts.engine.run_dir import read_json, read_last_state
from cdarts.errors import CheckpointError, ConfigurationError, DataError
from cdarts.networks import Network
from cdarts.presets import PRESETS
from cdarts.spaces import DartsSpace, NasBench201Space
from cdarts.topology import Genotype, genotype_from_json, parse_arch_string

Call = Callable[..., Any]

SPACE = NasBench201Space()
CELLS = 12


@pytest.fixture(scope="module")
def config() -> CyclicConfig:
    preset = PRESETS["cdarts-nasbench201"]
    assert isinstance(preset, CyclicConfig)
    return replace(
        preset, channels=2, search_cells=3, eval_cells=3, batch_size=8, pretrain_epochs=1, cycles=3, mean_nodes=True
    )


def searched(config: CyclicConfig | DartsConfig, out: Path, data: Path) -> Path:
    settings = Search(algorithm=config, preset="tiny", data=str(data), out=out, threads=1, device="cpu", seed=4)
    assert settings.run() == 0
    return out


@pytest.fixture(scope="module")
def run(config: CyclicConfig, few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(config, tmp_path_factory.mktemp("correlate") / "run", few_digits)


@pytest.fixture(scope="module")
def restored(run: Path) -> CyclicSearch:
    settings = finished_search(run)
    task = settings.build(settings.load_data(), torch.device("cpu"))
    task.load_state(read_last_state(run))
    assert isinstance(task, CyclicSearch)
    return task


def bytes_of(run: Path) -> dict[str, str]:
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith("correlation.")]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def silent(done: int) -> None:
    assert done > 0


def hit_rate(network: Network, search: CyclicSearch, weights: dict[str, torch.Tensor] | None = None) -> float:
    """Percent right on the val half, batch by batch."""
    hits = [network(images, weights).logits.argmax(dim=1) == labels for images, labels in unaugmented(search.val)(0)]
    return 100 * torch.cat(hits).double().mean().item()


def network_of(genotype: Genotype, affine: bool) -> Network:
    sizes = {"cells": 3, "channels": 2, "num_classes": 10, "image_channels": 1}
    return Network(SPACE, SPACE.topology(genotype), affine=affine, **sizes)  # type: ignore[arg-type]


# -- scores ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(restored: CyclicSearch) -> list[ScoredCell]:
    done: list[int] = []
    cells = score_cells(restored, number=CELLS, images=None, seed=1, report=done.append)
    assert done == list(range(1, CELLS + 1))
    return cells


def test_cells_are_random_and_different(scored: list[ScoredCell], restored: CyclicSearch) -> None:
    genotypes = [cell.genotype for cell in scored]
    assert len(set(genotypes)) == CELLS
    again = score_cells(restored, number=3, images=8, seed=1, report=silent)
    assert [cell.genotype for cell in again] == genotypes[:3]
    assert again[0].num_images == 8 < scored[0].num_images
    other = score_cells(restored, number=3, images=8, seed=2, report=silent)
    assert [cell.genotype for cell in other] != genotypes[:3]


def test_the_search_network_scores_a_cell_as_that_cell_alone_with_its_weights(
    scored: list[ScoredCell], restored: CyclicSearch
) -> None:
    """A network of the cell's own topology, S-Net's weights by name; its nodes are means, as S-Net's were."""
    stored = restored.search_net.state_dict()
    for cell in scored:
        network = network_of(cell.genotype, affine=restored.config.search_affine)
        network.load_state_dict({name: stored[name] for name in network.state_dict()})
        incoming = torch.tensor([1.0, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3]).unsqueeze(1)
        assert cell.search_accuracy == pytest.approx(hit_rate(network, restored, {"cell": incoming}))
    assert len({cell.search_accuracy for cell in scored}) > 2


def test_the_evaluation_network_scores_a_cell_with_what_it_has_met(restored: CyclicSearch) -> None:
    """The cell of the last E-Net is wholly met: its score is that E-Net's own accuracy."""
    bank = scoring._bank(restored)
    network, coverage = scoring._eval_net(restored, restored.topology, bank)
    assert coverage == 1.0
    batches = list(unaugmented(restored.val)(0))
    assert scoring._accuracy(network, batches) == scoring._accuracy(restored.eval_net, batches)


def test_the_evaluation_network_is_scored_on_images_that_it_has_not_learned_from(
    config: CyclicConfig, few_digits: Path
) -> None:
    """With the paper's settings it learns from the half that alpha learns from, by default from the other one."""
    for halves, unseen in ((("val", "val"), "train"), (("train", "train"), "val"), (("val", "train"), "val")):
        warmup, joint = halves
        settings = replace(config, warmup_half=warmup, joint_half=joint, cycles=1)
        search = settings.build(load(str(few_digits)), seed=0, device=torch.device("cpu"), execution="share")
        assert isinstance(search, CyclicSearch)
        (cell,) = score_cells(search, number=1, images=None, seed=0, report=silent)
        network, _ = scoring._eval_net(search, cell.genotype, scoring._bank(search))
        batches = list(unaugmented(getattr(search, unseen))(0))
        assert cell.eval_accuracy == scoring._accuracy(network, batches)


def test_coverage_counts_edges_whose_operation_is_known(restored: CyclicSearch) -> None:
    bank = scoring._bank(restored)
    known = [name.split(".edges.")[1] for name in bank if name.startswith("cells.0.edges.")]
    weightless = parse_arch_string("|skip_connect~0|+|none~0|avg_pool_3x3~1|+|none~0|skip_connect~1|avg_pool_3x3~2|")
    assert scoring._eval_net(restored, weightless, {})[1] == 1.0
    convolutions = parse_arch_string(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    )
    names = {f"{choice.edge}.{choice.operation}." for choice in convolutions.cells["cell"]}
    share = sum(any(text.startswith(name) for text in known) for name in names) / 6
    assert scoring._eval_net(restored, convolutions, bank)[1] == pytest.approx(share)
    network, coverage = scoring._eval_net(restored, convolutions, {})
    assert coverage == 0.0
    fresh = restored.make_eval_net(convolutions, cycle=0).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in network.state_dict().items())


def test_scoring_changes_nothing(restored: CyclicSearch, scored: list[ScoredCell]) -> None:  # noqa: ARG001
    def tensors() -> list[torch.Tensor]:
        return [x.clone() for net in (restored.search_net, restored.eval_net) for x in net.state_dict().values()]

    before, generator = tensors(), torch.get_rng_state()
    score_cells(restored, number=3, images=None, seed=5, report=silent)
    assert all(torch.equal(x, y) for x, y in zip(tensors(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), generator)


def test_searches_without_a_whole_network_are_refused(restored: CyclicSearch) -> None:
    pruned = Network(
        SPACE,
        {"cell": replace(SPACE.supernet()["cell"], edges=tuple((e, n[1:]) for e, n in SPACE.supernet()["cell"].edges))},
        cells=3,
        channels=2,
        num_classes=10,
        affine=False,
    )
    whole = restored.search_net
    try:
        restored.search_net = pruned
        with pytest.raises(ConfigurationError, match="cdarts: this search ends with a network that holds only some"):
            search_network(restored)
        del restored.search_net
        with pytest.raises(ConfigurationError, match="cdarts: this search has no network"):
            search_network(restored)
    finally:
        restored.search_net = whole


# -- the command -------------------------------------------------------------------------------------------------------


def test_what_it_writes(
    run: Path, cdarts_data: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "correlate", "")
    before = bytes_of(run)
    path = cdarts_data / "nasbench201.csv.gz"
    result = call("correlate", run, "--table", path, "--cells", "30", "--device", "cpu")
    assert (result.code, result.err) == (0, "")
    assert bytes_of(run) == before
    with (run / "correlation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = read_json(run / "correlation.json")
    table = Table.load(path)
    for row in rows:
        truth = table.result(parse_arch_string(row["genotype"]), "cifar10")
        assert (int(row["index"]), float(row["test"]), float(row["validation"])) == (
            truth.index,
            truth.test_200,
            truth.val_200,
        )
    assert told["coverage"]["wholly_met_cells"] == sum(float(row["coverage"]) == 1.0 for row in rows)
    names = {"S-Net": "search_net", "E-Net": "eval_net"}
    for figure in told["correlations"]:
        over = [row for row in rows if figure["over"] != MET or float(row["coverage"]) == 1.0]
        first, second = (names.get(figure[side], figure[side]) for side in ("first", "second"))
        x, y = ([float(row[name]) for row in over] for name in (first, second))
        if figure["kendall"] is None:
            assert len(over) < 3 or len(set(x)) == 1 or len(set(y)) == 1
            continue
        assert figure["num_cells"] == len(over)
        assert figure["kendall"]["value"] == pytest.approx(stats.kendalltau(x, y).statistic)
        assert figure["spearman"]["value"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert len(told["correlations"]) == 10
    root = ElementTree.parse(run / "correlation.svg").getroot()
    assert sum(1 for _ in root.iter("{http://www.w3.org/2000/svg}circle")) == 3 * 30
    assert "S-Net and E-Net" in result.out
    assert f"files   {run}: correlation.json" in result.out
    # the same again, elsewhere
    again = tmp_path / "again"
    assert call("correlate", run, "--table", path, "--cells", "30", "--device", "cpu", "--out", again).code == 0
    for name in ("correlation.csv", "correlation.svg"):
        assert (again / name).read_bytes() == (run / name).read_bytes()


def test_a_search_without_an_evaluation_network(tmp_path: Path, few_digits: Path, cdarts_data: Path) -> None:
    config = DartsConfig(space=SPACE, channels=2, cells=3, batch_size=8, epochs=2)
    run = searched(config, tmp_path / "run", few_digits)
    path = cdarts_data / "nasbench201.csv.gz"
    assert Correlate(run_dir=run, table=path, cells=5, images=8, device="cpu").run() == 0
    told = read_json(run / "correlation.json")
    assert [(pair["first"], pair["second"]) for pair in told["correlations"]] == [
        ("S-Net", "validation"),
        ("S-Net", "test"),
    ]
    assert (told["coverage"], told["images"]) == (None, 8)


def test_what_cannot_be_correlated(
    run: Path, config: CyclicConfig, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags, message in (({"cells": 2}, "--cells 2"), ({"images": 1}, "--images 1"), ({"cells": 15_626}, "15,625")):
        with pytest.raises(ConfigurationError, match=message):
            Correlate(run_dir=run, **flags).run()  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not a run directory"):
        finished_search(tmp_path)
    status = (run / "status.json").read_text()
    monkeypatch.setattr("cdarts.engine.run_dir.is_done", lambda _: False)
    with pytest.raises(ConfigurationError, match=r"is not done: cdarts resume"):
        finished_search(run)
    monkeypatch.undo()
    assert (run / "status.json").read_text() == status
    other = replace(config, space=DartsSpace(), eval_cells=3, cycles=1, pretrain_epochs=0)
    elsewhere = searched(other, tmp_path / "darts", few_digits)
    with pytest.raises(
        ConfigurationError, match="searched space darts; true accuracies are known for space nasbench201"
    ):
        finished_search(elsewhere)


def test_changed_data_is_refused(run: Path, cdarts_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "load_data", lambda _: load("digits"))
    with pytest.raises(DataError, match="the data set is not the one that"):
        Correlate(run_dir=run, table=cdarts_data / "nasbench201.csv.gz", device="cpu").run()


def test_a_last_state_is_only_read(run: Path, tmp_path: Path) -> None:
    before = bytes_of(run)
    state = read_last_state(run)
    assert genotype_from_json(state["topology"]).space == "nasbench201"
    assert bytes_of(run) == before
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        read_last_state(tmp_path)


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_over_wholly_met_cells_leave_the_others_out() -> None:
    genotype = parse_arch_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    cells = [ScoredCell(genotype, 10, float(i), float(-i if i % 2 else i), 1.0 if i % 2 else 0.5) for i in range(12)]
    truths = {"validation": [float(i) for i in range(12)], "test": [float(i) for i in range(12)]}
    pairs = {(pair.first, pair.second, pair.over): pair.correlation for pair in correlations(cells, truths, 0)}
    met = pairs["E-Net", "test", MET]
    assert met is not None and (met.num_things, met.kendall.value) == (6, pytest.approx(-1.0))
    whole = pairs["S-Net", "test", "all cells"]
    assert whole is not None and (whole.num_things, whole.spearman.value) == (12, pytest.approx(1.0))
