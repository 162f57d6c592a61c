"""The converter: an archive in the documented form gives the table back, and no pickle runs anything."""

import bz2
import functools
import gzip
import io
import os
import pickle
import re
import runpy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdarts.benchmarks import Table
from cdarts.benchmarks.nasbench201 import NUM_CELLS
from cdarts.benchmarks.natsbench import convert, read_archs, read_cell, read_pickle, seeds_file, table_file
from cdarts.errors import DataError

_ARCHIVES = runpy.run_path(str(Path(__file__).with_name("nats_archive.py")))  # tests are no package
cell_state, save, write_archive = (_ARCHIVES[name] for name in ("cell_state", "save", "write_archive"))

CELLS = [13714, 3, 1835, 10676, 9930, 857]
"""Cells of two and of three seeds; the third is skips alone."""


def without(text: str, *columns: int) -> list[list[str]]:
    """Lines of a table, without some columns."""
    rows = [line.split(",") for line in text.splitlines()]
    return [[value for position, value in enumerate(row) if position not in columns] for row in rows]


def test_a_few_cells_come_back_as_the_table_has_them(table: Table, table_path: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path, table, CELLS)
    cells = [read_cell(archive, index, arch) for index, arch in enumerate(read_archs(archive))]
    with gzip.open(table_path, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    found = gzip.decompress(table_file(cells)).decode()
    index, iso_group = 0, 20
    expected = "\n".join([lines[0], *(lines[1 + cell] for cell in CELLS)])
    assert without(found, index, iso_group) == without(expected, index, iso_group)
    numbers = [[row[index], row[iso_group]] for row in without(found)[1:]]
    assert numbers == [[str(number), str(number)] for number in range(len(CELLS))]
    assert table_file(cells) == table_file(cells), "the same cells give the same bytes"

    arrays = np.load(io.BytesIO(seeds_file(cells)), allow_pickle=False)
    assert set(arrays.files) == set(table.seeds)
    for name, values in table.seeds.items():
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays[name], values[CELLS])


def test_file_names_without_leading_zeros(table: Table, tmp_path: Path) -> None:
    archive = write_archive(tmp_path, table, CELLS[:1])
    expected = read_cell(archive, 0, table.archs[CELLS[0]])
    (archive / "000000.pickle.pbz2").rename(archive / "0.pickle.pbz2")
    assert read_cell(archive, 0, table.archs[CELLS[0]]) == expected


def test_functions_that_are_the_same_get_one_number(table: Table, tmp_path: Path) -> None:
    group = table.columns["iso_group"]
    twins = np.flatnonzero(group == group[3])[:2].tolist()
    archive = write_archive(tmp_path, table, [0, twins[0], 1, twins[1]])
    cells = [read_cell(archive, index, arch) for index, arch in enumerate(read_archs(archive))]
    rows = gzip.decompress(table_file(cells)).decode().splitlines()[1:]
    assert [row.split(",")[-1] for row in rows] == ["0", "1", "2", "1"]


@pytest.mark.slow
def test_the_whole_table_goes_through_an_archive_and_comes_back(table: Table, table_path: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path, table, range(NUM_CELLS), whole_curve=False)
    done: list[int] = []
    cells = convert(archive, done.append)
    assert done == list(range(1, NUM_CELLS + 1))
    assert gzip.decompress(table_file(cells)) == gzip.decompress(table_path.read_bytes())


# -- archives that are not whole ---------------------------------------------------------------------------------------


def test_an_archive_of_few_cells_makes_no_table(table: Table, tmp_path: Path) -> None:
    archive = write_archive(tmp_path, table, CELLS)
    with pytest.raises(DataError, match=r"meta\.pickle\.pbz2: lists 6 architectures; the benchmark has 15,625"):
        convert(archive, print)


def test_missing_files(table: Table, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder with meta\.pickle\.pbz2; expected NATS-Bench's topology archive"):
        read_archs(tmp_path)
    archive = write_archive(tmp_path, table, CELLS)
    with pytest.raises(DataError, match=r"000006\.pickle\.pbz2 is missing; the archive is not whole"):
        read_cell(archive, 6, table.archs[0])


@pytest.mark.parametrize(
    ("meta", "complaint"),
    [
        ({"archs": []}, "meta_archs is missing"),
        ([], "expected a dictionary, found list"),
        ({"meta_archs": "|none~0|"}, "meta_archs: expected a list of architectures"),
        ({"meta_archs": ["|none~0|"]}, r"meta_archs\[0\]: '\|none~0\|' is no cell of NAS-Bench-201"),
        ({"meta_archs": [7]}, r"meta_archs\[0\]: '7' is no cell"),
        ({"meta_archs": ["|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"] * 2}, "stands there twice"),
    ],
)
def test_a_wrong_list_of_architectures(tmp_path: Path, meta: object, complaint: str) -> None:
    save(tmp_path / "meta.pickle.pbz2", meta)
    with pytest.raises(DataError, match=complaint):
        read_archs(tmp_path)


Damage = Callable[[dict[str, Any]], object]
RUN = ("cifar10", 777)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda state: state.pop("12"), r"000000\.pickle\.pbz2: 12 is missing"),
        (lambda state: state["200"].pop("all_results"), "200: all_results is missing"),
        (lambda state: state["200"].update(arch_str="|none~0|"), r"200: arch_str is '\|none~0\|'; meta"),
        (lambda state: state["200"]["dataset_seed"].pop("cifar100"), "dataset_seed: cifar100 is missing"),
        (lambda state: state["200"]["dataset_seed"].update(cifar100=[]), "cifar100: expected a list of seeds"),
        (
            lambda state: state["200"]["dataset_seed"].update(cifar100=[777]),
            "data sets have different numbers of seeds",
        ),
        (lambda state: state["200"]["dataset_seed"].update(cifar100=[[]]), r"\('cifar100', \[\]\) is missing"),
        (lambda state: state["200"]["all_results"].pop(RUN), r"all_results: \('cifar10', 777\).* is missing"),
        (lambda state: state["200"]["all_results"].update({RUN: 5}), "expected a dictionary, found int"),
        (lambda state: state["200"]["all_results"][RUN].update(epochs=300), "eval_acc1es: ori-test@299 is missing"),
        (lambda state: state["200"]["all_results"][RUN].update(epochs="x"), "epochs: expected a number, found 'x'"),
        (lambda state: state["200"]["all_results"][RUN].update(flop=None), "flop: expected a number, found 'None'"),
        (lambda state: state["200"]["all_results"][RUN].update(params=True), "params: expected a number, found 'True'"),
        (
            lambda state: state["200"]["all_results"][RUN].update(params=np.nan),
            "params: expected a number, found 'nan'",
        ),
        (
            lambda state: state["12"]["all_results"][RUN]["eval_acc1es"].update({"ori-test@11": 100.5}),
            "eval_acc1es: ori-test@11: 100.5 is no percentage",
        ),
        (
            lambda state: state["200"]["all_results"]["cifar100", 777].update(train_times=None),
            "train_times: expected seconds by epoch",
        ),
    ],
)
def test_a_cell_that_is_not_as_documented(table: Table, tmp_path: Path, damage: Damage, complaint: str) -> None:
    state = cell_state(table, 0)
    damage(state)
    save(tmp_path / "000000.pickle.pbz2", state)
    with pytest.raises(DataError, match=complaint) as error:
        read_cell(tmp_path, 0, table.archs[0])
    assert str(tmp_path / "000000.pickle.pbz2") in str(error.value)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "000000.pickle.pbz2"
    whole = bz2.compress(pickle.dumps({"a": [1.5] * 1000}, protocol=4))
    middle = len(whole) // 2
    for data in (
        b"",
        b"no bz2",
        whole[:middle],
        whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        bz2.compress(b""),
        bz2.compress(b"no pickle"),
        bz2.compress(pickle.dumps([1, 2], protocol=4)[:-3]),
        bz2.compress(b"\x80\x04\x8c\xff."),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=re.escape(f"{path}: not a readable")):
            read_pickle(path)
    with pytest.raises(DataError, match="not a readable bz2 file"):
        read_pickle(tmp_path / "missing")


def test_a_file_that_unpacks_without_end(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bz2.compress(bytes(65 * 1024 * 1024), compresslevel=1))
    with pytest.raises(DataError, match="more than 67,108,864 bytes once decompressed"):
        read_pickle(path)


# -- pickles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [3, 4])
def test_containers_numbers_and_strings_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "plain"
    value = {
        "text": "Grüße",
        "numbers": [1, -2.5, 10**30, True, None],
        "tuple": (1, (2,)),
        ("key", 3): OrderedDict([(0, 1.0), (1, 2.0)]),
        "set": {1, 2},
    }
    save(path, value, protocol=protocol)
    assert read_pickle(path) == value


@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(0.5), np.int64(-7), np.uint8(200), np.bool_(True)])
def test_numpys_numbers_become_pythons(tmp_path: Path, number: np.generic) -> None:
    path = tmp_path / "number"
    save(path, [number])
    found = read_pickle(path)
    assert found == [number.item()]
    assert isinstance(found, list) and type(found[0]) is type(number.item())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(4, dtype=">i4"),
        np.zeros((0, 3)),
    ],
)
def test_numpys_arrays_of_numbers_are_read(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "array"
    save(path, {"array": array})
    found = read_pickle(path)
    assert isinstance(found, dict)
    np.testing.assert_array_equal(found["array"].values, array)


def test_numpys_old_and_new_module_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "number"
    data = pickle.dumps([np.float64(1.5)], protocol=3)
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        path.write_bytes(bz2.compress(re.sub(rb"numpy\._?core\.multiarray", name, data)))
        assert read_pickle(path) == [1.5]


class Runs:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def objects(value: object) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


HOSTILE: dict[str, Callable[[Path], object]] = {
    "os.system": lambda canary: Runs(os.system, f"touch {canary}"),
    "eval": lambda canary: Runs(eval, f"open({str(canary)!r}, 'w')"),
    "exec": lambda canary: Runs(exec, f"open({str(canary)!r}, 'w')"),
    "open": lambda canary: Runs(open, str(canary), "w"),
    "__import__": lambda _: Runs(__import__, "os"),
    "deep inside": lambda canary: {"meta_archs": [("a", {"b": Runs(os.system, f"touch {canary}")})]},
    "an object array": lambda canary: objects(Runs(os.system, f"touch {canary}")),
    "an object array of plain values": lambda _: objects([1, 2]),
    "a record array": lambda _: np.zeros(2, dtype=[("a", "f8"), ("b", "O")]),
    "a text array": lambda _: np.array(["a"]),
    "a date": lambda _: np.datetime64("2020-01-01"),
    "a class of ours": lambda canary: Path(canary),
    "a partial function": lambda _: functools.partial(print),
    "numpy.load": lambda canary: Runs(np.load, str(canary)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path: Path, name: str, protocol: int) -> None:
    canary, path = tmp_path / "canary", tmp_path / "hostile"
    save(path, HOSTILE[name](canary), protocol=protocol)
    with pytest.raises(DataError, match=re.escape(f"{path}: ")):
        read_pickle(path)
    assert not canary.exists()


SYSTEM = b"cposix\nsystem\n"
HANDMADE: dict[str, bytes] = {
    "the oldest opcode for an instance": b"(S'touch canary'\niposix\nsystem\n.",
    "an object built from a class": b"(" + SYSTEM + b"S'touch canary'\no.",
    "a name through the stack": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch canary\x85R.",
    "a dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x10OrderedDict.keys\x93.",
    "a persistent object": b"\x80\x04\x8c\x01x\x51.",
    "an extension": b"\x80\x02\x82\x01.",
    "a constructor that is changed": b"\x80\x02cnumpy\ndtype\n}X\x06\x00\x00\x00_buildX\x01\x00\x00\x00xsb.",
    "an array built directly": b"\x80\x02cnumpy\nndarray\n)R.",
    "a new object of a stand-in": b"\x80\x02cnumpy\ndtype\n)\x81.",
    "a scalar without a type": b"\x80\x02cnumpy.core.multiarray\nscalar\nK\x01K\x02\x86R.",
    "a type made of fields": (
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R(K\x03X\x01\x00\x00\x00<N(X\x01\x00\x00\x00atNK\x08K\x01K\x00tb."
    ),
    "an array whose state is a text": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)RX\x01\x00\x00\x00xb.",
    "a set that is changed": b"\x80\x02cbuiltins\nset\n}X\x03\x00\x00\x00addK\x01sb.",
}


@pytest.mark.parametrize("name", HANDMADE)
def test_handmade_pickles_are_refused_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile"
    path.write_bytes(bz2.compress(HANDMADE[name]))
    with pytest.raises(DataError, match=re.escape(f"{path}: ")):
        read_pickle(path)
    assert not Path("canary").exists()
    # and what is admitted still works
    save(path, [np.float64(1.5), {1}])
    assert read_pickle(path) == [1.5, {1}]


def test_the_hostile_pickles_would_run_if_they_were_let(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(HOSTILE["os.system"](canary)))  # noqa: S301 (to see that the other tests test something)
    assert canary.exists()
