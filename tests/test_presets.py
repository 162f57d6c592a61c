"""The presets: each runs, each says what it is, and they differ where paper and authors do."""

import dataclasses
import json
from dataclasses import replace

import pytest
import torch

from cdarts.algorithms import ALGORITHMS, CyclicConfig
from cdarts.data import load
from cdarts.presets import PRESETS, SUMMARIES
from cdarts.settings import differences, from_json, to_json
from cdarts.spaces import SPACES
from cdarts.topology import parse_genotype

OFFICIAL_DIFFERENCES = {
    "mean_nodes",
    "shared_stem",
    "warmup_unchanged",
    "inherit_batchnorm",
    "persistent_optimizers",
    "joint_clip",
    "feedback",
    "fusion",
    "level_weights",
    "shared_embeddings",
    "train_embeddings",
    "l1_operations",
    "l1_scale",
}


CYCLIC = {name: config for name, config in PRESETS.items() if isinstance(config, CyclicConfig)}


@pytest.mark.parametrize("name", CYCLIC)
def test_preset_runs_small_and_gives_a_legal_genotype(name: str) -> None:
    config = replace(CYCLIC[name], channels=4, search_cells=3, eval_cells=4, cycles=1, pretrain_epochs=1, batch_size=16)
    task = config.build(load("synthetic"), seed=0, device=torch.device("cpu"), execution="share")
    phases = set()
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        phases.add(epoch.phase)
        for position, batch in zip(range(2), task.batches(index), strict=False):
            losses = task.step(position, *batch)
            assert all(torch.isfinite(loss) for loss in losses.values()), losses
    assert phases == {"pretrain", "warmup", "joint"}
    terms = {"feedback", "l1"} if config.feedback_weight else {"teaching", "alpha_decay"}
    assert {"search_loss", "search_val_loss", "eval_loss", *terms} <= losses.keys()
    genotype = task.genotype()
    config.space.check(genotype)
    assert parse_genotype(genotype.text()) == genotype


@pytest.mark.parametrize("name", PRESETS)
def test_preset_passes_its_own_check(name: str) -> None:
    PRESETS[name].check(load("digits"))


def test_every_method_has_a_preset_in_both_spaces() -> None:
    for space in SPACES.keys() - {"toy"}:
        assert {config.name for config in PRESETS.values() if config.space.name == space} == ALGORITHMS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_preset_round_trips_through_json(name: str) -> None:
    written = json.dumps(to_json(PRESETS[name]))
    assert from_json(type(PRESETS[name]), json.loads(written), "config.json") == PRESETS[name]


def test_every_preset_has_one_line_of_summary() -> None:
    assert SUMMARIES.keys() == PRESETS.keys()
    assert all(summary and "\n" not in summary for summary in SUMMARIES.values())


def test_names_fix_the_space() -> None:
    for name, config in PRESETS.items():
        assert config.space.name == ("nasbench201" if name.endswith("-nasbench201") else "darts")


def test_presets_are_all_different() -> None:
    assert len(set(PRESETS.values())) == len(PRESETS)


def test_official_differs_from_the_paper_in_these_fields_alone() -> None:
    assert differences(CYCLIC["cdarts-official"], CYCLIC["cdarts-paper"]).keys() == OFFICIAL_DIFFERENCES


def test_default_differs_from_the_paper_in_what_was_measured() -> None:
    for variant in ("", "-nasbench201"):
        changed = differences(CYCLIC[f"cdarts{variant}"], CYCLIC[f"cdarts-paper{variant}"])
        for weights in ("search_weights", "eval_weights"):
            assert differences(*changed.pop(weights)) == {"lr_end": (0.0, 1.0)}
        assert differences(*changed.pop("alpha")) == {"lr_end": (0.1, 1.0)}
        assert {name: value for name, (value, _) in changed.items()} == {
            "warmup_half": "train",
            "joint_half": "train",
            "feedback_weight": 0.0,
            "teaching_weight": 1.0,
            "l1_weight": 0.0,
            "alpha_decay": 5.0,
            "sharpness": 20.0,
        }


def test_paper_presets_pretrain_both_networks() -> None:
    """Equations 1 and 2 are stages of the paper's algorithm, in every space."""
    for name in ("cdarts-paper", "cdarts-paper-nasbench201"):
        assert CYCLIC[name].pretrain_epochs > 0
        assert CYCLIC[name].warmup_epochs > 0


def test_official_launch_commands() -> None:
    """The numbers of the authors' launch scripts for one GPU."""
    cifar, nasbench = CYCLIC["cdarts-official"], CYCLIC["cdarts-official-nasbench201"]
    for config in (cifar, nasbench):
        assert (config.batch_size, config.channels, config.feedback, config.temperature) == (64, 16, "smooth_l1", 2.0)
        assert (config.feedback_weight, config.l1_weight, config.l1_decay) == (1.0, 5.0, 0.667)
        assert config.search_weights == config.eval_weights
        assert dataclasses.astuple(config.search_weights) == (0.08, 1.0, 0.9, 3e-4, 5.0)
        assert dataclasses.astuple(config.alpha) == (3e-4, 1.0, (0.5, 0.999), 0.0, None)
        assert (config.warmup_epochs, config.joint_epochs) == (1, 1)
    assert (cifar.pretrain_epochs, cifar.cycles, cifar.search_cells, cifar.eval_cells) == (2, 30, 8, 20)
    assert (nasbench.pretrain_epochs, nasbench.cycles, nasbench.search_cells, nasbench.eval_cells) == (0, 50, 15, 15)
    assert (cifar.train_embeddings, nasbench.train_embeddings) == (False, True)
    assert (cifar.mean_nodes, nasbench.mean_nodes) == (True, False)
    assert (cifar.eval_affine, nasbench.eval_affine) == (False, True)
