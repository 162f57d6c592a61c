"""Files that mean harm: nothing in them is run, nothing is written where no run is, no secret gets into a run.

A canary file tells: each hostile file would make it, were it read by a program that trusts it. Pickles of the
NAS-Bench-201 archive have tests of their own, in `benchmarks/test_natsbench.py`.
"""

import bz2
import gzip
import io
import json
import os
import pickle
import shutil
import socket
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from cdarts import zoo
from cdarts.benchmarks.natsbench import META
from cdarts.cli import main
from cdarts.commands.run import print_summary
from cdarts.data import load
from cdarts.engine import checkpoint

NETWORK = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|none~2|"
TRAINING = ("--cells", "3", "--channels", "2", "--epochs", "1", "--auxiliary-weight", "0", "--batch-size", "40")
SEARCH = ("search", "smoke", "--cycles", "1", "--pretrain-epochs", "0", "--warmup-epochs", "0", "--batch-size", "16")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file makes a command reach for the network in these tests."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real digits, six of each class."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, **arrays())
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    """A run with a model."""
    path = tmp_path_factory.mktemp("trained") / "run"
    assert main(["retrain", NETWORK, *TRAINING, "--data", str(archive), "--out", str(path)]) == 0
    return path


def arrays() -> dict[str, np.ndarray]:
    digits = load("digits").train
    chosen = np.concatenate([np.flatnonzero(digits.labels == label)[:6] for label in range(10)])
    return {"x_train": digits.pixels[chosen], "y_train": digits.labels[chosen]}


# -- what would run ----------------------------------------------------------------------------------------------------


class Touch:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.system, (f"touch '{self.canary}'",)


def objects(canary: Path) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = Touch(canary)
    return array


def torch_file(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"x": Touch(canary)}, file)
    return file.getvalue()


def numpy_file(canary: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, objects(canary), allow_pickle=True)
    return file.getvalue()


def numpy_archive(canary: Path) -> bytes:
    file = io.BytesIO()
    np.savez(file, **dict.fromkeys(("x_train", "y_train", "class_names", "c10_val_200"), objects(canary)))
    return file.getvalue()


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "pickle 0": lambda canary: pickle.dumps(Touch(canary), protocol=0),
    "pickle 4": lambda canary: pickle.dumps(Touch(canary), protocol=4),
    "torch": torch_file,
    "numpy": numpy_file,
    "numpy archive": numpy_archive,
    "gzip": lambda canary: gzip.compress(pickle.dumps(Touch(canary))),
    "bz2": lambda canary: bz2.compress(pickle.dumps(Touch(canary))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_these_files_do_harm_where_they_are_trusted(canary: Path, name: str) -> None:
    data = HOSTILE[name](canary)
    match name:
        case "torch":
            torch.load(io.BytesIO(data), weights_only=False)
        case "numpy":
            np.load(io.BytesIO(data), allow_pickle=True)
        case "numpy archive":
            assert np.load(io.BytesIO(data), allow_pickle=True)["x_train"] is not None
        case _:
            opened = {"gzip": gzip.decompress, "bz2": bz2.decompress}.get(name, bytes)(data)
            pickle.loads(opened)  # noqa: S301 (to see that the other tests test something)
    assert canary.exists()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def genotype_file(suffix: str) -> Callable[[Path, bytes, Path], list[str]]:
    return lambda folder, data, _: ["show", "genotype", str(put(folder / f"cell{suffix}", data))]


def data_file(suffix: str) -> Callable[[Path, bytes, Path], list[str]]:
    return lambda folder, data, _: [*SEARCH, "--data", str(put(folder / f"data{suffix}", data)), "--out", "run"]


def in_a_run(name: str, *command: str) -> Callable[[Path, bytes, Path], list[str]]:
    """A run of somebody else's with one file replaced."""

    def words(folder: Path, data: bytes, trained: Path) -> list[str]:
        run = folder / "theirs"
        shutil.copytree(trained, run)
        (run / "status.json").unlink()  # else a resume has nothing to do
        for file in run.glob(name):
            file.write_bytes(data)
        return [command[0], str(run), *command[1:]]

    return words


def image_folder(folder: Path, data: bytes, _: Path) -> list[str]:
    for label in "ab":
        for number in range(4):
            put(folder / "photos" / label / f"{number}.png", data)
    return [*SEARCH, "--data", str(folder / "photos"), "--out", "run"]


def cifar_batches(folder: Path, data: bytes, _: Path) -> list[str]:
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        put(folder / "root" / "cifar-10-batches-py" / name, data)
    put(folder / "root" / "cifar-10-batches-py" / "batches.meta", data)
    return [*SEARCH, "--data", "cifar10", "--data-root", str(folder / "root"), "--out", "run"]


def seeds_beside_a_table(folder: Path, data: bytes, _: Path) -> list[str]:
    put(folder / "table_seeds.npz", data)
    return ["query", "nasbench201-resnet", "--table", str(put(folder / "table.csv.gz", data))]


DOORS: dict[str, tuple[int, Callable[[Path, bytes, Path], list[str]]]] = {
    **{
        f"a genotype {suffix}": (2, genotype_file(suffix))
        for suffix in (".json", ".txt", ".pkl", ".pt", ".npz", ".gz", ".safetensors", ".onnx")
    },
    "a genotype to train": (
        2,
        lambda folder, data, _: ["retrain", str(put(folder / "x.json", data)), *TRAINING, "--out", "run"],
    ),
    **{f"data {suffix}": (3, data_file(suffix)) for suffix in (".npz", ".npy", ".pt", ".pkl", ".onnx", ".gz")},
    "images": (3, image_folder),
    "CIFAR-10's batches": (3, cifar_batches),
    "a table": (3, seeds_beside_a_table),
    "hardware costs": (
        3,
        lambda folder, data, _: ["query", "nasbench201-resnet", "--costs", str(put(folder / "costs.npz", data))],
    ),
    "an archive": (3, lambda folder, data, _: ["table", str(put(folder / "nats" / META, data).parent)]),
    "config.json": (2, in_a_run("config.json", "resume")),
    "environment.json": (2, in_a_run("environment.json", "resume")),
    "checkpoints": (4, in_a_run("checkpoints/*.safetensors", "resume")),
    "model.json": (4, in_a_run("model.json", "evaluate")),
    "model.safetensors": (4, in_a_run("model.safetensors", "evaluate")),
    "genotype.json": (2, in_a_run("genotype.json", "show")),
    "an image to predict": (
        3,
        lambda folder, data, trained: ["predict", str(trained), str(put(folder / "new.png", data))],
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("door", DOORS)
def test_nothing_in_a_file_is_run(
    tmp_path: Path,
    canary: Path,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    door: str,
    name: str,
) -> None:
    exit_code, words = DOORS[door]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CDARTS_DATA", str(tmp_path / "no data"))
    command = words(tmp_path, HOSTILE[name](canary), trained)
    if command[0] == "show" and len(command) == 2:
        command.insert(1, "genotype")
    assert main(command) == exit_code
    error = capsys.readouterr().err
    assert "error: " in error and "Traceback" not in error
    assert not canary.exists()
    assert not Path("run").exists()


TEXTS = (
    "__import__('os').system('touch canary')",
    "exec(\"open('canary', 'w')\")",
    "Genotype(normal=[(open('canary', 'w'), 0)], normal_concat=range(2, 6), reduce=[], reduce_concat=range(2, 6))",
    "Genotype(normal=[('sep_conv_3x3', 0)], normal_concat=__import__('os').system('touch canary'))",
    "Genotype.__class__.__base__.__subclasses__()",
    "(lambda: open('canary', 'w'))()",
    "|{open('canary','w')}~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|__import__('os').system('touch canary')~0|",
    "!!python/object/apply:os.system ['touch canary']",
    '{"format": "cdarts-genotype", "version": 1, "space": "__import__(\'os\').system(\'touch canary\')", "cells": {}}',
    '{"__class__": "os.system", "args": ["touch canary"]}',
)


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cell.json").write_text(text)
    for target in (text, "cell.json"):
        assert main(["show", "genotype", target]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cell.json"]


# -- files that unpack without end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [(".csv.gz",), (".json",), (META,)], ids=["table", "genotype", "archive"])
def test_files_that_unpack_without_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    much = bytes(80 * 2**20)
    match files[0]:
        case ".csv.gz":
            words = ["query", "nasbench201-resnet", "--table", str(put(tmp_path / "t.csv.gz", gzip.compress(much, 1)))]
        case ".json":
            words = ["show", "genotype", str(put(tmp_path / "cell.json", b'{"format": "' + b"x" * len(much)))]
        case _:
            words = ["table", str(put(tmp_path / META, bz2.compress(much, 1)).parent)]
    assert main(words) in (2, 3)
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(10**12, 8, 8), (4, 10**9, 10**9), (10**6, 64, 64, 3)])
def test_images_that_claim_to_be_huge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, ...]
) -> None:
    header, labels = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    np.save(labels, np.zeros(4, np.int64))
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x_train.npy", header.getvalue() + bytes(1000))
        file.writestr("y_train.npy", labels.getvalue())
    assert main([*SEARCH, "--data", str(path), "--out", str(tmp_path / "run")]) == 3
    assert f"{path}: x_train: cannot be read" in capsys.readouterr().err


def test_lists_of_lists_without_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Thirty bytes that print as two to the power of sixty: an error must not try."""
    many: list[Any] = ["x"]
    for _ in range(60):
        many = [many, many]
    for meta in ({"meta_archs": many}, {"meta_archs": [many]}, {"meta_archs": [10**5000]}):
        put(tmp_path / META, bz2.compress(pickle.dumps(meta)))
        assert main(["table", str(tmp_path)]) == 3
        assert "is no cell of NAS-Bench-201" in capsys.readouterr().err


# -- names -------------------------------------------------------------------------------------------------------------

MARKUP = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</text></svg><script>1</script>",
    "javascript:alert(1)",
    "[red]rich[/red]",
    "[/]",
    "{{7*7}}",
    "../../etc/passwd",
    "'; DROP TABLE classes; --",
    "&lt;b&gt;&#60;",
)
ELEMENTS = {"svg", "g", "path", "rect", "text", "tspan", "title", "desc", "line", "circle", "style", "polyline", "defs"}


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_names_with_markup_stay_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = arrays() | {"class_names": np.array(MARKUP)}
    data = tmp_path / "[bold]<script>1<).npz"
    np.savez(data, **content)
    out = tmp_path / "<b onload=x>&[/]"
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    assert main([*SEARCH, "--data", str(data), "--out", str(out / "found")]) == 0
    assert main(["retrain", str(out / "found"), *TRAINING[:-2], "--batch-size", "40", "--out", str(out / "net")]) == 0
    assert main(["show", "cell", str(out / "found"), "--out", str(out / "shown.svg")]) == 0
    assert main(["show", "genotype", str(out / "found")]) == 0
    assert main(["evaluate", str(out / "net")]) == 0
    after = snapshot(tmp_path)
    assert {path for path in after if after[path] != before.get(path)} == {
        path for path in after if out in path.parents
    }
    assert before.items() <= after.items()

    for page in (path for path in after if path.suffix == ".html"):
        for text in MARKUP:
            assert "<" not in text or text not in after[page].decode()
    drawings = [path for path in after if path.suffix == ".svg"]
    assert len(drawings) == 2
    for page in drawings:
        for element in ElementTree.fromstring(after[page]).iter():
            assert element.tag.rpartition("}")[2] in ELEMENTS
            assert not [name for name in element.attrib if name.startswith("on") or name.endswith("href")]

    capsys.readouterr()
    images = tmp_path / "image.npy"
    Image.fromarray(content["x_train"][0, ..., 0]).save(images.with_suffix(".png"))
    assert main(["predict", str(out / "net"), str(images.with_suffix(".png")), "--json", "--top", "10"]) == 0
    assert set(json.loads(capsys.readouterr().out)["probabilities"]) == set(MARKUP)


def test_control_characters_in_a_name_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, image, out = tmp_path / "data.npz", tmp_path / "new.png", tmp_path / "run"
    names = np.array([f"\x1b]0;title\x07{label}\n" for label in range(10)])
    np.savez(data, **arrays(), class_names=names)
    Image.fromarray(arrays()["x_train"][0, ..., 0]).save(image)
    assert main(["retrain", NETWORK, *TRAINING, "--data", str(data), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["predict", str(out), str(image)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable() and "]0;title" in line


def test_the_summary_of_a_run_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = dict.fromkeys(("test_accuracy", "best_epoch_test_accuracy", "parameters", "macs", "seconds"), 1.0)
    seconds = {"search_seconds": 1.0, "retraining_seconds": 1.0}
    print_summary(
        Path("run"), {"data": "[/bold]", "seed": 0, **numbers, **seconds, "forecast": {**seconds, "error": 0}}
    )
    assert "[/bold], seed 0" in capsys.readouterr().out


# -- paths -------------------------------------------------------------------------------------------------------------


def test_members_of_an_archive_that_point_outside(tmp_path: Path, canary: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = inside / "data.npz"
    np.savez(path, **arrays())
    with zipfile.ZipFile(path, "a") as file:
        for name in ("../../canary", "../../canary.npy", str(canary), "x_train/../../../canary"):
            file.writestr(name, b"harm")
    before = snapshot(tmp_path)
    assert load(str(path)).num_classes == 10
    assert snapshot(tmp_path) == before


@pytest.fixture
def begun(tmp_path: Path, trained: Path) -> Path:
    """Somebody else's run that is not done: the checkpoints are gone."""
    run = tmp_path / "theirs" / "run"
    shutil.copytree(trained, run)
    for name in ("status.json", "summary.json", "model.json", "model.safetensors"):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoints")
    return run


def test_a_configuration_that_names_another_place(tmp_path: Path, begun: Path) -> None:
    config = json.loads((begun / "config.json").read_text())
    config["settings"]["out"] = str(tmp_path / "elsewhere")
    (begun / "config.json").write_text(json.dumps(config))
    assert main(["resume", str(begun)]) == 0
    assert (begun / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.lock", "status.json", "model.safetensors", "checkpoints"])
def test_links_that_lead_out_of_a_run(
    tmp_path: Path, begun: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    victim = tmp_path / "victim"
    if name == "checkpoints":
        victim.mkdir()
    else:
        victim.write_text('{"state": "running"}\n')
    before = victim.stat().st_mtime_ns, snapshot(tmp_path / "victim") if victim.is_dir() else victim.read_text()
    (begun / name).unlink(missing_ok=True)
    (begun / name).symlink_to(victim)
    assert main(["resume", str(begun)]) in (0, 2, 4, 6)
    assert "internal error" not in capsys.readouterr().err
    assert before == (
        victim.stat().st_mtime_ns,
        snapshot(tmp_path / "victim") if victim.is_dir() else victim.read_text(),
    )


def test_a_checkpoint_made_by_hand(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its checksum is right, what it says is not."""
    whole = checkpoint.load(max((trained / "checkpoints").iterdir()))
    victim = tmp_path / "victim.jsonl"
    victim.write_text("mine\n")
    made: list[tuple[dict[str, Any], int]] = [
        ({}, 0),
        ({"journals": {"../../victim.jsonl": 0, str(victim): 0}}, 0),
        ({"journals": {"metrics.jsonl": "all"}}, 4),
        ({"journals": {"metrics.jsonl": -1}}, 4),
        ({"journals": []}, 4),
        ({"epoch": -5}, 4),
        ({"step": -1}, 4),
        ({"epoch": "last"}, 4),
        ({"epoch": 10**9}, 0),
        ({"step": 10**9}, 0),
        ({"task": {}}, 4),
        ({"task": []}, 4),
    ]
    for number, (changed, exit_code) in enumerate(made):
        run = tmp_path / f"theirs{number}" / "run"
        shutil.copytree(trained, run)
        (run / "status.json").unlink()
        for file in (run / "checkpoints").iterdir():
            checkpoint.save(file, whole | changed)
        assert main(["resume", str(run)]) == exit_code, changed
        assert "internal error" not in capsys.readouterr().err
    assert victim.read_text() == "mine\n"


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_no_secret_of_the_environment_is_in_a_run(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hunter2-0123456789abcdef"
    for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "CDARTS_TOKEN", "PASSWORD", "LD_SECRET", "USER", "HOSTNAME"):
        monkeypatch.setenv(name, secret)
    out = tmp_path / "run"
    assert main([*SEARCH, "--data", str(archive), "--out", str(out)]) == 0
    assert main(["retrain", str(out), *TRAINING, "--out", str(tmp_path / "net")]) == 0
    files = snapshot(tmp_path)
    assert len(files) > 15
    assert not [path for path, content in files.items() if secret.encode() in content]


def test_published_cells_are_not_taken_for_harm() -> None:
    for name in zoo.names():
        zoo.find(name)
