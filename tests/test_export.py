"""Exports equal the network that they are made from, stand alone, and refuse what they cannot use."""

import ast
import importlib
import json
import os
import pickle
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cdarts import export as exporting
from cdarts import zoo
from cdarts.data import ImageData, load
from cdarts.errors import CheckpointError, ConfigurationError, DataError, ExportError
from cdarts.export import BATCHES, FORMATS, TOLERANCE, Classifier, Format, OnnxModel, as_images, compare, export
from cdarts.model import CARD, ModelCard, card_of
from cdarts.networks import Network
from cdarts.randomness import generator
from cdarts.retraining import Retraining
from cdarts.spaces import SPACES, AnySpace, DartsSpace, NasBench201Space, ToySpace
from cdarts.topology import Genotype, parse_genotype

CPU = torch.device("cpu")
NEEDED = sum(BATCHES)
ONLY_TORCH = "torch==2.13.0+cpu"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def digits(side: int = 8, channels: int = 1) -> ImageData:
    """Real images, in any size."""
    data = load("digits", image_size=side)
    if channels == 1:
        return data
    train, test = (
        replace(images, pixels=np.ascontiguousarray(images.pixels.repeat(channels, axis=3)))
        for images in (data.train, data.test)
    )
    return replace(data, train=train, test=test, mean=(0.3, 0.31, 0.32), std=(0.37, 0.36, 0.38))


def random_genotype(space: AnySpace, number: int) -> Genotype:
    draw = generator(number, "genotype", space.name)
    sizes = (len(space.all_edges()), len(space.operations))
    return space.derive({kind: torch.rand(sizes, generator=draw).tolist() for kind in space.kinds})


@dataclass(frozen=True)
class Case:
    """A network that is trained for some steps, with auxiliary head and drop-path where its space has room for them."""

    name: str
    space: AnySpace
    genotype: Genotype
    cells: int = 3
    channels: int = 4
    side: int = 8
    image_channels: int = 1

    def train(self, steps: int) -> tuple[ModelCard, Network, np.ndarray]:
        """Card, network and real images."""
        data = digits(self.side, self.image_channels)
        auxiliary = 0.4 if len(self.space.layout(self.cells, self.channels)) > 2 and self.space.name != "toy" else 0.0
        recipe = Retraining(
            space=self.space,
            cells=self.cells,
            channels=self.channels,
            epochs=2,
            batch_size=16,
            auxiliary_weight=auxiliary,
            drop_path=0.3,
        )
        task = recipe.build(self.genotype, data, seed=0, device=CPU, execution="share")
        task.start_epoch(1, task.plan()[1])
        for position, batch in zip(range(steps), task.batches(1), strict=False):
            task.step(position, *batch)
        card = card_of(data, self.space, self.genotype.to_json(), self.cells, self.channels)
        return card, task.network.eval(), data.test.pixels[:NEEDED]


def case_of_zoo(name: str, cells: int = 3, channels: int = 4) -> Case:
    genotype = zoo.load(name)
    return Case(name, SPACES[genotype.space](), genotype, cells, channels)  # type: ignore[call-arg,arg-type]


def random_cases(count: int, cells: int = 3, channels: int = 4) -> list[Case]:
    spaces: list[AnySpace] = [DartsSpace(), NasBench201Space(), ToySpace()]
    return [
        Case(f"{space.name}-{number}", space, random_genotype(space, number), cells, channels)
        for space in spaces
        for number in range(count)
    ]


ODD = Case(
    "odd side, colour, ImageNet stem, pools with BatchNorm",
    DartsSpace(stem_name="imagenet", pool_batchnorm=True),
    zoo.load("darts-v1"),
    side=33,
    image_channels=3,
)
FAST = [*random_cases(2), case_of_zoo("cdarts-nasbench201-1"), ODD]
SLOW = [*random_cases(10, cells=6, channels=8), *(case_of_zoo(name, cells=8, channels=8) for name in zoo.names())]
NOTHING = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
DEAD_END = "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def check(case: Case, steps: int, folder: Path, forms: Sequence[str]) -> None:
    """Every form, read back once more from where it lies now."""
    card, network, pixels = case.train(steps)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for form in forms:
        out = folder / f"{FORMATS[form].stem}{FORMATS[form].suffix}"
        exported = export(card, network, form, out, pixels)
        assert exported.difference <= TOLERANCE
        assert set(exported.files) <= set(folder.iterdir())
        with torch.no_grad():
            expected = network(card.normalise(pixels, CPU)).logits
            for start, count in zip((0, 1, 5), BATCHES, strict=True):
                given = FORMATS[form].load(out)(as_images(pixels[start : start + count]))
                wanted = expected[start : start + count]
                assert float((given - wanted).abs().max() / wanted.abs().max()) < TOLERANCE, (case.name, form)
                assert torch.equal(given.argmax(dim=1), wanted.argmax(dim=1))
    # the network is as it was
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name)
def test_every_form_equals_the_network(case: Case, tmp_path: Path) -> None:
    check(case, 3, tmp_path, list(FORMATS))


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.name)
def test_every_form_equals_the_network_of_many(case: Case, tmp_path: Path) -> None:
    check(case, 20, tmp_path, list(FORMATS))


@pytest.mark.parametrize("text", [NOTHING, DEAD_END])
def test_cells_that_pass_little_on(text: str, tmp_path: Path) -> None:
    check(Case("little", NasBench201Space(), parse_genotype(text)), 3, tmp_path, ["module"])


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("name", SPACES)
def test_modules_of_many_genotypes(name: str, number: int, tmp_path: Path) -> None:
    space: Any = SPACES[name]()  # type: ignore[call-arg]
    check(Case("many", space, random_genotype(space, 100 + number), cells=2 + number % 4), 1, tmp_path, ["module"])


# -- what is compared --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> tuple[ModelCard, Network, np.ndarray]:
    return case_of_zoo("cdarts-cifar10").train(3)


def test_a_wrong_weight_is_found_and_nothing_is_written(
    small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, network, pixels = small
    right = FORMATS["module"]

    def encode(card: ModelCard, classifier: Classifier, name: str) -> Any:
        with torch.no_grad():
            classifier.network.classifier.weight[0, 0] += 1e-2
        return right.encode(card, classifier, name)

    monkeypatch.setitem(FORMATS, "module", Format(right.suffix, right.stem, encode, right.load))
    with pytest.raises(ExportError, match="the export is not the network: for 1 images") as raised:
        export(card, network, "module", tmp_path / "network.py", pixels)
    assert raised.value.exit_code == 8
    assert not list(tmp_path.iterdir())


def test_what_counts_as_a_difference() -> None:
    images = torch.rand(5, 1, 8, 8)

    def first(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images.mean(dim=(1, 2, 3)), images.amax(dim=(1, 2, 3))], dim=1)

    assert compare(first, first, images) == 0.0
    assert 0 < compare(first, lambda images: first(images) * (1 + 5e-6), images) < TOLERANCE
    for wrong in (
        lambda images: first(images) * (1 + 2e-5),
        lambda images: first(images) * float("nan"),
        lambda images: first(images)[:, :1],
        lambda images: first(images[:1]).expand(len(images), -1),  # a batch size that was frozen
    ):
        with pytest.raises(ExportError):
            compare(first, wrong, images)
    with pytest.raises(ExportError, match="classed otherwise"):
        compare(
            lambda images: torch.ones(len(images), 2) + torch.tensor([0.0, 1e-6]),
            lambda x: torch.ones(len(x), 2),
            images,
        )


def test_images_of_another_size(small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path) -> None:
    card, network, _ = small
    with pytest.raises(DataError, match=r"the model takes \(N, 1, 8, 8\)"):
        export(card, network, "module", tmp_path / "network.py", digits(9).test.pixels[:NEEDED])


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "name", "words"),
    [
        ("onnx", "model.pt2", r"named \*\.onnx"),
        ("pt2", "model", r"named \*\.pt2"),
        ("onnx", "absent/model.onnx", "no folder"),
        ("module", "my-net.py", "name of a Python module"),
        ("module", "class.py", "name of a Python module"),
        ("module", "model.py", "would replace"),
    ],
)
def test_names_that_cannot_be(
    small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path, form: str, name: str, words: str
) -> None:
    (tmp_path / CARD).write_text("{}")
    card, network, pixels = small
    with pytest.raises(ConfigurationError, match=words):
        export(card, network, form, tmp_path / name, pixels)
    assert [path.name for path in tmp_path.iterdir()] == [CARD]


# -- ONNX --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_file(small: tuple[ModelCard, Network, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    card, network, pixels = small
    card = replace(card, class_names=('"', *card.class_names[1:]))
    return export(card, network, "onnx", tmp_path_factory.mktemp("onnx") / "model.onnx", pixels).files[0]


def test_what_an_onnx_file_says(onnx_file: Path, small: tuple[ModelCard, Network, np.ndarray]) -> None:
    onnx = importlib.import_module("onnx")
    proto = onnx.load(onnx_file)
    metadata = {item.key: json.loads(item.value) for item in proto.metadata_props}
    assert set(metadata) == {"class_names", "image", "genotype", "cdarts"}
    assert metadata["class_names"] == ['"', *map(str, range(1, 10))]
    assert (metadata["image"]["side"], metadata["image"]["channels"], metadata["image"]["layout"]) == (8, 1, "NCHW")
    assert "shorter side" in metadata["image"]["resize"]["rule"]
    assert metadata["genotype"]["text"] == small[0].genotype["text"]
    (images,), (logits,) = proto.graph.input, proto.graph.output
    assert images.type.tensor_type.elem_type == logits.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    sizes = [dimension.dim_value or dimension.dim_param for dimension in images.type.tensor_type.shape.dim]
    assert (images.name, sizes, logits.name) == ("images", ["batch", 1, 8, 8], "logits")
    assert not any(tensor.external_data for tensor in proto.graph.initializer)


def test_files_tell_nothing_of_the_machine(
    onnx_file: Path, small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path
) -> None:
    card, network, pixels = small
    pt2 = export(card, network, "pt2", tmp_path / "model.pt2", pixels).files[0]
    with zipfile.ZipFile(pt2) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    assert json.loads(inside["archive/extra/class_names.json"]) == list(card.class_names)
    folder = str(Path(exporting.__file__).parent).encode()
    for data in (onnx_file.read_bytes(), *inside.values()):
        assert folder not in data
        assert b"networks.py" not in data


def test_an_onnx_file_takes_images_of_its_size_alone(onnx_file: Path) -> None:
    model = OnnxModel(onnx_file, threads=1)
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    for shape in ((1, 1, 9, 9), (1, 3, 8, 8), (1, 8, 8)):
        with pytest.raises(DataError, match=r"the model takes \(N, 1, 8, 8\)"):
            model(torch.rand(shape))


def complaint(path: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        OnnxModel(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_files_that_are_no_onnx_file(onnx_file: Path, tmp_path: Path) -> None:
    assert "not a readable ONNX file" in complaint(tmp_path / "absent.onnx")
    for data in (b"", b"no model", pickle.dumps({"weights": [1.0]}), onnx_file.read_bytes()[:5000]):
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        assert "not a readable ONNX file" in complaint(path) or "has no 'class_names'" in complaint(path)


def test_an_onnx_file_reads_no_other_file(onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = importlib.import_module("onnx")
    monkeypatch.chdir(tmp_path)
    proto = onnx.load(onnx_file)
    weights = next(tensor for tensor in proto.graph.initializer if tensor.raw_data)
    (tmp_path / "other.bin").write_bytes(weights.raw_data)
    for location in ("other.bin", "../other.bin", str(tmp_path / "other.bin")):
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        del weights.external_data[:]
        weights.external_data.add(key="location", value=location)
        (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
        assert "not a readable ONNX file" in complaint(tmp_path / "model.onnx")


def changed(onnx_file: Path, path: Path, **metadata: str | None) -> Path:
    """A copy with other metadata; None takes a key away."""
    onnx = importlib.import_module("onnx")
    proto = onnx.load(onnx_file)
    kept = {item.key: item.value for item in proto.metadata_props} | metadata
    del proto.metadata_props[:]
    for key, value in kept.items():
        if value is not None:
            proto.metadata_props.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    return path


def test_onnx_files_of_another_program_or_network(onnx_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    image = json.dumps({"side": 9, "channels": 1})
    assert "not one of cdarts export" in complaint(changed(onnx_file, path, class_names=None))
    assert "not one of cdarts export" in complaint(changed(onnx_file, path, image=None))
    assert "metadata cannot be used" in complaint(changed(onnx_file, path, class_names="{"))
    assert "list of texts" in complaint(changed(onnx_file, path, class_names="[1, 2]"))
    assert "metadata cannot be used" in complaint(changed(onnx_file, path, image="[]"))
    assert "values: must be" in complaint(
        changed(onnx_file, path, image=json.dumps({"side": 8, "channels": 1, "values": 1}))
    )
    assert "not the one that its metadata tell of" in complaint(changed(onnx_file, path, image=image))
    assert "not the one that its metadata tell of" in complaint(changed(onnx_file, path, class_names='["a", "b"]'))


@pytest.mark.parametrize("absent", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_packages(
    small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    card, network, pixels = small
    with pytest.raises(ConfigurationError, match=rf"needs {absent}.*pip install 'cdarts\[export\]'"):
        if absent == "onnxruntime":
            OnnxModel(tmp_path / "model.onnx")
        else:
            export(card, network, "onnx", tmp_path / "model.onnx", pixels)


# -- the module --------------------------------------------------------------------------------------------------------

ALONE = """
import importlib.abc, json, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cdarts", "safetensors", "numpy"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
import warnings
warnings.simplefilter("ignore")  # torch's about a missing NumPy
import torch
from network import CLASS_NAMES, load
network = load()
assert not network.training
images = torch.tensor(json.load(sys.stdin))
with torch.no_grad():
    print(json.dumps({"logits": network(images).tolist(), "classes": CLASS_NAMES}))
assert not {"cdarts", "safetensors", "numpy"} & set(sys.modules)
"""


def test_the_module_needs_torch_alone(small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path) -> None:
    card, network, pixels = small
    export(card, network, "module", tmp_path / "network.py", pixels)
    assert {path.name for path in tmp_path.iterdir()} == {"network.py", "network.safetensors"}
    images = as_images(pixels)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(tmp_path)],
        input=json.dumps(images.tolist()),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["classes"] == list(card.class_names)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(answer["logits"]), Classifier(card, network)(images))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_module_runs_where_only_torch_is_installed(
    small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path
) -> None:
    """In a virtual environment made for it, some 1 GB."""
    card, network, pixels = small
    environment, folder = tmp_path / "environment", tmp_path / "module"
    folder.mkdir()
    export(card, network, "module", folder / "network.py", pixels)
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--extra-index-url", CPU_WHEELS, ONLY_TORCH]
    subprocess.run(install, check=True, timeout=900, env=os.environ | {"PYTHONPATH": ""})
    listed = subprocess.run([python, "-I", "-m", "pip", "list", "--format=json"], check=True, stdout=subprocess.PIPE)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "torch" in names
    assert not names & {"cdarts", "numpy", "safetensors", "torchvision"}
    images = as_images(pixels)
    done = subprocess.run(
        [python, "-I", "-c", ALONE, str(folder)], input=json.dumps(images.tolist()), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["classes"] == list(card.class_names)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(answer["logits"]), Classifier(card, network)(images))


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name)
def test_the_module_reads_well(case: Case) -> None:
    card, network, _ = case.train(0)
    text = exporting.ModuleSource(card, network).text("network")
    tree = ast.parse(text)
    imported = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
    assert imported == {
        "import json",
        "from pathlib import Path",
        "import torch",
        "import torch.nn.functional as F",
        "from torch import Tensor, nn",
    }
    assert max(map(len, text.splitlines())) <= 120
    # no layer stands there that is not used
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    used = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert classes <= used
    assert " ".join(case.genotype.text().split()) in " ".join((ast.get_docstring(tree) or "").split())


def test_class_names_are_text(small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path) -> None:
    card, network, pixels = small
    names = ('"""', "'", "\n", "\u202e", "\\", "{side}", "')\nraise SystemExit('", "Käse", "\x00", " ")
    export(replace(card, class_names=names), network, "module", tmp_path / "network.py", pixels)
    (assigned,) = [
        node
        for node in ast.parse((tmp_path / "network.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CLASS_NAMES"
    ]
    assert ast.literal_eval(assigned.value) == names


def test_weights_of_another_network_and_damaged_ones(
    small: tuple[ModelCard, Network, np.ndarray], tmp_path: Path
) -> None:
    card, network, pixels = small
    path = export(card, network, "module", tmp_path / "network.py", pixels).files[-1]
    weights = tmp_path / "network.safetensors"
    whole = weights.read_bytes()
    other_card, other, _ = case_of_zoo("darts-v1").train(0)
    export(other_card, other, "module", tmp_path / "other.py", pixels)
    for data in (b"", b"no weights", whole[:100], whole[:-100], (tmp_path / "other.safetensors").read_bytes()):
        weights.write_bytes(data)
        with pytest.raises(ValueError, match=r"network\.safetensors does not hold the weights of this network"):
            FORMATS["module"].load(path)
    weights.write_bytes(whole)
    model = FORMATS["module"].load(path)
    for shape in ((1, 1, 9, 9), (1, 3, 8, 8)):
        with pytest.raises(ValueError, match="expected"):
            model(torch.rand(shape))


def test_what_has_no_text_is_an_error() -> None:
    card, network, _ = case_of_zoo("cdarts-cifar10").train(0)
    network.stem = torch.nn.Identity()
    with pytest.raises(ExportError, match="Identity has no text of its own in a module; use --format onnx or pt2"):
        exporting.ModuleSource(card, network)
