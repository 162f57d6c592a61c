"""The NAS-Bench-201 table: known cells have their published numbers, ranks are right, damaged files are refused."""

import csv
import dataclasses
import gzip
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cdarts import zoo
from cdarts.benchmarks import DATASETS, HardwareCosts, Table, find_table, function_class
from cdarts.benchmarks.nasbench201 import COLUMNS, METRICS, NUM_CELLS, all_cells, arch_string, seeds_path
from cdarts.cost import network_cost
from cdarts.errors import ConfigurationError, DataError, GenotypeError
from cdarts.networks import Network
from cdarts.randomness import key
from cdarts.spaces import NasBench201Space
from cdarts.topology import Genotype, parse_arch_string, parse_genotype

RESNET = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
CDARTS = {
    "cdarts-nasbench201-1": (13714, (94.37, 73.09, 46.33)),
    "cdarts-nasbench201-2": (1317, (94.09, 72.57, 45.63)),
    "cdarts-nasbench201-3": (11351, (93.62, 70.10, 44.57)),
}
"""Published cells: row, test accuracies."""


# -- what is known of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CDARTS)
def test_published_cells_have_their_published_accuracies(table: Table, name: str) -> None:
    index, accuracies = CDARTS[name]
    genotype = zoo.load(name)
    results = [table.result(genotype, dataset) for dataset in DATASETS]
    assert {result.index for result in results} == {index}
    # the paper rounds to two decimals
    assert [result.test_200 for result in results] == pytest.approx(accuracies, abs=0.0051)


def test_their_mean_is_the_papers_row(table: Table) -> None:
    for dataset, published in zip(DATASETS, (94.02, 71.92, 45.51), strict=True):
        mean = np.mean([table.result(zoo.load(name), dataset).test_200 for name in CDARTS])
        assert abs(mean - published) <= 0.01 + 1e-9


@pytest.mark.parametrize(
    ("dataset", "rows", "test", "validation"),
    [
        ("cifar10", [6111, 13714], 94.3733, 91.6067),
        ("cifar100", [9930], 73.5133, 73.4933),
        ("imagenet16-120", [857], 47.3111, 46.7333),
    ],
)
def test_the_best_cells(table: Table, dataset: str, rows: list[int], test: float, validation: float) -> None:
    accuracies = table.accuracies(dataset, "test", 200)
    assert np.flatnonzero(accuracies == accuracies.max()).tolist() == rows
    assert table.accuracies(dataset, "val", 200).max() == validation
    for row in rows:
        best = table.result(table.genotype(row), dataset)
        assert (best.test_200, best.rank, best.percentile, best.test_regret) == (test, 1, 100.0, 0.0)
        assert best.val_regret == pytest.approx(validation - best.val_200, abs=1e-6)


def test_a_cell_of_skips_alone(table: Table) -> None:
    genotype = parse_arch_string(arch_string(["skip_connect"] * 6))
    accuracies = [round(table.result(genotype, dataset).test_200, 2) for dataset in DATASETS]
    assert accuracies == [54.30, 15.61, 16.32]


def test_named_cells_of_the_benchmark(table: Table) -> None:
    resnet, convolutions = zoo.load("nasbench201-resnet"), zoo.load("nasbench201-all-conv3x3")
    assert resnet.text() == RESNET
    assert convolutions.operations() == ["nor_conv_3x3"] * 6
    for genotype in (resnet, convolutions):
        published = genotype.provenance["published"]
        assert published["row"] == table.index(genotype)
        for dataset, prefix in (("cifar10", "cifar10"), ("cifar100", "cifar100"), ("imagenet16-120", "imagenet16")):
            result = table.result(genotype, dataset)
            assert published[f"{prefix}_validation_accuracy"] == pytest.approx(result.val_200, abs=0.0051)
            assert published[f"{prefix}_test_accuracy"] == pytest.approx(result.test_200, abs=0.0051)


def test_rows_stand_in_the_benchmarks_order(table: Table) -> None:
    # as the benchmark's own scripts assert it
    assert (
        table.archs[0]
        == "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    assert table.archs[9] == "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    assert table.archs[123] == "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"


def test_a_row_is_what_the_file_says(table: Table, table_path: Path) -> None:
    with gzip.open(table_path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for index in (0, 1, 13714, NUM_CELLS - 1):
        assert list(table.row(index)) == list(COLUMNS) == list(rows[index])
        for name, value in table.row(index).items():
            assert str(value) == rows[index][name] or float(value) == float(rows[index][name])
    first = table.row(0)
    assert (type(first["index"]), type(first["seeds_200"]), type(first["c10_val_12"])) == (int, int, float)


# -- cells -------------------------------------------------------------------------------------------------------------


def test_every_cell_is_found_by_its_text(table: Table) -> None:
    space = NasBench201Space()
    for index, arch in enumerate(table.archs):
        genotype = parse_arch_string(arch)
        assert genotype.text() == arch
        assert table.index(genotype) == index
        assert tuple(space.operations.index(name) for name in genotype.operations()) == table.operations[index]
        assert table.indices_by_operations[table.operations[index]] == index
    assert len(set(table.archs)) == NUM_CELLS


ALPHABET = "|+~0123456789_-. acdeiklmnoprstvx\\'\"(){}\n\t"


def mutant(text: str, draw: np.random.Generator) -> str:
    """A text with one to three small damages: a character replaced, added, lost or doubled, or two parts swapped."""
    for _ in range(draw.integers(1, 4)):
        place = int(draw.integers(len(text)))
        letter = ALPHABET[draw.integers(len(ALPHABET))]
        match draw.integers(6):
            case 0:
                text = text[:place] + letter + text[place + 1 :]
            case 1:
                text = text[:place] + letter + text[place:]
            case 2:
                text = text[:place] + text[place + 1 :] or letter
            case 3:
                text = text[:place] + text[place : place + 1] * 2 + text[place + 1 :]
            case 4:
                text = text[place:] + text[:place]
            case _:
                parts = text.split("|")
                first, second = draw.integers(len(parts), size=2)
                parts[first], parts[second] = parts[second], parts[first]
                text = "|".join(parts)
    return text


def as_written(text: str) -> str:
    """Another way of writing the same cell, without what the reader skips: outer blanks and zeros before a number."""
    return re.sub(r"~0+(?=\d)", "~", text.strip())


def test_damaged_texts_are_refused(table: Table) -> None:
    space = NasBench201Space()
    draw = np.random.default_rng(key(0, "mutants"))
    refused = 0
    while refused < 10_000:
        text = mutant(table.archs[draw.integers(NUM_CELLS)], draw)
        if as_written(text) in all_cells():
            continue
        with pytest.raises(GenotypeError):
            genotype = parse_genotype(text)
            space.check(genotype)
            table.index(genotype)
        refused += 1


def test_cells_of_other_sizes_and_spaces_are_refused(table: Table) -> None:
    with pytest.raises(GenotypeError, match="belongs to space 'darts'; NAS-Bench-201 measured the cells of"):
        table.index(zoo.load("darts-v2"))
    with pytest.raises(GenotypeError, match=r"\|none~0\|: not one of the 15,625 cells"):
        table.index(parse_arch_string("|none~0|"))
    with pytest.raises(GenotypeError, match="belongs to space 'darts'"):
        function_class(zoo.load("darts-v2"))


def test_an_unknown_data_set_is_refused(table: Table) -> None:
    with pytest.raises(
        ConfigurationError, match="cifar11: NAS-Bench-201 has no such data set; it has cifar10, cifar100"
    ):
        table.result(table.genotype(0), "cifar11")


# -- functions ---------------------------------------------------------------------------------------------------------


def test_function_classes_are_the_tables(table: Table) -> None:
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(function_class(table.genotype(index)), len(numbers)) for index in range(NUM_CELLS)]
    assert len(numbers) == 6466
    assert found == table.columns["iso_group"].astype(int).tolist()


def contracted(genotype: Genotype) -> str:
    """What a cell computes, with zeros left out and sums taken apart: written anew, to compare with."""
    states: list[list[str]] = [["x"]]
    for node in (1, 2, 3):
        terms: list[str] = []
        for choice in genotype.cells["cell"]:
            if choice.edge.target != node or choice.operation == "none":
                continue
            source = states[choice.edge.source]
            if source:
                terms += source if choice.operation == "skip_connect" else [f"{choice.operation}({'+'.join(source)})"]
        states.append(sorted(terms))
    return "+".join(states[3])


def test_cells_of_one_class_compute_the_same(table: Table) -> None:
    functions: dict[int, set[str]] = {}
    for index, group in enumerate(table.columns["iso_group"].astype(int).tolist()):
        functions.setdefault(group, set()).add(contracted(table.genotype(index)))
    assert {len(found) for found in functions.values()} == {1}
    # so some cells of different classes compute the same too, as the docstring says
    assert len({text for found in functions.values() for text in found}) == 4930


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        # an operation that nothing reaches
        (
            "none skip_connect none skip_connect none none",
            "none skip_connect nor_conv_3x3 skip_connect none none",
            True,
        ),
        # one convolution, on either side of a skip
        (
            "nor_conv_3x3 none skip_connect none none skip_connect",
            "none nor_conv_3x3 none none none skip_connect",
            True,
        ),
        ("nor_conv_3x3 none none none nor_conv_1x1 none", "nor_conv_3x3 none none none nor_conv_3x3 none", False),
        # the same function with fewer zeros added, which the benchmark tells apart
        ("none nor_conv_3x3 none none none skip_connect", "none none none nor_conv_3x3 none none", False),
    ],
)
def test_functions_of_single_cells(first: str, second: str, same: bool) -> None:
    one, other = (function_class(parse_arch_string(arch_string(names.split()))) for names in (first, second))
    assert (one == other) is same


def test_a_class_by_hand() -> None:
    assert function_class(zoo.load("nasbench201-resnet")) == "#+#+((0)@nor_conv_3x3)@nor_conv_3x3+0"


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_parameters_and_multiply_adds_in_closed_form(table: Table) -> None:
    for index in range(0, NUM_CELLS, 7):
        result = table.result(table.genotype(index), "cifar10")
        assert result.params_m == pytest.approx(table.columns["params_m"][index], abs=1e-9)
        assert result.flops_m == pytest.approx(table.columns["flops_m"][index], abs=1e-9)


@pytest.mark.parametrize(
    ("dataset", "classes", "side"), [("cifar10", 10, 32), ("cifar100", 100, 32), ("imagenet16-120", 120, 16)]
)
def test_costs_are_those_of_the_networks_of_each_data_set(table: Table, dataset: str, classes: int, side: int) -> None:
    space = NasBench201Space()
    for name in ("cdarts-nasbench201-1", "nasbench201-all-conv3x3"):
        genotype = zoo.load(name)
        network = Network(space, space.topology(genotype), cells=15, channels=16, num_classes=classes, affine=True)
        cost, result = network_cost(network, side, 3), table.result(genotype, dataset)
        assert cost.parameters == round(result.params_m * 1e6)
        assert cost.macs == round(result.flops_m * 1e6)


@pytest.mark.parametrize("dataset", DATASETS)
def test_ranks_percentiles_and_regrets_by_sorting(table: Table, dataset: str) -> None:
    accuracies = table.accuracies(dataset, "test", 200).tolist()
    descending = sorted(accuracies, reverse=True)
    counts = Counter(accuracies)
    tied = [index for index in range(NUM_CELLS) if counts[accuracies[index]] > 1]
    for index in [*range(0, NUM_CELLS, 101), *tied[:20]]:
        result = table.result(table.genotype(index), dataset)
        assert result.rank == descending.index(accuracies[index]) + 1
        not_above = sum(other <= accuracies[index] for other in accuracies)
        assert result.percentile == pytest.approx(100 * not_above / NUM_CELLS)
        assert result.test_regret == pytest.approx(descending[0] - accuracies[index], abs=1e-4)
        assert result.test_200 == accuracies[index]
        assert result.train_seconds == table.row(index)[DATASETS[dataset].seconds]


def test_every_accuracy_comes_from_its_column(table: Table) -> None:
    row = table.row(4321)
    for dataset, about in DATASETS.items():
        result = dataclasses.asdict(table.result(table.genotype(4321), dataset))
        for name in ("val_12", "test_12", "val_200", "test_200"):
            assert result[name] == row[f"{about.prefix}_{name}"]
        assert result["iso_group"] == row["iso_group"]
        assert result["iso_cells"] == table.columns["iso_group"].tolist().count(row["iso_group"])


def test_accuracies_by_seed_have_the_tables_means(table: Table) -> None:
    for index in range(0, NUM_CELLS, 1009):
        for dataset in DATASETS:
            result = table.result(table.genotype(index), dataset)
            assert result.seeds_200 is not None
            assert len(result.seeds_200) == table.row(index)["seeds_200"]
            mean = result.val_200 if dataset == "cifar10" else (result.val_200 + result.test_200) / 2
            assert np.mean(result.seeds_200) == pytest.approx(mean, abs=2e-4)


def test_a_table_without_accuracies_by_seed(table: Table, table_path: Path, tmp_path: Path) -> None:
    alone = Table.load(Path(shutil.copy(table_path, tmp_path)))
    expected = dataclasses.replace(table.result(table.genotype(5), "cifar100"), seeds_200=None)
    assert alone.result(alone.genotype(5), "cifar100") == expected


# -- files that are refused --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lines(table_path: Path) -> list[str]:
    with gzip.open(table_path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def written(folder: Path, lines: list[str]) -> Path:
    path = folder / "nasbench201.csv.gz"
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), compresslevel=1))
    return path


def replaced(lines: list[str], line: int, column: str, value: str) -> list[str]:
    """One value changed; lines are counted from 1, as complaints count them."""
    parts = lines[line - 1].split(",")
    parts[COLUMNS.index(column)] = value
    return [*lines[: line - 1], ",".join(parts), *lines[line:]]


@pytest.mark.parametrize(
    ("line", "column", "value", "complaint"),
    [
        (3, "c10_test_200", "many", "line 3: c10_test_200 is 'many'; expected a number from 0 to 100"),
        (3, "c10_test_200", "", "line 3: c10_test_200 is ''; expected a number"),
        (7, "in16_val_12", "nan", "line 7: in16_val_12 is 'nan'; expected a number from 0 to 100"),
        (7, "c100_val_200", "100.5", "line 7: c100_val_200 is '100.5'"),
        (2, "in16_test_200", "-1", "line 2: in16_test_200 is '-1'"),
        (9, "in16_traintime_200", "0", "line 9: in16_traintime_200 is '0'; expected a number from 1e-09"),
        (9, "params_m", "inf", "line 9: params_m is 'inf'"),
        (4, "seeds_200", "2.5", "line 4: seeds_200 is '2.5'; expected a whole number from 1 to 100"),
        (4, "iso_group", "-1", "line 4: iso_group is '-1'; expected a whole number"),
        (5, "index", "7", "line 5: index 7 where 3 is expected"),
        (5, "arch", "|none~0|", "line 5: arch '|none~0|' is no cell of 5 operations"),
        (6, "flops_m", "1,2", "line 6: found 22 values for 21 columns"),
    ],
)
def test_a_wrong_value_is_named(
    lines: list[str], tmp_path: Path, line: int, column: str, value: str, complaint: str
) -> None:
    path = written(tmp_path, replaced(lines, line, column, value))
    with pytest.raises(DataError, match=re.escape(f"{path}, {complaint}")):
        Table.load(path)


def test_missing_and_repeated_rows_and_columns(lines: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 15,624 cells; the table has 15,625"):
        Table.load(written(tmp_path, lines[:-1]))
    with pytest.raises(DataError, match="found 0 cells"):
        Table.load(written(tmp_path, lines[:1]))
    arch = lines[1].split(",")[1]
    with pytest.raises(DataError, match=re.escape(f"line 10: arch {arch!r} stands there twice")):
        Table.load(written(tmp_path, replaced(lines, 10, "arch", arch)))
    head = lines[0].replace("c10_val_12", "c10_val_13")
    with pytest.raises(DataError, match="column c10_val_12 is missing; a table has index, arch, c10_val_200"):
        Table.load(written(tmp_path, [head, *lines[1:]]))
    with pytest.raises(DataError, match=r"column index, arch, .* is missing"):
        Table.load(written(tmp_path, []))


def test_damaged_files(table_path: Path, tmp_path: Path) -> None:
    data = table_path.read_bytes()
    middle = len(data) // 2
    path = tmp_path / "nasbench201.csv.gz"
    for damaged in (
        data[:middle],
        data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
        b"",
        b"not compressed",
        gzip.compress(b"\xff\xfe\x00"),
        gzip.compress(b'index,"arch\n'),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=re.escape(str(path))):
            Table.load(path)
    with pytest.raises(DataError, match="not a readable table"):
        Table.load(tmp_path)


def test_a_file_that_unpacks_without_end(tmp_path: Path) -> None:
    path = tmp_path / "nasbench201.csv.gz"
    path.write_bytes(gzip.compress(bytes(65 * 1024 * 1024), compresslevel=1))
    with pytest.raises(DataError, match="more than 67,108,864 bytes once decompressed"):
        Table.load(path)


def seed_arrays(table: Table) -> dict[str, np.ndarray]:
    return {name: values.copy() for name, values in table.seeds.items()}


def test_seeds_that_do_not_belong_to_the_table(table: Table, table_path: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(table_path, tmp_path))
    beside = seeds_path(path)
    assert beside.name == "nasbench201_seeds.npz"
    arrays = seed_arrays(table)
    np.savez(beside, **arrays)
    assert Table.load(path).seeds.keys() == table.seeds.keys()

    changed = seed_arrays(table)
    changed["c100_valtest_200"][11, 0] += 0.5
    np.savez(beside, **changed)
    with pytest.raises(
        DataError, match=r"seeds\.npz: c100_valtest_200: cell 11 has \d runs of mean .* remove the file"
    ):
        Table.load(path)

    changed = seed_arrays(table)
    changed["in16_valtest_200"][12] = np.nan
    np.savez(beside, **changed)
    with pytest.raises(DataError, match=r"in16_valtest_200: cell 12 has 0 runs of mean 0\.0000"):
        Table.load(path)

    np.savez(beside, **{**arrays, "c10_val_200": arrays["c10_val_200"][:9]})
    with pytest.raises(DataError, match=r"c10_val_200: found float32 \(9, 3\); expected float32 \(15625, seeds\)"):
        Table.load(path)
    np.savez(beside, c10_val_200=arrays["c10_val_200"])
    with pytest.raises(DataError, match="c100_valtest_200: found nothing"):
        Table.load(path)
    np.savez(beside, c10_val_200=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"seeds\.npz: not a readable \.npz archive: Object arrays cannot be loaded"):
        Table.load(path)
    beside.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match="not a readable"):
        Table.load(path)
    with beside.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="a single array"):
        Table.load(path)


# -- where it lies -----------------------------------------------------------------------------------------------------


def test_the_table_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CDARTS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("CDARTS_NASBENCH201", raising=False)
    with pytest.raises(DataError) as error:
        find_table()
    default = tmp_path / "data" / "nasbench201.csv.gz"
    for part in (
        f"{default}: no table",
        "neither --table nor $CDARTS_NASBENCH201",
        f"cdarts table NATS-tss-v1_0-3ffb9-simple --out {default}",
    ):
        assert part in str(error.value)
    default.parent.mkdir()
    default.touch()
    assert find_table() == default

    monkeypatch.setenv("CDARTS_NASBENCH201", "~/mine.csv.gz")
    with pytest.raises(DataError, match=r"mine\.csv\.gz: no table .*\(\$CDARTS_NASBENCH201\)"):
        find_table()
    (tmp_path / "mine.csv.gz").touch()
    assert find_table() == tmp_path / "mine.csv.gz"

    with pytest.raises(DataError, match=r"other\.csv\.gz: no table .*\(--table\)"):
        find_table(Path("~/other.csv.gz"))
    (tmp_path / "other.csv.gz").touch()
    assert find_table(Path("~/other.csv.gz")) == tmp_path / "other.csv.gz"

    monkeypatch.delenv("CDARTS_NASBENCH201")
    monkeypatch.delenv("CDARTS_DATA")
    with pytest.raises(DataError, match=re.escape(str(tmp_path / ".cache" / "cdarts" / "nasbench201.csv.gz"))):
        find_table()


# -- hardware ----------------------------------------------------------------------------------------------------------


def hardware_arrays() -> dict[str, np.ndarray]:
    """Costs that say where they stand: cell + 0.1 * metric, negative for the second data set, halved for the third."""
    return {
        f"{spelt}__{metric}": (factor * (np.arange(NUM_CELLS) + 0.1 * number)).astype(np.float32)
        for spelt, factor in (("cifar10", 1), ("cifar100", -1), ("ImageNet16-120", 0.5))
        for number, metric in enumerate(METRICS)
    }


def test_hardware_costs_by_cell_data_set_and_metric(tmp_path: Path) -> None:
    path = tmp_path / "costs.npz"
    np.savez(path, **hardware_arrays())
    costs = HardwareCosts.load(path)
    assert list(costs.of(3, "cifar10").values()) == pytest.approx([3 + 0.1 * number for number in range(10)])
    assert costs.of(40, "cifar100")["fpga_energy"] == pytest.approx(-40.9)
    assert costs.of(40, "imagenet16-120")["raspi4_latency"] == pytest.approx(20.1)
    with pytest.raises(ConfigurationError, match="no such data set"):
        costs.of(0, "ImageNet16-120")


def test_hardware_costs_as_published(cdarts_data: Path) -> None:
    path = cdarts_data / "hwnasbench201.npz"
    if not path.is_file():
        pytest.skip("needs HW-NAS-Bench's costs: $CDARTS_DATA holds no hwnasbench201.npz")
    costs = HardwareCosts.load(path)
    first = costs.of(0, "cifar10")
    assert first["edgegpu_latency"] == pytest.approx(5.807418, abs=1e-5)
    assert first["eyeriss_arithmetic_intensity"] == pytest.approx(6.289298, abs=1e-5)
    assert costs.of(1, "imagenet16-120")["fpga_energy"] == pytest.approx(13.1488, abs=1e-4)


def test_hardware_costs_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "costs.npz"
    for name, values, found in (
        ("cifar10__pixel3_latency", None, "nothing"),
        ("cifar100__fpga_latency", np.zeros(5, np.float32), r"float32 \(5,\)"),
        ("ImageNet16-120__edgetpu_latency", np.zeros(NUM_CELLS), r"float64 \(15625,\)"),
    ):
        arrays = hardware_arrays()
        del arrays[name]
        np.savez(path, **(arrays if values is None else {**arrays, name: values}))
        with pytest.raises(DataError, match=rf"{name}: found {found}; expected float32 \(15625,\)"):
            HardwareCosts.load(path)
    arrays = hardware_arrays()
    arrays["cifar10__eyeriss_energy"][6] = np.inf
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="cifar10__eyeriss_energy: holds values that are not finite"):
        HardwareCosts.load(path)
    with pytest.raises(DataError, match="not a readable"):
        HardwareCosts.load(tmp_path / "missing.npz")
