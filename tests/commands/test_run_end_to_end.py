"""`cdarts run` with nothing made up: real forecasts, a real search, a real training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdarts import budget
from cdarts.engine.run_dir import read_json
from cdarts.model import load_model
from cdarts.topology import parse_genotype, read_genotype


def test_end_to_end_within_a_budget(tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # everything is real but the largest plan, which is kept small so that a slow machine runs the same
    monkeypatch.setattr(budget, "SEARCH_SIZES", budget.SEARCH_SIZES[:1])
    monkeypatch.setattr(budget, "RETRAINING_SIZES", budget.RETRAINING_SIZES[:1])
    monkeypatch.setattr(budget, "MOST_CYCLES", 1)
    monkeypatch.setattr(budget, "MOST_EPOCHS", 8)
    out = tmp_path / "run"
    done = call("run", "--data", "synthetic", "--budget", "10m", "--search", "always", "--threads", "1", "--out", out)
    assert done.code == 0, done.err
    for name in (
        "config.json",
        "genotype.json",
        "cell.svg",
        "summary.json",
        "status.json",
        "retrain/model.safetensors",
    ):
        assert (out / name).is_file(), name
    summary = read_json(out / "summary.json")
    assert set(summary) >= {
        "test_accuracy",
        "best_epoch_test_accuracy",
        "parameters",
        "macs",
        "search_seconds",
        "retraining_seconds",
        "seconds",
        "forecast",
        "genotype",
        "data",
        "seed",
    }
    assert summary["test_accuracy"] > 0.5
    genotype = parse_genotype(summary["genotype"])
    assert genotype == read_genotype(out / "genotype.json")
    forecast = summary["forecast"]
    planned = forecast["search_seconds"] + forecast["retraining_seconds"] + forecast["planning_seconds"]
    assert planned <= 600
    assert read_json(out / "status.json")["state"] == "done"
    card, network = load_model(out / "retrain")
    assert summary["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert card.genotype["text"] == genotype.text()
    for words in (
        "note    too few images for a search",
        "why     search with",
        "why     stem cifar: cells begin at 8 of 8",
    ):
        assert words in done.out
    for words in ("test accuracy, last epoch", "parameters", "multiply-adds", f"next    cdarts predict {out}"):
        assert words in done.out
    assert json.loads(call("evaluate", out, "--json").out)["accuracy"] == summary["test_accuracy"]
