"""Whether this machine can do the work: versions, device, disk, checkpoints, data; what is wrong and how to mend it."""

import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdarts.commands.common import announce
from cdarts.errors import CdartsError, CheckpointError, ConfigurationError, DiskError

LARGE, SMALL = 16 * 2**20, 4 * 2**10
"""Bytes of the files that the disk is tried with."""

SMALL_FILES = 10


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check this machine; nothing stays behind. Ends with 0, or with the exit code of the first thing that is wrong."""

    path: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path()
    """Where runs will be written; that disk is tried."""

    def run(self) -> int:
        announce("doctor", f"path {self.path}")
        folder = self.path.expanduser()
        checks: dict[str, Callable[[], Iterator[str]]] = {
            "device": device,
            "compiler": compiler,
            "disk": lambda: disk(folder),
            "data": data,
            "table": table,
        }
        for line in versions():  # without torch nothing else can be checked
            print(f"{'versions':8}  {line}", flush=True)
        errors = []
        for name, check in checks.items():
            try:
                for line in check():
                    print(f"{name:8}  {line}", flush=True)
            except CdartsError as error:
                print(f"{name:8}  FAILED", flush=True)
                print(f"error: {error}", file=sys.stderr, flush=True)
                errors.append(error)
        print(f"{len(errors)} of {len(checks)} checks failed" if errors else "all is well")
        return errors[0].exit_code if errors else 0


def versions() -> Iterator[str]:
    """Raises `ConfigurationError` if a library cannot be imported."""
    yield f"python {platform.python_version()}, {platform.platform()}"
    try:
        import numpy
        import torch
        import torchvision
    except (ImportError, OSError) as error:  # OSError: a shared library that is missing or made for another machine
        raise ConfigurationError(f"{error}; install the library anew, in a version that cdarts names") from error
    yield f"torch {torch.__version__}, torchvision {torchvision.__version__}, numpy {numpy.__version__}"


def device() -> Iterator[str]:
    """What torch computes on, and with how many threads."""
    import torch

    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory
        yield f"cuda {index}: {torch.cuda.get_device_name(index)}, {memory / 2**30:.1f} GiB"
    if not torch.cuda.is_available():
        yield "cpu only: torch sees no CUDA device"
    threads, cores = torch.get_num_threads(), usable_cores()
    processor = platform.processor() or platform.machine()
    yield f"{threads} threads on {cores} of {os.cpu_count()} cores that this process may use, {processor}"
    if threads > cores:
        yield f"more threads than cores slow each other down: use --threads {cores}"


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compiler() -> Iterator[str]:
    """What makes the kernels of the fastest execution; without it there is another."""
    import torch

    from cdarts.execution.compiler import compiler_name, why_unavailable

    found = shutil.which(compiler_name())
    if found is None:
        yield f"no C++ compiler ({compiler_name()}) was found: execution share is taken, at half the speed of fused"
        return
    try:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=5, check=False)
        version = next(iter(done.stdout.splitlines()), "")
    except (OSError, subprocess.TimeoutExpired) as error:
        version = f"does not answer: {error}"
    yield f"{found}  {version}"
    reason = why_unavailable(torch.float32, lambda _: None)
    yield "kernels of execution fused: ready" if reason is None else f"execution share, not fused: {reason}"


def disk(folder: Path) -> Iterator[str]:
    """Room, speed, and whether checkpoints come back as they were written. Raises `DiskError`, `CheckpointError`."""
    from cdarts.engine.files import write_bytes

    with scratch(folder) as path:
        yield f"{shutil.disk_usage(path).free / 2**30:,.1f} GiB free in {folder.resolve()}"
        large = seconds(lambda: write_bytes(path / "large", os.urandom(LARGE)))
        small = statistics.median(
            seconds(lambda: write_bytes(path / "small", os.urandom(SMALL))) for _ in range(SMALL_FILES)
        )
        yield f"{LARGE / 2**20 / large:,.0f} MiB/s written and flushed; a small file takes {1000 * small:.1f} ms"
        try_checkpoint(path / "state.safetensors")
        yield "a checkpoint comes back to the bit, and a flipped bit is noticed"


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder of its own for a block, gone afterwards. Raises `DiskError`."""
    try:
        path = Path(tempfile.mkdtemp(prefix=".cdarts-doctor-", dir=folder))
    except OSError as error:
        raise DiskError(
            f"--path {folder}: cannot be written to: {error.strerror or error}; name another folder"
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def seconds(action: Callable[[], None]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def try_checkpoint(path: Path) -> None:
    """Raises `DiskError`; `CheckpointError` if it comes back changed, or damage goes unnoticed."""
    import torch

    from cdarts.engine import checkpoint

    weight = torch.arange(2**16, dtype=torch.float32)
    checkpoint.save(path, {"weight": weight, "step": 7})
    state = checkpoint.load(path)
    if state["step"] != 7 or not torch.equal(state["weight"], weight):
        raise CheckpointError(
            f"a checkpoint in {path.parent.parent} does not come back as it was written: use another disk"
        )
    damaged = bytearray(path.read_bytes())
    damaged[-weight.nbytes // 2] ^= 1
    path.write_bytes(damaged)
    try:
        checkpoint.load(path)
    except CheckpointError:
        return
    raise CheckpointError("a flipped bit in a checkpoint goes unnoticed: install cdarts anew")


def data() -> Iterator[str]:
    """Which data sets need no download."""
    from torchvision.datasets import CIFAR10, CIFAR100

    from cdarts.benchmarks.nasbench201 import default_table
    from cdarts.data.subset import ARCHIVE

    root = default_table().parent
    places = {
        "cifar10": CIFAR10.base_folder,
        "cifar10-5k": ARCHIVE,
        "cifar100": CIFAR100.base_folder,
        "fashion-mnist": "FashionMNIST",
    }
    found = [name for name, place in places.items() if (root / place).exists()]
    yield f"in {root}: {', '.join(found) or 'nothing yet'}; digits and synthetic are always there"


def table() -> Iterator[str]:
    """The NAS-Bench-201 table, if there is one. Raises `DataError` if it is damaged, or not where a variable says."""
    from cdarts.benchmarks.nasbench201 import VARIABLE, Table, default_table, find_table

    if not os.environ.get(VARIABLE) and not default_table().is_file():
        yield f"no {default_table()}; only query, compare, correlate and ablate need one (cdarts table --help)"
        return
    path = find_table()
    found = Table.load(path)
    yield f"{path}: {len(found.archs):,} cells{'' if found.seeds else ', without accuracies by seed'}"


COMMAND = Doctor
