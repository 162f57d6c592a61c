"""`cdarts table`: an archive in, the table and the accuracies by seed out; nothing is written if it cannot be made."""

import gzip
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cdarts.benchmarks import Table, natsbench
from cdarts.commands.table import MakeTable
from cdarts.errors import DataError, DiskError

# tests are no package
write_archive: Callable[..., Path] = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "nats_archive.py"))[
    "write_archive"
]

CELLS = range(5)
"""The first cells, whose numbers in the archive are those in the table."""


@pytest.fixture(scope="module")
def table(cdarts_data: Path) -> Table:
    path = cdarts_data / "nasbench201.csv.gz"
    if not path.is_file():
        pytest.skip("needs the NAS-Bench-201 table: $CDARTS_DATA holds no nasbench201.csv.gz")
    return Table.load(path)


@pytest.fixture
def archive(table: Table, tmp_path: Path) -> Path:
    return write_archive(tmp_path, table, CELLS)


@pytest.fixture
def five_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the benchmark had five cells; a whole archive of 15,625 takes half a minute to write."""
    monkeypatch.setattr(natsbench, "NUM_CELLS", len(CELLS))


@pytest.mark.usefixtures("five_cells")
def test_an_archive_becomes_the_table(
    archive: Path, table: Table, cdarts_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "mine.csv.gz"
    out.parent.mkdir()
    assert MakeTable(archive=archive, out=out).run() == 0
    lines = gzip.decompress((cdarts_data / "nasbench201.csv.gz").read_bytes()).decode().splitlines()
    assert gzip.decompress(out.read_bytes()).decode().splitlines() == lines[: len(CELLS) + 1]
    beside = out.parent / "mine_seeds.npz"
    with np.load(beside, allow_pickle=False) as arrays:
        for name, values in table.seeds.items():
            np.testing.assert_array_equal(arrays[name], values[: len(CELLS)])
    assert capsys.readouterr().out.splitlines()[-2:] == [str(out), str(beside)]
    assert {path.name for path in out.parent.iterdir()} == {"mine.csv.gz", "mine_seeds.npz"}


@pytest.mark.usefixtures("five_cells")
def test_by_default_it_is_written_where_it_is_looked_for(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDARTS_DATA", str(tmp_path / "new" / "data"))
    assert MakeTable(archive=archive).run() == 0
    assert (tmp_path / "new" / "data" / "nasbench201.csv.gz").is_file()
    assert (tmp_path / "new" / "data" / "nasbench201_seeds.npz").is_file()


def test_nothing_is_written_from_an_archive_that_is_not_whole(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.csv.gz"
    with pytest.raises(DataError, match=r"lists 5 architectures; the benchmark has 15,625"):
        MakeTable(archive=archive, out=out).run()
    with pytest.raises(DataError, match="no folder with meta"):
        MakeTable(archive=tmp_path / "elsewhere", out=out).run()
    assert list(tmp_path.iterdir()) == [archive]


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DiskError, match="there is no folder"):
        MakeTable(archive=tmp_path, out=tmp_path / "nowhere" / "table.csv.gz").run()
    (tmp_path / "file").touch()
    monkeypatch.setenv("CDARTS_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DiskError, match="cannot make"):
        MakeTable(archive=tmp_path).run()
