"""What every test runs under, and the fixtures that several files share."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("cdarts", deadline=None, derandomize=True, database=None)
settings.load_profile("cdarts")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One thread a worker: the number of threads changes bits, and workers share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cdarts_data() -> Path:
    """The folder of real data that $CDARTS_DATA names: the NAS-Bench-201 table and a CIFAR-10 subset."""
    root = os.environ.get("CDARTS_DATA")
    if not root:
        pytest.skip("needs the benchmark table or CIFAR-10: set CDARTS_DATA to the folder that holds them")
    return Path(root)
