"""What every test runs under, and the fixtures that several files share."""

import os
import runpy
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import settings

SOURCE = Path(__file__).parents[1] / "src"

settings.register_profile("cdarts", deadline=None, derandomize=True, database=None)
settings.load_profile("cdarts")


def modules_with_shapes() -> list[str]:
    """The modules of the package whose annotations give shapes."""
    paths = [path for path in SOURCE.rglob("*.py") if "from jaxtyping import" in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths]


# their annotations are checked at every call; those of all modules would take a third of the time of the tests
jaxtyping.install_import_hook(modules_with_shapes(), "beartype.beartype")


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


@pytest.fixture(scope="session")
def write_photos() -> Callable[..., None]:
    """What makes a folder of photos as people have them: benchmarks/photos.py."""
    found: Callable[..., None] = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "photos.py"))[
        "write_photos"
    ]
    return found


@pytest.fixture(scope="session")
def cifar_photos(
    cdarts_data: Path, write_photos: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Three classes of 30 real photos each, of 24 to 48 pixels, in four modes and two formats."""
    archive = cdarts_data / "cifar10_5k1k.npz"
    if not archive.is_file():
        pytest.skip("$CDARTS_DATA holds no cifar10_5k1k.npz")
    with np.load(archive) as arrays:
        pixels, labels = arrays["x_train"], arrays["y_train"]
    chosen = np.concatenate([np.flatnonzero(labels == label)[:30] for label in range(3)])
    folder = tmp_path_factory.mktemp("photos") / "Fotos für heute"
    write_photos(folder, pixels[chosen], labels[chosen], ("avión", "自動車", "bird"), sides=(24, 48))
    return folder
