"""Compiles ``kernels.cpp`` on first use and keeps the library in the user's cache."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import torch

OPT_OUT = "CDARTS_NO_COMPILER"
"""Environment variable that, set to anything but nothing, keeps the compiler from being called."""

NAMES = {torch.float32: "float", torch.float64: "double"}
"""Types of numbers that the kernels compute in."""

FLAGS = ("-O3", "-march=native", "-std=gnu++17", "-fPIC", "-fopenmp")
"""No -ffast-math: NaN and infinity must show."""


def cache_directory() -> Path:
    """Where compiled libraries are kept: ``cdarts`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "cdarts"


POINTER, LONG, INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "separable_forward": (POINTER, INT, *[POINTER] * 8),
    "separable_backward": (POINTER, INT, *[POINTER] * 11, INT, *[POINTER] * 3),
    "dense_forward": (POINTER, INT, *[POINTER] * 3, LONG, POINTER, POINTER),
    "dense_backward": (POINTER, INT, POINTER, POINTER, LONG, POINTER, LONG, POINTER, LONG, *[POINTER] * 5),
    "pool_forward": (POINTER, INT, INT, POINTER, POINTER),
    "pool_backward": (POINTER, INT, INT, *[POINTER] * 4),
    "combine": (LONG, LONG, INT, LONG, *[POINTER] * 5, INT),
    "products": (LONG, LONG, INT, LONG, *[POINTER] * 4),
}
"""What each function of ``kernels.cpp`` takes."""


@functools.cache
def kernels(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled kernels for numbers of this type; None, after a warning that says why, if there cannot be any."""
    if dtype not in NAMES:
        return None
    reason = unavailable()
    if reason is None:
        try:
            return _declared(ctypes.CDLL(str(_built(NAMES[dtype]))))
        except subprocess.CalledProcessError as error:
            reason = f"the compiler failed: {error.stderr.strip().splitlines()[0] if error.stderr.strip() else error}"
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
    warnings.warn(f"fused execution is not available, share computes the same: {reason}", stacklevel=2)
    return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


def unavailable() -> str | None:
    """Why nothing can be compiled here; None if it can be tried."""
    if os.environ.get(OPT_OUT):
        return f"{OPT_OUT} is set"
    if _compiler() is None:
        return "no C++ compiler (c++) was found"
    return None


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "c++")


def _built(name: str) -> Path:
    """The library's path; compiled if it is not there. Another machine, compiler or source makes another name."""
    source = resources.files("cdarts.execution") / "kernels.cpp"
    compiler = _compiler()
    assert compiler is not None
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    parts = [source.read_text(), version, *FLAGS, *map(str, openmp), _processor(), name]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    library = cache_directory() / f"kernels-{name}-{key}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch, resources.as_file(source) as path:
        made, objects = Path(scratch) / library.name, Path(scratch) / "kernels.o"
        compiling = [compiler, *FLAGS, f"-DREAL={name}", "-c", str(path), "-o", str(objects)]
        subprocess.run(compiling, capture_output=True, text=True, check=True, timeout=600)
        # PyTorch brings its own OpenMP runtime; a second one in the process would compete for the cores
        runtime = [str(openmp[0]), f"-Wl,-rpath,{openmp[0].parent}"] if openmp else ["-fopenmp"]
        linking = [compiler, "-shared", str(objects), *runtime, "-o", str(made)]
        subprocess.run(linking, capture_output=True, text=True, check=True, timeout=600)
        made.replace(library)
    return library


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")
