"""Go on with a run that was stopped, from its last checkpoint, to the same bits as if it had not been."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cdarts.commands.common import Setup, announce
from cdarts.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Resume a run; it goes on with the settings it was started with, but for what is named here."""

    run_dir: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    on_nonfinite: Literal["stop", "skip"] | None = None
    """What becomes, this time, of a batch that makes a gradient infinite or not a number."""

    def run(self) -> int:
        announce("resume", str(self.run_dir))
        settings = settings_of(self.run_dir)
        if self.on_nonfinite is not None:
            settings = replace(settings, on_nonfinite=self.on_nonfinite)
        return settings.resume(self.run_dir)


def settings_of(path: Path) -> Setup:
    """The settings a run was started with. Raises `ConfigurationError` if it is no run of a command that trains."""
    from cdarts.commands.retrain import Retrain
    from cdarts.commands.run import Run
    from cdarts.commands.search import Search
    from cdarts.engine.run_dir import check_run, read_json
    from cdarts.settings import from_json

    check_run(path)
    config = read_json(path / "config.json")
    kinds: dict[str, type[Setup]] = {"search": Search, "retrain": Retrain, "run": Run}
    kind = kinds.get(str(config.get("command")))
    if kind is None:
        raise ConfigurationError(f'{path / "config.json"}: "command" must be one of {", ".join(kinds)}')
    return from_json(kind, config.get("settings"), str(path / "config.json"))


COMMAND = Resume
