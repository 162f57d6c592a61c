"""Compiles ``kernels.cpp`` on first use, in some seconds, and keeps the library in the user's cache."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch

OPT_OUT = "CDARTS_NO_COMPILER"
"""Environment variable that keeps the compiler from being called, unless it is empty."""

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
    "separable_backward": (POINTER, INT, *[POINTER] * 11, INT, *[POINTER] * 4),
    "dense_forward": (POINTER, INT, *[POINTER] * 3, LONG, POINTER, POINTER),
    "dense_backward": (POINTER, INT, POINTER, POINTER, LONG, POINTER, LONG, POINTER, LONG, *[POINTER] * 5),
    "pool_forward": (POINTER, INT, INT, POINTER, POINTER),
    "pool_backward": (POINTER, INT, INT, *[POINTER] * 4),
    "combine": (LONG, LONG, INT, LONG, *[POINTER] * 5, LONG, INT),
    "moments": (LONG, LONG, INT, *[POINTER] * 3),
    "products": (LONG, LONG, INT, LONG, *[POINTER] * 5),
}
"""What each function of ``kernels.cpp`` takes."""


def kernels(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels for numbers of this type, compiled if they are not yet; None if there cannot be any here."""
    loaded = _loaded(dtype, lambda _: None)
    return None if isinstance(loaded, str) else loaded


def why_unavailable(dtype: torch.dtype, report: Callable[[str], None]) -> str | None:
    """Why there are no kernels for this type; None if there are. `report` hears of a compilation that begins."""
    loaded = _loaded(dtype, report)
    return loaded if isinstance(loaded, str) else None


_LOADED: dict[torch.dtype, ctypes.CDLL | str] = {}
"""What there is by type: kernels, or the reason why there are none. Found out once in a process."""


def _loaded(dtype: torch.dtype, report: Callable[[str], None]) -> ctypes.CDLL | str:
    if dtype not in _LOADED:
        _LOADED[dtype] = _load(dtype, report)
    return _LOADED[dtype]


def compiler_name() -> str:
    """Of the C++ compiler: what $CXX says, else ``c++``."""
    return os.environ.get("CXX") or "c++"


def _load(dtype: torch.dtype, report: Callable[[str], None]) -> ctypes.CDLL | str:
    if dtype not in NAMES:
        return f"there are no kernels for {dtype}"
    if os.environ.get(OPT_OUT):
        return f"{OPT_OUT} is set"
    compiler = shutil.which(compiler_name())
    if compiler is None:
        return f"no C++ compiler ({compiler_name()}) was found"
    try:
        return _declared(ctypes.CDLL(str(_built(compiler, NAMES[dtype], report))))
    except subprocess.CalledProcessError as error:
        words = [line for line in error.stderr.splitlines() if "error" in line] or error.stderr.splitlines()
        return f"{compiler} failed" + (f": {words[0]}" if words else "")
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the kernels could not be compiled: {error}"


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


def _built(compiler: str, name: str, report: Callable[[str], None]) -> Path:
    """The library's path; compiled if it is not there. Another machine, compiler or source makes another name."""
    source = resources.files("cdarts.execution") / "kernels.cpp"
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    parts = [source.read_text(), version, *FLAGS, *map(str, openmp), _processor(), name]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    library = cache_directory() / f"kernels-{name}-{key}.so"
    if library.exists():
        return library
    report("compiling the kernels of fused execution for this machine, once")
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
