"""`cdarts search` within limits, and `cdarts show cost`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdarts.commands import show_cost

Call = Callable[..., Any]
SMALL = ("--limit-cells", "3", "--limit-channels", "4")


def read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_what_was_found_stands_beside_the_limits(call: Call, few_digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = call(
        "search",
        "random",
        "--data",
        few_digits,
        "--max-params",
        "9K",
        "--max-macs",
        "250K",
        *SMALL,
        "--batch-size",
        "8",
        "--out",
        out,
    )
    assert result.code == 0, result.err
    limits = read(out / "summary.json")["limits"]
    assert set(limits) == {"--max-params", "--max-macs"}
    assert int(limits["--max-params"]["found"].split()[0].replace(",", "")) <= 9_000
    assert f"cost    {limits['--max-macs']['found']} of --max-macs 250K" in result.out
    call_again = call("resume", out)
    assert call_again.code == 0


def test_an_impossible_limit_leaves_nothing_behind(call: Call, few_digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = call(
        "search", "random", "--data", few_digits, "--max-params", "100", *SMALL, "--batch-size", "8", "--out", out
    )
    assert result.code == 2
    assert "--max-params 100: a network of space darts with 3 cells and 4 channels has at least" in result.error()
    assert not out.exists()
    result = call("search", "random", "--data", few_digits, "--max-params", "many", "--batch-size", "8", "--out", out)
    assert result.error() == (
        "--max-params many: write a positive number, with K, M or G if you like, e.g. 3.5M, 600M, 120000"
    )


@pytest.mark.timeout(600)
def test_latency_is_measured_once_and_kept(call: Call, few_digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = call(
        "search",
        "random-nasbench201",
        "--data",
        few_digits,
        "--max-latency-ms",
        "10000",
        *SMALL,
        "--batch-size",
        "8",
        "--out",
        out,
    )
    assert result.code == 0, result.err
    assert "times of networks are predicted with a mean error of" in result.out
    latency = read(out / "config.json")["settings"]["algorithm"]["limits"]["latency"]
    assert latency["device"] == "cpu"
    assert len(latency["nanoseconds"]) == 6 * 5
    assert read(out / "summary.json")["limits"]["--max-latency-ms"]["limit"] == "10000.0"


# -- show cost ---------------------------------------------------------------------------------------------------------


def test_costs_add_up(call: Call) -> None:
    result = call("show", "cost", "cdarts-nasbench201-1", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["parameters"], found["macs"]) == (1_073_466, 153_272_960)
    edges = [part for part in found["parts"] if not part["place"].endswith("cells")]
    for amount in ("parameters", "macs"):
        assert sum(part[amount] for part in edges) == found[amount]
    assert found["activation_bytes_per_image"] > 0
    # weights and running statistics
    assert found["weight_bytes"] > 4 * found["parameters"]
    assert "latency" not in found


def test_costs_as_a_table(call: Call) -> None:
    result = call("show", "cost", "darts-v1", "--cells", "3", "--channels", "4", "--image-size", "16")
    assert result.code == 0, result.err
    for words in ("parameters  ", "macs  ", "that a training step keeps", "normal cells", "reduce 0-2", "sep_conv_3x3"):
        assert words in result.out
    assert call("show", "cost", "darts-v1", "--image-size", "4").code == 2


def test_latency_of_network_and_operations(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show_cost, "BATCHES", (1, 3))
    sizes = ("--cells", "3", "--channels", "4", "--image-size", "8", "--threads", "1")
    result = call("show", "cost", "nasbench201-resnet", *sizes, "--latency", "--json")
    assert result.code == 0, result.err
    latency = json.loads(result.out)["latency"]
    assert latency["threads"] == 1
    assert latency["device"].startswith("CPU")
    assert set(latency["networks"]) == {
        f"{engine}, {batch}" for engine in ("PyTorch", "ONNX Runtime") for batch in ("1 image", "3 images")
    }
    for timing in latency["networks"].values():
        assert 0 < timing["lower_quartile_ms"] <= timing["median_ms"] <= timing["upper_quartile_ms"]
    assert len(latency["edges"]) == 6
    monkeypatch.setitem(sys.modules, "onnx", None)
    text = call("show", "cost", "nasbench201-resnet", *sizes, "--latency")
    assert "note    ONNX needs onnx, which is not installed" in text.err
    assert "measured on CPU" in text.out
