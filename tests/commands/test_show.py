"""`cdarts show`: what it prints is complete and right, and what needs no torch imports none."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from cdarts import zoo
from cdarts.algorithms import ALGORITHMS
from cdarts.commands import show
from cdarts.commands.show_drawing import layers_of
from cdarts.commands.usual import USUAL, usual_network
from cdarts.engine.task import Epoch
from cdarts.errors import ConfigurationError, DiskError, GenotypeError
from cdarts.networks import Network, num_parameters
from cdarts.operations import OPERATIONS
from cdarts.presets import PRESETS, SUMMARIES
from cdarts.report.drawing import draw_genotype
from cdarts.report.network_drawing import draw_network
from cdarts.report.raster import genotype_png, network_png
from cdarts.retraining import RETRAINING_PRESETS, RETRAINING_SUMMARIES
from cdarts.settings import to_json
from cdarts.spaces import SPACES

SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments: str) -> int:
    """As the command line calls it."""
    code: int = tyro.cli(show.COMMAND, args=list(arguments), config=(tyro.conf.AvoidSubcommands,)).run()
    return code


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(*arguments) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(printed(capsys, *arguments, "--json"))


# -- genotype ----------------------------------------------------------------------------------------------------------


def test_a_genotype_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    genotype = zoo.load("darts-v2")
    assert printed_json(capsys, "genotype", "darts-v2") == {
        "name": "darts-v2",
        "space": "darts",
        "parameters": 3_349_342,
        "macs": 528_359_040,
        "cells": 20,
        "channels": 36,
        "classes": 10,
        "stem": "cifar",
        "image_size": 32,
        "text": genotype.text(),
        "genotype": genotype.to_json(),
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["cdarts-imagenet", "--stem", "imagenet"],
            {"cells": 14, "channels": 48, "classes": 1000, "image_size": 224, "parameters": 6_360_256},
        ),
        (
            ["cdarts-imagenet", "--stem", "imagenet", "--classes", "10"],
            {"classes": 10, "cells": 14, "parameters": 6_360_256 - 990 * (768 + 1)},
        ),
        (
            ["cdarts-nasbench201-1"],
            {"space": "nasbench201", "cells": 15, "channels": 16, "parameters": 1_073_466, "macs": 153_272_960},
        ),
        (
            ["cdarts-cifar10", "--cells", "8", "--channels", "16", "--image-size", "16"],
            {"cells": 8, "channels": 16, "classes": 10, "image_size": 16},
        ),
    ],
)
def test_sizes_given_and_usual(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: dict[str, Any]
) -> None:
    shown = printed_json(capsys, "genotype", *arguments)
    assert {key: shown[key] for key in expected} == expected


def test_stride_in_the_stem_quarters_the_multiply_adds_of_the_cells(capsys: pytest.CaptureFixture[str]) -> None:
    whole, half = (printed_json(capsys, "genotype", "p-darts", "--stem", stem) for stem in ("cifar", "half"))
    assert whole["parameters"] == half["parameters"]
    assert whole["macs"] / 4 == pytest.approx(half["macs"], rel=1e-3)


def test_a_genotype_for_people(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = printed(capsys, "genotype", "p-darts")
    for part in (
        "p-darts, space darts",
        str(zoo.file("p-darts")),
        "arXiv 1904.12760",
        "cifar10_test_accuracy 97.5",
        "20 cells, 36 channels, 10 classes, stem cifar, images 32x32x3",
        "parameters  3,433,798",
        "macs        532,174,464",
    ):
        assert part in text
    assert zoo.load("p-darts").text() in text.splitlines(), "on one line, to be copied"
    rows = [line.split() for line in text.splitlines()]
    for kind, choices in zoo.load("p-darts").cells.items():
        for choice in choices:
            assert [kind, str(choice.edge.source), str(choice.edge.target), choice.operation] in rows
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(zoo.load("p-darts").to_json()))
    assert f"file        {path}" in printed(capsys, "genotype", str(path))


def test_a_literal_genotype(capsys: pytest.CaptureFixture[str]) -> None:
    text = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert printed_json(capsys, "genotype", text)["macs"] == 7_783_040
    shown = printed(capsys, "genotype", text)
    assert "file        none: given as text" in shown
    assert "0 is the cell's input" in shown


def test_what_a_file_says_cannot_forge_output(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    provenance = {"source": "[red]x[/red]\x1b[2J\nparameters  1"}
    path.write_text(json.dumps({**zoo.load("darts-v1").to_json(), "provenance": provenance}))
    text = printed(capsys, "genotype", str(path))
    assert "\x1b" not in text
    assert "[red]x[/red]" in text
    assert [line for line in text.splitlines() if line.startswith("parameters")] == ["parameters  3,169,414"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["cdarts-nasbench201-1", "--stem", "imagenet"],
            "--stem imagenet: networks of space nasbench201 have this one: cifar",
        ),
        (["darts-v1", "--classes", "0"], "--classes 0: must be at least 1"),
        (["darts-v1", "--image-size", "7"], "--image-size 7: must be at least 8"),
        (["darts-v1", "--cells", "0"], "cells 0"),
        (["darts-v1", "--channels", "7"], "channels 7"),
        (["darts-v3"], "Did you mean darts-v"),
    ],
)
def test_impossible_wishes_are_refused_before_anything_is_printed(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        run("genotype", *arguments)
    assert complaint in str(error.value)
    assert capsys.readouterr().out == ""


def test_every_space_has_usual_sizes() -> None:
    assert {space for space, _ in USUAL} == set(SPACES)
    for (space, stem), usual in USUAL.items():
        assert usual.space.name == space
        assert getattr(usual.space, "stem_name", "cifar") == stem


# -- genotypes, cell, network ------------------------------------------------------------------------------------------


def test_the_published_cells(capsys: pytest.CaptureFixture[str]) -> None:
    cells = printed_json(capsys, "genotypes")
    assert list(cells) == zoo.names()
    assert cells["cdarts-nasbench201-2"]["operations"] == {
        "none": 1,
        "nor_conv_1x1": 1,
        "nor_conv_3x3": 3,
        "skip_connect": 1,
    }
    assert cells["cdarts-nasbench201-2"]["published"]["row"] == 1317
    words = printed(capsys, "genotypes").split()
    assert set(zoo.names()) <= set(words), "names are not cut short"


def test_a_cell_is_drawn_to_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "cell.svg"
    out.write_text("what was there")
    assert printed(capsys, "cell", "darts-v2", "--out", str(out)).strip() == str(out)
    assert out.read_text(encoding="utf-8") == draw_genotype(zoo.load("darts-v2"), title="darts-v2")
    assert ET.fromstring(out.read_bytes()).tag.endswith("svg")
    assert list(tmp_path.iterdir()) == [out], "no temporary file is left"


def test_a_drawing_of_a_text_form_has_no_title(tmp_path: Path) -> None:
    text = zoo.load("cdarts-nasbench201-1").text()
    assert run("cell", text, "--out", str(tmp_path / "cell.svg")) == 0
    assert (tmp_path / "cell.svg").read_text(encoding="utf-8") == draw_genotype(zoo.load("cdarts-nasbench201-1"))


@pytest.mark.parametrize("name", ["darts-v2", "cdarts-nasbench201-1"])
def test_a_cell_and_a_network_as_pictures(name: str, tmp_path: Path) -> None:
    genotype = zoo.load(name)
    assert run("cell", name, "--out", str(tmp_path / "cell.PNG")) == 0
    assert (tmp_path / "cell.PNG").read_bytes() == genotype_png(genotype, title=name)
    for kind in ("svg", "png"):
        assert run("network", name, "--out", str(tmp_path / f"net.{kind}")) == 0
    usual = usual_network(genotype.space, "cifar", cells=None, channels=None, classes=None, image_size=None)
    layers = layers_of(usual, genotype)
    assert (tmp_path / "net.svg").read_text(encoding="utf-8") == draw_network(genotype, layers, title=name)
    assert (tmp_path / "net.png").read_bytes() == network_png(genotype, layers, title=name)


@pytest.mark.parametrize("command", ["cell", "network"])
def test_drawings_that_cannot_be_written(command: str, tmp_path: Path) -> None:
    for name in ("drawing.pdf", "drawing", "svg"):
        with pytest.raises(ConfigurationError, match=rf"{name}: a drawing's name must end in \.svg or \.png"):
            run(command, "darts-v2", "--out", str(tmp_path / name))
    with pytest.raises(GenotypeError, match="Did you mean darts-v2"):
        run(command, "drats-v2", "--out", str(tmp_path / "drawing.svg"))
    with pytest.raises(DiskError):
        run(command, "darts-v2", "--out", str(tmp_path / "missing" / "drawing.png"))
    assert not list(tmp_path.iterdir())


def test_networks_that_cannot_be_drawn(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "net.svg")]
    with pytest.raises(ConfigurationError, match="104 layers: a network of more than 100 cannot be drawn"):
        run("network", "darts-v2", "--cells", "100", "--channels", "2", *out)
    with pytest.raises(ConfigurationError, match="--stem imagenet: networks of space nasbench201"):
        run("network", "cdarts-nasbench201-1", "--stem", "imagenet", *out)
    assert not list(tmp_path.iterdir())


SIZES = [
    ["cdarts-cifar10"],
    ["darts-v2", "--cells", "8", "--channels", "16"],
    ["pc-darts-imagenet", "--stem", "imagenet"],
    ["p-darts", "--stem", "half", "--classes", "100", "--image-size", "48"],
    ["cdarts-nasbench201-1"],
    ["nasbench201-resnet", "--cells", "3"],
]


@pytest.mark.parametrize("arguments", SIZES, ids=" ".join)
def test_the_layers_have_the_parameters_of_the_network(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shown = printed_json(capsys, "genotype", *arguments)
    printed(capsys, "network", *arguments, "--out", str(tmp_path / "net.svg"))
    root = ET.parse(tmp_path / "net.svg").getroot()
    texts = [[text.text for text in group.iter(f"{SVG}text")] for group in root.iter(f"{SVG}g")
             if group.attrib.get("class", "").startswith("layer ")]  # fmt: skip
    columns = [row for row in texts if len(row) > 2]
    assert columns[0][0] == "image" and columns[0][-1] is None
    assert columns[0][-2] == "\u00d7".join(map(str, (shown["image_size"], shown["image_size"], 3)))
    assert columns[-1][:3] == ["classifier", "linear", f"{shown['classes']} classes"]
    assert sum(int(row[-1].replace(",", "")) for row in columns[1:]) == shown["parameters"]
    assert sum(row[0].startswith("cell ") for row in columns) == shown["cells"]
    assert f"{shown['parameters']:,}" in [text.text for text in root.findall(f"{SVG}text")]


@pytest.mark.parametrize("name", zoo.names())
def test_every_published_cell_makes_layers_of_known_shapes(name: str) -> None:
    genotype = zoo.load(name)
    usual = usual_network(genotype.space, "cifar", cells=6, channels=4, classes=7, image_size=16)
    layers = layers_of(usual, genotype)
    with torch.device("meta"):
        network = Network(
            usual.space,
            usual.space.topology(genotype),
            cells=6,
            channels=4,
            num_classes=7,
            affine=True,
            execution="plain",
        )
    assert sum(layer.parameters for layer in layers) == num_parameters(network)
    cells = [layer for layer in layers if layer.kind in genotype.cells]
    slots = [slot for slot in usual.space.layout(6, 4) if slot.kind is not None]
    assert [(cell.kind, cell.channels) for cell in cells] == [(slot.kind, slot.out_channels) for slot in slots]
    assert [cell.side for cell in cells] == [16 >> slot.stage + (slot.stride == 2) for slot in slots]
    assert all(max(layer.inputs) < index for index, layer in enumerate(layers) if index)


def test_what_the_layers_read() -> None:
    darts = usual_network("darts", "cifar", cells=3, channels=4, classes=7, image_size=16)
    assert [(layer.name, layer.inputs) for layer in layers_of(darts, zoo.load("darts-v2"))] == [
        ("image", ()),
        ("stem", (0,)),
        ("cell 0", (1, 1)),
        ("cell 1", (1, 2)),
        ("cell 2", (2, 3)),
        ("pooling", (4,)),
        ("classifier", (5,)),
    ]
    imagenet = usual_network("darts", "imagenet", cells=2, channels=4, classes=7, image_size=64)
    assert [(layer.name, layer.side, layer.inputs) for layer in layers_of(imagenet, zoo.load("darts-v2"))][1:5] == [
        ("stem 0", 16, (0,)),
        ("stem 1", 8, (1,)),
        ("cell 0", 4, (1, 2)),
        ("cell 1", 2, (2, 3)),
    ]
    single = usual_network("nasbench201", "cifar", cells=3, channels=4, classes=7, image_size=16)
    layers = layers_of(single, zoo.load("cdarts-nasbench201-1"))
    assert [layer.name for layer in layers] == [
        "image", "stem", "cell 0", "reduction 0", "cell 1", "reduction 1", "cell 2",
        "BatchNorm, ReLU", "pooling", "classifier",
    ]  # fmt: skip
    assert [layer.inputs for layer in layers[1:]] == [(index,) for index in range(len(layers) - 1)]


# -- presets, plan -----------------------------------------------------------------------------------------------------


def test_presets_say_what_they_change(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed_json(capsys, "presets")
    assert len(shown) == len(PRESETS) + len(RETRAINING_PRESETS), "no name means two things"
    presets = {name: preset for name, preset in shown.items() if preset["command"] == "search"}
    assert list(presets) == list(PRESETS)
    assert {name: preset["summary"] for name, preset in presets.items()} == SUMMARIES
    assert presets["cdarts"]["differences"] == {}
    smoke = presets["smoke"]["differences"]
    assert smoke["search_cells"] == PRESETS["smoke"].search_cells != PRESETS["cdarts"].search_cells
    assert "batch_size" not in smoke
    assert presets["cdarts-nasbench201"]["space"] == "nasbench201"
    assert presets["cdarts-nasbench201"]["differences"]["space.name"] == "nasbench201"
    official = presets["cdarts-official"]["differences"]
    assert official["search_weights.lr_end"] == PRESETS["cdarts-official"].search_weights.lr_end
    assert not any(isinstance(value, dict) for value in official.values())
    words = printed(capsys, "presets").split()
    assert set(PRESETS) <= set(words)


def test_recipes_of_retraining_are_listed_too(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed_json(capsys, "presets")
    recipes = {name: preset for name, preset in shown.items() if preset["command"] == "retrain"}
    assert {name: recipe["summary"] for name, recipe in recipes.items()} == RETRAINING_SUMMARIES
    assert {name: recipe["settings"] for name, recipe in recipes.items()} == {
        name: to_json(recipe) for name, recipe in RETRAINING_PRESETS.items()
    }
    assert recipes["cifar10"]["differences"] == recipes["cifar100"]["differences"] == {}
    assert recipes["imagenet"]["differences"]["space.stem_name"] == "imagenet"
    assert recipes["quick"]["differences"]["epochs"] == RETRAINING_PRESETS["quick"].epochs
    assert set(RETRAINING_PRESETS) <= set(printed(capsys, "presets").split())


def test_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed_json(capsys, "plan", "smoke", "--data", "synthetic")
    smoke = PRESETS["smoke"]
    assert (shown["preset"], shown["data"]) == ("smoke", "synthetic")
    assert [stage["phase"] for stage in shown["plan"]] == ["pretrain", "warmup", "joint"]
    pretrain, warmup, joint = shown["plan"]
    assert (pretrain["first_cycle"], pretrain["epochs"]) == (None, smoke.pretrain_epochs)
    assert (warmup["first_cycle"], warmup["last_cycle"], warmup["epochs"]) == (
        0,
        smoke.cycles - 1,
        smoke.warmup_epochs,
    )
    assert joint["steps"] == 128 // smoke.batch_size
    assert shown["epochs"] == smoke.pretrain_epochs + smoke.cycles * (smoke.warmup_epochs + smoke.joint_epochs)
    assert shown["steps"] == shown["epochs"] * joint["steps"]
    text = printed(capsys, "plan", "smoke", "--data", "synthetic")
    assert f"0 to {smoke.cycles - 1}" in text
    assert f"{shown['epochs']} epochs, {shown['steps']} steps" in text


def test_cycles_that_go_alike_are_grouped() -> None:
    first = [Epoch("warmup", 3, 0, True), Epoch("warmup", 3, 0), Epoch("joint", 5, 0)]
    again = [Epoch("warmup", 3, 1, True), Epoch("warmup", 3, 1), Epoch("joint", 5, 1)]
    other = [Epoch("joint", 5, 2, True)]
    stages = show.group_plan([Epoch("joint", 5), *first, *again, *other])
    assert stages == [
        show.Stage(None, None, "joint", 1, 5),
        show.Stage(0, 1, "warmup", 2, 3),
        show.Stage(0, 1, "joint", 1, 5),
        show.Stage(2, 2, "joint", 1, 5),
    ]
    assert [stage.total_epochs for stage in stages] == [1, 4, 2, 1]
    assert [stage.total_steps for stage in stages] == [5, 12, 10, 5]
    assert [stage.cycles_in_words() for stage in stages] == ["", "0 to 1", "0 to 1", "2"]
    assert show.group_plan([]) == []


def test_an_unknown_preset() -> None:
    with pytest.raises(
        ConfigurationError, match=r"somke: no preset of that name\. Did you mean smoke\? Presets: cdarts, "
    ):
        run("plan", "somke")


# -- registries --------------------------------------------------------------------------------------------------------


def test_the_registries_are_listed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    for name, registry in (("spaces", SPACES), ("operations", OPERATIONS), ("algorithms", ALGORITHMS)):
        assert list(printed_json(capsys, name)) == list(registry)
        assert set(registry) <= set(printed(capsys, name).split())


def test_what_the_registries_say(capsys: pytest.CaptureFixture[str]) -> None:
    spaces = printed_json(capsys, "spaces")
    assert {name: space["edges"] for name, space in spaces.items()} == {
        name: len(space().all_edges()) for name, space in SPACES.items()
    }
    operations = printed_json(capsys, "operations")
    assert operations["nor_conv_3x3"]["parameters"] == 9 * 16 * 16 + 2 * 16
    assert operations["sep_conv_3x3"] == {"spaces": ["darts"], "parameters": 2 * (9 * 16 + 16 * 16 + 2 * 16)}
    assert operations["max_pool_3x3"]["parameters"] == 0
    algorithms = printed_json(capsys, "algorithms")
    assert "temperature" in algorithms["cdarts"]["settings"]
    assert "cdarts-paper" in algorithms["cdarts"]["presets"]


# -- speed and help ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["presets"],
        ["presets", "--json"],
        ["genotypes"],
        ["spaces"],
        ["algorithms"],
        ["cell", "darts-v2", "--out", "{folder}/cell.svg"],
        ["cell", "darts-v2", "--out", "{folder}/cell.png"],
    ],
    ids=" ".join,
)
def test_no_torch_is_imported(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys, tyro; from cdarts.commands import show\n"
        "assert tyro.cli(show.COMMAND, args=sys.argv[1:]).run() == 0\n"
        "assert 'torch' not in sys.modules"
    )
    words = [word.format(folder=tmp_path) for word in arguments]
    ran = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


@pytest.mark.parametrize(
    "name", ["genotype", "genotypes", "cell", "network", "presets", "plan", "spaces", "operations", "algorithms"]
)
def test_help_comes_from_the_fields(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(name, "--help")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--json Print one JSON object instead." in text or name in ("cell", "network")


def test_a_subcommand_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert "genotype" in capsys.readouterr().err
