"""Go on with a run that was stopped, from its last checkpoint, to the same bits as if it had not been."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdarts.commands.common import Setup, announce
from cdarts.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Resume a run; it goes on with the settings it was started with."""

    run_dir: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]

    def run(self) -> int:
        announce("resume", str(self.run_dir))
        return settings_of(self.run_dir).resume(self.run_dir)


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
