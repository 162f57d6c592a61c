"""The zoo: every published cell is whole, of its space, says where it comes from, and is found by what users type."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cdarts import zoo
from cdarts.cost import network_cost
from cdarts.distillation import AuxiliaryPool, Embedding
from cdarts.errors import GenotypeError
from cdarts.networks import Network, num_parameters
from cdarts.spaces import SPACES, DartsSpace, NasBench201Space, Space
from cdarts.topology import parse_arch_string

NAMES = [
    "cdarts-cifar10",
    "cdarts-cifar10-2019-12",
    "cdarts-cifar10-2020-02",
    "cdarts-imagenet",
    "cdarts-imagenet-2019-12",
    "cdarts-nasbench201-1",
    "cdarts-nasbench201-2",
    "cdarts-nasbench201-3",
    "darts-v1",
    "darts-v2",
    "drnas-cifar10",
    "drnas-imagenet",
    "fair-darts-d",
    "gdas",
    "mdenas",
    "nasbench201-all-conv3x3",
    "nasbench201-resnet",
    "p-darts",
    "pc-darts-cifar10",
    "pc-darts-imagenet",
    "sgas-1",
    "sgas-2",
    "sgas-2-imagenet",
    "snas-mild",
    "snas-moderate",
]
TABLE = Path(__file__).parents[1] / "docs" / "zoo.md"
COLUMNS = (
    ("cifar10_parameters_millions", 3),
    ("cifar10_macs_millions", 1),
    ("imagenet_parameters_millions", 3),
    ("imagenet_macs_millions", 1),
)
"""The table's columns of pairs, and the decimals of our counts."""


def test_every_published_cell_is_there() -> None:
    assert zoo.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_published_cell_is_whole(name: str) -> None:
    genotype = zoo.load(name)
    SPACES[genotype.space]().check(genotype)
    assert json.loads(zoo.file(name).read_text(encoding="utf-8")) == genotype.to_json()
    assert set(genotype.provenance) == {"source", "published"}
    assert "arXiv" in genotype.provenance["source"]
    assert zoo.find(name) == zoo.find(genotype.text()) == genotype


def test_no_two_names_mean_the_same_cell() -> None:
    assert len({zoo.load(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "cdarts-cifar10",
            "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2), "
            "('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 2)], "
            "normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('dil_conv_5x5', 2), "
            "('skip_connect', 0), ('sep_conv_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2)], "
            "reduce_concat=range(2, 6))",
        ),
        (
            "darts-v2",
            "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
            "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
            "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
            "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
            "reduce_concat=[2, 3, 4, 5])",
        ),
        (
            "cdarts-nasbench201-1",
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|",
        ),
    ],
)
def test_cells_as_their_authors_print_them(name: str, text: str) -> None:
    assert zoo.find(text) == zoo.load(name)


def size(space: Space, name: str, cells: int, channels: int, num_classes: int, side: int) -> tuple[float, float]:
    """Parameters and multiply-adds of a cell's network, in millions."""
    with torch.device("meta"):
        network = Network(
            space,
            space.topology(zoo.load(name)),
            cells=cells,
            channels=channels,
            num_classes=num_classes,
            affine=True,
        )
    cost = network_cost(network, side, 3)
    return cost.parameters / 1e6, cost.macs / 1e6


def rows_of_the_table() -> dict[str, list[str]]:
    """The columns of each cell's row in ``docs/zoo.md``."""
    lines = [line.strip("| ").split(" | ") for line in TABLE.read_text(encoding="utf-8").splitlines()]
    return {line[0].strip("`"): line[1:] for line in lines if len(line) > 1 and line[0].startswith("`")}


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_counted_and_equals_what_was_published(name: str) -> None:
    genotype, row = zoo.load(name), rows_of_the_table()[name]
    published = genotype.provenance["published"]
    assert row[-1] == genotype.provenance["source"]
    if genotype.space == "nasbench201":
        parameters, macs = size(NasBench201Space(), name, 15, 16, 10, 32)
        assert (float(row[0]), float(row[1])) == (pytest.approx(parameters, abs=5e-7), pytest.approx(macs, abs=5e-6))
        return
    counts = [
        *size(DartsSpace(), name, 20, 36, 10, 32),
        *size(DartsSpace(stem_name="imagenet"), name, 14, 48, 1000, 224),
    ]
    for (key, decimals), cell, count in zip(COLUMNS, row[:4], counts, strict=True):
        ours, printed = cell.split(" / ")
        assert ours == f"{count:.{decimals}f}"
        figure, _, footnote = printed.partition(" ")
        if footnote == "[1]":  # with the auxiliary head
            assert name == "fair-darts-d"
            assert published["cifar10_parameters_with_auxiliary_millions"] == float(figure)
            head = Embedding(576, 10, pool=AuxiliaryPool(), affine=True, last_batchnorm=True)
            assert f"{count + num_parameters(head) / 1e6:.2f}" == figure
            assert f"{num_parameters(head):,}" in TABLE.read_text(encoding="utf-8")
        elif figure == "-":
            assert key not in published
        else:
            assert float(figure) == published[key]
            if "parameters" in key and footnote != "[2]":
                assert f"{count:.{len(figure.partition('.')[2])}f}" == figure


def test_the_exceptions_are_these() -> None:
    marked = {name for name, row in rows_of_the_table().items() if any(cell.endswith("]") for cell in row[:4])}
    assert marked == {"darts-v1", "fair-darts-d"}
    assert set(rows_of_the_table()) == set(NAMES)


def test_an_unknown_name_gets_the_nearest_one_and_the_list() -> None:
    with pytest.raises(GenotypeError, match=r"^drats-v2: no published .* Did you mean darts-v2\? .*pc-darts-imagenet"):
        zoo.load("drats-v2")
    with pytest.raises(GenotypeError, match=r"no published cell, genotype file or run .* Did you mean p-darts\?"):
        zoo.find("P-DARTS-2")
    with pytest.raises(GenotypeError) as error:
        zoo.find("zzzzzz")
    assert "Did you mean" not in str(error.value)


def test_genotypes_in_files(tmp_path: Path) -> None:
    genotype = zoo.load("p-darts")
    as_json, as_text = tmp_path / "any.name", tmp_path / "text.txt"
    as_json.write_text(json.dumps(genotype.to_json()))
    as_text.write_text(genotype.text() + "\n")
    assert zoo.find(str(as_json)) == zoo.find(str(as_text)) == genotype
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(GenotypeError, match=r"run: a directory without genotype\.json"):
        zoo.find(str(run))
    (run / "genotype.json").write_text(json.dumps(genotype.to_json()))
    assert zoo.find(str(run)) == genotype


def test_a_name_comes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p-darts").write_text(zoo.load("darts-v1").text())
    assert zoo.find("p-darts") == zoo.load("p-darts")
    assert zoo.find("./p-darts") == zoo.load("darts-v1")


def test_a_literal_text_form() -> None:
    text = "|none~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    assert zoo.find(f" {text}") == parse_arch_string(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("|nor_conv_3x3~0|", "1 edges given"),
        ("|nor_conv_9x9~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'nor_conv_9x9'"),
        ("|none~0|+|none~0", "node 2"),
        ("Genotype(normal=[", "the text ends"),
        ("x" * 5000, "xxx"),
        ("a\0b", "no published cell"),
    ],
)
def test_what_is_no_genotype_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(GenotypeError) as error:
        zoo.find(text)
    assert complaint in str(error.value)


def test_a_genotype_of_an_unknown_space_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps({**zoo.load("darts-v1").to_json(), "space": "moon"}))
    with pytest.raises(GenotypeError, match=r"genotype\.json: unknown space 'moon'; there are darts, nasbench201"):
        zoo.find(str(path))


def test_the_zoo_needs_no_torch() -> None:
    program = "import sys; from cdarts import zoo; zoo.find('darts-v2'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
