"""What the commands that train have in common: the flags of a process, and how a run begins and ends."""

import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from cdarts import __version__
from cdarts.errors import CdartsError, ConfigurationError, DiskError
from cdarts.settings import STRICT
from cdarts.spaces import AnySpace, DartsSpace
from cdarts.statistics import binomial_interval

if TYPE_CHECKING:
    import torch

    from cdarts.data import ImageData
    from cdarts.engine.run_dir import RunDir
    from cdarts.engine.runtime import StopFlag
    from cdarts.engine.task import Task


BALANCE: dict[str, bool | None] = {"auto": None, "on": True, "off": False}

SMALL_SIDE, IMAGENET_SIDE = 64, 224
"""Largest sides of a folder's images, in pixels, where no size is asked for: usually, and with the ImageNet stem."""

SetupT = TypeVar("SetupT", bound="Setup")

ExecutionChoice = Literal["auto", "plain", "share", "merged", "captured", "fused", "recompute"]
TaskT = TypeVar("TaskT", bound="Task")


@dataclass(frozen=True, kw_only=True)
class Setup(ABC):
    """Data, seed and machine."""

    __pydantic_config__: ClassVar = STRICT

    data: str | None
    """Name of a data set, folder of images, or .npz file; None where a command has yet to find out."""
    data_root: Path | None = None
    """Where downloaded data sets lie; $CDARTS_DATA, else ~/.cache/cdarts."""
    image_size: int | None = None
    """Side that images are brought to; folders choose one by themselves."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What becomes of a folder with images that cannot be read: `skip` leaves them out and lists them in the run."""
    images: Literal["auto", "memory", "files"] = "auto"
    """Where images of a folder are kept: `files` reads them from disk whenever they are needed, `auto` does so if they
    would take more than 2 GiB of memory."""
    workers: int | None = None
    """Threads that read images from files ahead of the steps; None: one for each core, at most 8; 0: no thread of
    their own. Their number changes no number."""
    class_balance: Literal["auto", "on", "off"] = "auto"
    """Whether training draws all classes equally often, however many images they have: `auto` does for folders and
    archives whose largest class has three times the images of the smallest."""
    seed: int = 0
    """Everything random follows from it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What it computes on; `auto` takes a GPU if there is one."""
    threads: int | None = None
    """Threads torch computes with; recorded, since their number changes the last bits."""
    execution: ExecutionChoice = "auto"
    """How cells are computed, all by the same mathematics: `fused` is fastest on a CPU and needs a C++ compiler, once;
    `recompute` takes less memory, for a little more time; `merged` launches few kernels, for GPUs, and `captured`
    replays them as one record; `share` needs nothing; `plain` is the slow reference. `auto` takes `fused` on a CPU that
    has a compiler, else `share`."""
    checkpoint_seconds: int = 300
    """Longest time between two checkpoints, if no step takes longer; 0: one after every step."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What becomes of a batch that makes a gradient infinite or not a number: `skip` goes on without it, as if it had
    never been, for at most 10 batches."""

    def settled(self: SetupT, device: "torch.device", threads: int) -> SetupT:
        """As a resume needs them: device, threads and execution in use, and absolute paths, so that any working
        directory will do. A resumed run's stay as they are.

        `data` is known by then. Raises `ConfigurationError` if this machine has not what was asked for.
        """
        from cdarts.data import DATASETS, path_of
        from cdarts.execution import choose_execution

        assert self.data is not None
        execution, _ = choose_execution(self.execution, device)
        path = path_of(self.data)
        is_path = self.data not in DATASETS and path.exists()
        return replace(
            self,
            data=str(path.resolve()) if is_path else self.data,
            data_root=None if self.data_root is None else self.data_root.resolve(),
            device="cuda" if device.type == "cuda" else "cpu",
            threads=threads,
            execution=execution,
        )

    def load_data(self) -> "ImageData":
        """Once `data` is known. Raises `DataError`."""
        from cdarts.data import load

        assert self.data is not None
        return load(
            self.data,
            root=self.data_root,
            image_size=self.image_size,
            skip_bad_images=self.on_bad_image == "skip",
            largest_side=self.largest_side(),
            keep=self.images,
            workers=self.workers,
            balance=BALANCE[self.class_balance],
        )

    def largest_side(self) -> int:
        """Of a folder's images where no size is asked for, in pixels."""
        return SMALL_SIDE

    @abstractmethod
    def space_of(self, path: Path) -> AnySpace:
        """The space of the genotype that the run directory `path`, which these settings began, holds."""

    @abstractmethod
    def resume(self, path: Path) -> int:
        """Go on in the run directory `path`, which these settings began; returns an exit code."""

    def machine(self) -> "tuple[torch.device, int]":
        """Choose the device, set the threads, see to it that cells can be executed; raises `ConfigurationError`."""
        from cdarts.engine.runtime import choose_device, set_threads
        from cdarts.execution import choose_execution

        device, threads = choose_device(self.device), set_threads(self.threads)
        _, remark = choose_execution(self.execution, device, lambda line: print(f"note    {line}", flush=True))
        if remark is not None:
            print(f"note    {remark}", flush=True)
        return device, threads


def suited_side(space: AnySpace) -> int:
    """The largest side of a folder's images that suits a space's stem, in pixels."""
    return IMAGENET_SIDE if isinstance(space, DartsSpace) and space.stem_name == "imagenet" else SMALL_SIDE


def announce(command: str, *facts: str) -> None:
    """The first line of a command, before anything slow is imported."""
    print(f"cdarts {__version__}  {command}  {'  '.join(facts)}", flush=True)


def print_costs(seconds: float, seconds_per_step: Mapping[str, float], memory: int, base: int, machine: str) -> None:
    """A dry run's forecast: of time, and of memory in bytes, beside what the program itself takes."""
    from cdarts.durations import clock

    steps = ", ".join(f"{phase} {step:.2f} s" for phase, step in seconds_per_step.items())
    print(f"time    {clock(seconds)} on {machine} (a step: {steps})")
    print(f"memory  {(memory - base) / 2**20:,.0f} MiB beside {base / 2**20:,.0f} MiB of the program itself")


def dry_run(
    build: "Callable[[], TaskT]", sizes: "Callable[[TaskT], list[str]]", device: "torch.device", threads: int
) -> None:
    """Print what a task is and what it will cost on this machine; the task is thrown away.

    `sizes`: the lines that say what it is. Raises `ConfigurationError` if it does not fit into memory.
    """
    from cdarts.engine.forecast import forecast, peak_memory

    with memory_permitting():
        before = peak_memory(device)
        task = build()
        for line in sizes(task):
            print(line, flush=True)
        expected = forecast(task)
        machine = f"{device} with {threads} threads"
        print_costs(expected.seconds, expected.seconds_per_step, peak_memory(device), before, machine)


def accuracy_words(accuracy: float, num_images: int) -> str:
    """``accuracy 0.6167 (95 % interval 0.490 to 0.729, 60 images)``."""
    low, high = binomial_interval(accuracy, num_images)
    return f"accuracy {accuracy:.4f} (95 % interval {low:.3f} to {high:.3f}, {num_images:,} images)"


def describe(data: "ImageData") -> str:
    """A line about a data set, and one for each warning about it."""
    sizes = (
        f"{data.name}: {len(data.train)} training and {len(data.test)} test images, "
        f"{data.side}x{data.side}x{data.channels}, {data.num_classes} classes"
    )
    return "\n".join(f"data    {line}" for line in (sizes, *(f"warning: {text}" for text in data.warnings)))


def note_setting(run_dir: "RunDir", data: "ImageData", device: "torch.device", threads: int) -> None:
    """Write down with what data and on what machine a run begins, or check at a resume that they are the same.

    ``data-skipped.json`` lists images that are left out, ``data.json`` shows some that are not. Raises `DataError` if
    the data have changed.
    """
    from cdarts.report.data_summary import DATA, data_summary_json

    run_dir.write_environment(device=str(device), threads=threads, data=data.fingerprint(), images=data.counts())
    if data.skipped:
        run_dir.write_json("data-skipped.json", dict(data.skipped))
    if not (run_dir.path / DATA).is_file():
        run_dir.write_json(DATA, data_summary_json(data))


def default_out(*words: str) -> Path:
    """``runs/<words>-<time>``."""
    return Path("runs") / f"{'-'.join(word for word in words if word)}-{time.strftime('%Y%m%d-%H%M%S')}"


@contextlib.contextmanager
def session(run_dir: "RunDir", *, page: bool = True) -> "Iterator[StopFlag]":
    """Hold a run directory for a block and leave a true ``status.json`` behind, however the block ends.

    And a true page, ``report.html``; `page`: whether the directory has one. An interruption leaves the block with the
    command that resumes this run; of nested sessions, the outermost one.
    """
    from cdarts.commands.report import leave_page
    from cdarts.engine.runtime import Interrupted, stop_on_signals

    with run_dir, stop_on_signals() as stop:
        run_dir.status("running")
        try:
            with memory_permitting():
                yield stop
        except Interrupted as error:
            _closing_status(run_dir, "interrupted", str(Interrupted(error.number)))
            raise Interrupted(error.number, run_dir.how_to_resume()) from error
        except CdartsError as error:
            _closing_status(run_dir, "failed", str(error))
            raise
        except Exception as error:
            _closing_status(run_dir, "failed", f"{type(error).__name__}: {error}")
            raise
        else:
            run_dir.status("done")
        finally:
            if page:
                leave_page(run_dir.path, failed=sys.exc_info()[0] is not None)


@contextlib.contextmanager
def memory_permitting() -> "Iterator[None]":
    """Say how to mend a lack of memory in a block: raises `ConfigurationError` for it."""
    from cdarts.engine.runtime import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigurationError(
            f"not enough memory; use a smaller --batch-size, fewer --channels or fewer cells ({reason})"
        ) from error


def _closing_status(run_dir: "RunDir", state: str, message: str) -> None:
    """Say how a run ended; on a full disk the error that ended it matters more than its status."""
    with contextlib.suppress(DiskError):
        run_dir.status(state, message)


def config_of(command: str, settings: Any) -> dict[str, Any]:
    """As it is written to ``config.json``."""
    from cdarts.settings import to_json

    return {"command": command, "cdarts": __version__, "settings": to_json(settings)}
