"""`from cdarts import search, retrain, load, create_model`, and the examples."""

import html
import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cdarts
from cdarts import Run, create_model, load, retrain, search, zoo
from cdarts.errors import CheckpointError, ConfigurationError, GenotypeError
from cdarts.networks import num_parameters
from cdarts.presets import PRESETS
from cdarts.retraining import Retraining
from cdarts.spaces import DartsSpace, ToySpace
from cdarts.topology import Genotype

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK = Retraining(cells=3, channels=4, epochs=2, batch_size=32, auxiliary_weight=0.0)


def test_importing_cdarts_imports_no_torch() -> None:
    code = (
        "import sys, cdarts; assert 'torch' not in sys.modules; "
        "from cdarts import load; assert 'torch' in sys.modules; "
        # they take as long again, and nothing needs them to predict
        "assert not {'torchvision', 'torch._dynamo', 'sklearn', 'onnxruntime'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_names() -> None:
    assert set(cdarts.__all__) <= set(dir(cdarts))
    assert all(getattr(cdarts, name) for name in cdarts.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = cdarts.serach  # type: ignore[attr-defined]


# -- create_model ------------------------------------------------------------------------------------------------------


def test_published_sizes() -> None:
    with torch.device("meta"):
        assert num_parameters(create_model("cdarts-cifar10", num_classes=10)) == 3_859_318
        imagenet = create_model(
            "cdarts-imagenet", num_classes=1000, cells=14, channels=48, space=DartsSpace(stem_name="imagenet")
        )
    assert num_parameters(imagenet) == 6_360_256


def test_a_network_of_any_genotype(tmp_path: Path) -> None:
    genotype = zoo.load("cdarts-nasbench201-1")
    (tmp_path / "found.json").write_text(json.dumps(genotype.to_json()))
    texts: list[str | Path | Genotype] = [genotype, genotype.text(), tmp_path / "found.json", "cdarts-nasbench201-1"]
    for given in texts:
        model = create_model(given, num_classes=3, cells=3, channels=4, image_channels=1)
        assert model(torch.rand(2, 1, 16, 16)).logits.shape == (2, 3)
    one, same, other = (
        create_model(genotype, num_classes=3, cells=3, channels=4, seed=seed).classifier.weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_models_that_cannot_be() -> None:
    with pytest.raises(GenotypeError, match="Did you mean cdarts-cifar10"):
        create_model("cdarts-cifar11", num_classes=10)
    with pytest.raises(ConfigurationError, match="num_classes 0: must be at least 1"):
        create_model("darts-v2", num_classes=0)
    with pytest.raises(ConfigurationError, match="image_channels 0"):
        create_model("darts-v2", num_classes=10, image_channels=0)
    with pytest.raises(ConfigurationError, match="channels 5: must be a positive even number"):
        create_model("darts-v2", num_classes=10, channels=5)
    with pytest.raises(GenotypeError, match="belongs to space 'nasbench201', not to 'darts'"):
        create_model("cdarts-nasbench201-1", num_classes=10, space=DartsSpace(stem_name="half"))
    with pytest.raises(GenotypeError, match="space 'other' is unknown"):
        create_model(Genotype("other", zoo.load("darts-v2").cells), num_classes=10)
    with pytest.raises(GenotypeError, match="not to 'toy'"):
        create_model("darts-v2", num_classes=10, space=ToySpace())


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, few_images: Path) -> Run:
    quick = replace(PRESETS["smoke"], cycles=1, search_cells=2, eval_cells=2, channels=2, batch_size=16)
    return search(
        quick, data=few_images, seed=3, threads=1, execution="share", out=tmp_path_factory.mktemp("api") / "found"
    )


@pytest.fixture(scope="module")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of some real digits."""
    import numpy as np

    from cdarts.data import load as load_data

    digits = load_data("digits")
    path = tmp_path_factory.mktemp("data") / "few.npz"
    np.savez(
        path,
        x_train=digits.train.pixels[:100],
        y_train=digits.train.labels[:100],
        x_test=digits.test.pixels[:40],
        y_test=digits.test.labels[:40],
    )
    return path


def test_a_search_and_its_retraining(found: Run, tmp_path: Path) -> None:
    assert (found.state, found.genotype.space) == ("done", "darts")
    assert found.summary["genotype"] == found.genotype.text()
    assert found.config["settings"]["seed"] == 3
    assert [line["epoch"] for line in found.metrics] == list(range(len(found.metrics)))
    assert found.metrics[-1]["phase"] == "joint"
    assert not found.is_trained
    page = found.report()
    assert page == found.path / "report.html"
    assert found.genotype.text() in html.unescape(page.read_text(encoding="utf-8"))
    with pytest.raises(CheckpointError, match="holds no trained model"):
        _ = found.model
    trained = retrain(found, training=QUICK, threads=1, out=tmp_path / "trained")
    assert trained.config["settings"]["data"] == found.config["settings"]["data"]
    assert trained.genotype == found.genotype
    assert [line["test_accuracy"] for line in trained.metrics][-1] == trained.summary["test_accuracy"]
    again = load(str(trained.path))
    assert again.is_trained
    assert (again.card.side, len(again.card.class_names)) == (8, 10)
    assert not again.model.training
    assert again.model is again.model
    assert again.model(torch.rand(2, 1, 8, 8)).logits.shape == (2, 10)


def test_a_default_place(few_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = retrain(zoo.load("darts-v2"), data=few_images, training=QUICK, threads=1)
    assert run.path.parent == Path("runs")
    assert run.path.name.startswith("retrain-few-seed0-")
    assert run.state == "done"


def test_metrics_of_a_whole_run(found: Run, tmp_path: Path) -> None:
    for part in ("search", "retrain"):
        (tmp_path / part).mkdir()
    (tmp_path / "config.json").write_text("{}")
    lines = (found.path / "metrics.jsonl").read_bytes()
    (tmp_path / "search" / "metrics.jsonl").write_bytes(lines)
    (tmp_path / "retrain" / "metrics.jsonl").write_bytes(b'{"epoch": 0, "phase": "train"}\n{"epoch": 1, "pha')
    assert load(tmp_path).metrics == [*found.metrics, {"epoch": 0, "phase": "train"}]
    (tmp_path / "retrain" / "metrics.jsonl").write_bytes(b"no line\n")
    with pytest.raises(ConfigurationError, match=r"metrics\.jsonl, line 1: cannot be read"):
        _ = load(tmp_path).metrics


def test_what_cannot_be_begun(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean cdarts-paper"):
        search("cdarts-papre", out=tmp_path / "run")
    with pytest.raises(ConfigurationError, match="is not a run directory"):
        load(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is not an empty folder"):
        retrain("darts-v2", training=QUICK, out=tmp_path)
    assert not (tmp_path / "run").exists()


# -- examples ----------------------------------------------------------------------------------------------------------


def example(name: str, *arguments: str) -> None:
    sys.argv[:] = [name, *arguments]
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    example("search_and_train.py")
    example("use_a_trained_run.py", "runs/trained")
    example("published_cell.py")
    out = capsys.readouterr().out
    assert "genotype Genotype(normal=" in out
    assert "equal within" in out
    assert (tmp_path / "network.py").is_file()
    losses = [float(line.rpartition(" ")[2]) for line in out.splitlines() if line.startswith("step ")]
    assert losses[-1] < losses[0]


def test_every_example_is_run() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'example("{path.name}"' in source for path in EXAMPLES.glob("*.py"))
