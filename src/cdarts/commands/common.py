"""What the commands that train have in common: the flags of a process, and how a run begins and ends."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cdarts import __version__
from cdarts.errors import CdartsError
from cdarts.settings import STRICT

if TYPE_CHECKING:
    import torch

    from cdarts.data import ImageData
    from cdarts.engine.run_dir import RunDir
    from cdarts.engine.runtime import StopFlag


@dataclass(frozen=True, kw_only=True)
class Setup(ABC):
    """Data, seed and machine."""

    __pydantic_config__: ClassVar = STRICT

    data: str = "digits"
    """Name of a data set (digits, cifar10, cifar100, fashion-mnist, synthetic), folder of images, or .npz file."""
    data_root: Path | None = None
    """Where downloaded data sets lie; $CDARTS_DATA, else ~/.cache/cdarts."""
    image_size: int | None = None
    """Side that images are brought to; folders choose one by themselves."""
    seed: int = 0
    """Everything random follows from it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """Threads torch computes with; recorded, since their number changes the last bits."""
    execution: Literal["share", "plain"] = "share"
    """How cells are computed: `plain` is the slow reference of the same mathematics."""

    def load_data(self) -> "ImageData":
        """Raises `DataError`."""
        from cdarts.data import load

        return load(self.data, root=self.data_root, image_size=self.image_size)

    @abstractmethod
    def resume(self, path: Path) -> int:
        """Go on in the run directory `path`, which these settings began; returns an exit code."""

    def machine(self) -> "tuple[torch.device, int]":
        """Choose the device and set the threads; raises `ConfigurationError`."""
        from cdarts.engine.runtime import choose_device, set_threads

        return choose_device(self.device), set_threads(self.threads)


def announce(command: str, *facts: str) -> None:
    """The first line of a command, before anything slow is imported."""
    print(f"cdarts {__version__}  {command}  {'  '.join(facts)}", flush=True)


def describe(data: "ImageData") -> str:
    """One line about a data set."""
    return (
        f"data    {data.name}: {len(data.train)} training and {len(data.test)} test images, {data.side}x{data.side}x{data.channels}, "
        f"{data.num_classes} classes"
    )


def default_out(*words: str) -> Path:
    """``runs/<words>-<time>``."""
    return Path("runs") / f"{'-'.join(word for word in words if word)}-{time.strftime('%Y%m%d-%H%M%S')}"


@contextmanager
def session(run_dir: "RunDir") -> "Iterator[StopFlag]":
    """Hold a run directory for a block and leave a true ``status.json`` behind, however the block ends."""
    from cdarts.engine.runtime import Interrupted, stop_on_signals

    with run_dir, stop_on_signals() as stop:
        run_dir.status("running")
        try:
            yield stop
        except Interrupted as error:
            run_dir.status("interrupted", str(error))
            raise
        except CdartsError as error:
            run_dir.status("failed", str(error))
            raise
        except Exception as error:
            run_dir.status("failed", f"{type(error).__name__}: {error}")
            raise
        run_dir.status("done")


def config_of(command: str, settings: Any) -> dict[str, Any]:
    """As it is written to ``config.json``."""
    from cdarts.settings import to_json

    return {"command": command, "cdarts": __version__, "settings": to_json(settings)}
