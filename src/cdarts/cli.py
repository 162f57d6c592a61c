"""The command line: `cdarts COMMAND ...`. A command's module is imported when it is called, so that help is quick."""

import contextlib
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from cdarts import __version__
from cdarts.errors import CdartsError

COMMANDS: dict[str, str] = {
    "run": "from images to a trained model: search, retrain, evaluate, within a time budget",
    "search": "search an architecture with a preset",
    "retrain": "train the network of a genotype from scratch",
    "evaluate": "accuracy of a trained run on its test images",
    "predict": "classes of images by a trained run",
    "export": "a trained run as ONNX, torch.export or a file of plain torch code",
    "resume": "go on with a run that was stopped",
    "compare": "many methods and seeds under one protocol, one table",
    "ablate": "the paper's ablations: components, correlation, depth, epochs",
    "correlate": "how well a search's weights rank cells, against their true accuracy",
    "query": "what NAS-Bench-201 measured for a cell: accuracy, rank, regret",
    "table": "make the NAS-Bench-201 table from the benchmark's published files",
    "report": "the page of a run, or of several side by side: report.html",
    "watch": "a run in the terminal while it goes on",
    "show": "genotypes, presets, spaces, operations, plans; drawings of cells and networks",
    "doctor": "whether this machine can do the work: versions, device, disk, checkpoints, data",
}
"""Every command: a module of that name in `cdarts.commands`, with a `COMMAND`. A new one is a file and a line here."""

HELP = """\
usage: cdarts COMMAND [OPTIONS]        (each command: cdarts COMMAND --help)

Cyclic Differentiable Architecture Search: search a network for your images, train it, use it.

  cdarts run                                    the whole way on handwritten digits, about 4 minutes
  cdarts run --data ./photos --budget 1h        ... on your own images, photos/CLASS/*.jpg
  cdarts search cdarts-paper --data cifar10     the paper's search
  cdarts retrain runs/NAME --data cifar10       ... and training of what it found

commands:
{commands}

everywhere: -v shows the traceback of an error; --version; --help
exit codes: 0 done, 1 bug, 2 usage or configuration, 3 data, 4 checkpoint, 5 not finite, 6 disk, 7 run in use,
            8 export, 130 / 138 / 143 stopped by a signal and resumable, 141 the reader of the output is gone
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        code = _main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_is_gone()
    except SystemExit as error:
        # rich turns a broken pipe into an exit
        if isinstance(error.__context__, BrokenPipeError):
            return _reader_is_gone()
        raise
    return code


def _reader_is_gone() -> int:
    """As `head` leaves it. What is still to be flushed at exit goes nowhere, without a complaint."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13  # as a shell reports SIGPIPE


def _main(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = any(word in ("-v", "--verbose") for word in words)
    words = [word for word in words if word not in ("-v", "--verbose")]
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:10} {summary}" for name, summary in COMMANDS.items())))
        return 0
    if words[0] == "--version":
        print(f"cdarts {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"commands: {', '.join(COMMANDS)}"
        print(f"error: unknown command {name!r}; {hint}", file=sys.stderr)
        return 2
    # Threads that wait for each other by spinning slow a shared machine down many times over;
    # a short spin costs nothing on an idle one.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        return _call(name, rest)
    except KeyboardInterrupt:  # before a run holds its directory; from then on it stops between two steps
        print("error: stopped by SIGINT; nothing was begun", file=sys.stderr)
        return 130
    except CdartsError as error:
        if verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        if verbose:
            traceback.print_exc()
        print(f"internal error: {type(error).__name__}: {error}\nThis is a bug; -v shows where.", file=sys.stderr)
        return 1


def _call(name: str, arguments: list[str]) -> int:
    import tyro

    module = importlib.import_module(f"cdarts.commands.{name}")
    command = tyro.cli(
        module.COMMAND,
        args=arguments,
        prog=f"cdarts {name}",
        # a command may take its defaults from what is asked for
        default=module.default_for(arguments) if hasattr(module, "default_for") else tyro.MISSING_NONPROP,
        config=(tyro.conf.AvoidSubcommands,),
    )
    code: int = command.run()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
