"""The benchmark's table, read once."""

from pathlib import Path

import pytest

from cdarts.benchmarks import Table


@pytest.fixture(scope="session")
def table_path(cdarts_data: Path) -> Path:
    """nasbench201.csv.gz of $CDARTS_DATA."""
    path = cdarts_data / "nasbench201.csv.gz"
    if not path.is_file():
        pytest.skip("needs the NAS-Bench-201 table: $CDARTS_DATA holds no nasbench201.csv.gz")
    return path


@pytest.fixture(scope="session")
def table(table_path: Path) -> Table:
    return Table.load(table_path)
