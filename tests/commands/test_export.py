"""`cdarts export`, and `cdarts predict` from what it writes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cdarts.cli import main
from cdarts.data import load
from cdarts.export import FORMATS, as_images
from cdarts.model import load_model

Call = Callable[..., Any]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A trained run of one's own."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def onnx_file(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "digits.onnx"
    assert main(["export", str(trained), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten test digits as files of another size."""
    folder = tmp_path_factory.mktemp("images")
    for position, pixels in enumerate(load("digits").test.pixels[:10, ..., 0]):
        Image.fromarray(pixels).resize((20, 24)).save(folder / f"{position}.png")
    return folder


def test_a_module_beside_the_model(run: Path, call: Call) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    result = call("export", run, "--format", "module")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].endswith(f"export  {run}  format module")
    assert "10 classes, images 8x8x1" in lines[1]
    assert "test images of digits, in batches of 1, 4 and 7: the same classes, logits within" in lines[2]
    written = [run / "network.safetensors", run / "network.py"]
    assert [line.split()[1] for line in lines[3:]] == [str(path) for path in written]
    assert all((run / name).read_bytes() == data for name, data in before.items())
    card, network = load_model(run)
    pixels = load("digits").test.pixels[:20]
    with torch.no_grad():
        expected = network(card.normalise(pixels, torch.device("cpu"))).logits
        torch.testing.assert_close(FORMATS["module"].load(written[1])(as_images(pixels)), expected)
    # a second time replaces it
    assert call("export", run, "--format", "module").code == 0


def test_torch_export(run: Path, call: Call, tmp_path: Path) -> None:
    out = tmp_path / "digits.pt2"
    assert call("export", run, "--format", "pt2", "--out", out, "--threads", "1").code == 0
    module = torch.export.load(out).module()
    assert module(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_predict_answers_the_same_from_the_onnx_file(trained: Path, onnx_file: Path, images: Path, call: Call) -> None:
    of_run, of_file = (call("predict", model, images, "--top", "10", "--json") for model in (trained, onnx_file))
    assert of_run.code == of_file.code == 0
    for one, other in zip(of_run.out.splitlines(), of_file.out.splitlines(), strict=True):
        first, second = json.loads(one), json.loads(other)
        assert (first["image"], first["class"]) == (second["image"], second["class"])
        assert second["probabilities"] == pytest.approx(first["probabilities"], abs=1e-5)
    assert len(of_run.out.splitlines()) == 10
    texts = [call("predict", model, images / "0.png", "--threads", "1").out for model in (trained, onnx_file)]
    assert texts[0] == texts[1]


def test_the_retraining_of_a_whole_run(trained: Path, tmp_path: Path, call: Call) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(trained, whole / "retrain")
    result = call("export", whole, "--format", "module")
    assert result.code == 0
    assert (whole / "retrain" / "network.py").is_file()
    assert "note    compared on digits, since the run's own images cannot be had" in result.out  # no config.json here


def test_data_that_are_gone(few_digits: Path, tmp_path: Path, call: Call) -> None:
    data = Path(shutil.copy(few_digits, tmp_path / "mine.npz"))
    sizes = ("--cells", "3", "--channels", "2", "--epochs", "1", "--batch-size", "16")
    run = tmp_path / "run"
    assert call("retrain", "darts-v1", "--data", data, *sizes, "--out", run).code == 0
    assert "test images of mine" in call("export", run, "--format", "module").out
    data.unlink()
    result = call("export", run, "--format", "module")
    assert result.code == 0
    assert "note    compared on digits" in result.out
    assert "no such data set" in result.out
    # images of another size now
    pixels = np.zeros((20, 16, 16, 3), dtype=np.uint8)
    np.savez(data, x_train=pixels, y_train=np.arange(20) % 10, x_test=pixels, y_test=np.arange(20) % 10)
    result = call("export", run, "--format", "module")
    assert result.code == 0
    assert "mine has other images now" in result.out


# -- errors ------------------------------------------------------------------------------------------------------------


def refused(result: Any, code: int, *words: str) -> None:
    assert result.code == code, result.err
    assert all(word in result.error() for word in words), result.err


def test_runs_without_a_model(tmp_path: Path, call: Call) -> None:
    refused(call("export", tmp_path / "absent"), 4, "no such file or folder")
    refused(call("export", tmp_path), 4, "holds no trained model")


def test_names(run: Path, tmp_path: Path, call: Call) -> None:
    refused(call("export", run, "--out", tmp_path / "model.pt2"), 2, "--out", "*.onnx")
    refused(call("export", run, "--format", "module", "--out", run / "model.py"), 2, "would replace")
    (tmp_path / "there.py").mkdir()
    refused(call("export", run, "--format", "module", "--out", tmp_path / "there.py"), 6, "not a regular file")


def test_predicting_from_files_that_are_no_model(trained: Path, images: Path, tmp_path: Path, call: Call) -> None:
    text = tmp_path / "model.onnx"
    text.write_text("no model")
    refused(call("predict", text, images), 4, "model.onnx", "not a readable ONNX file")
    refused(call("predict", trained / "model.safetensors", images), 4, "not a readable ONNX file")
    refused(call("predict", tmp_path / "absent.onnx", images), 4, "no such file or folder")


def test_an_onnx_file_is_computed_on_the_cpu(onnx_file: Path, images: Path, call: Call) -> None:
    refused(call("predict", onnx_file, images, "--device", "cuda"), 2, "--device cuda")


def test_images_that_cannot_be_read(onnx_file: Path, images: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    result = call("predict", onnx_file, tmp_path / "broken.png", images / "0.png")
    assert result.code == 3
    assert len(result.out.splitlines()) == 1
    assert "broken.png: cannot be read as an image" in result.error()
