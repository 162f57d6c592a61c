"""Make the NAS-Bench-201 table from the benchmark's published files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdarts.errors import DiskError

REPORT_EVERY = 1000
"""Cells between two lines of progress."""


@dataclass(frozen=True, kw_only=True)
class MakeTable:
    """Read NATS-Bench's topology archive and write the table that `cdarts query` reads.

    The archive is its authors' folder NATS-tss-v1_0-3ffb9-simple, unpacked. Its files are pickles; only containers,
    numbers and strings are admitted, and nothing in them is run. A file of accuracies by seed is written beside.
    """

    archive: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="ARCHIVE")]]
    """The archive's folder."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv.gz")] = None
    """The table, replaced if it is there; default: nasbench201.csv.gz in $CDARTS_DATA, else in ~/.cache/cdarts."""

    def run(self) -> int:
        from cdarts.benchmarks.nasbench201 import NUM_CELLS, default_table, seeds_path
        from cdarts.benchmarks.natsbench import convert, seeds_file, table_file
        from cdarts.engine.files import write_bytes

        out = default_table() if self.out is None else self.out.expanduser()
        if self.out is None:
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DiskError(f"cannot make {out.parent}: {error.strerror}") from error
        # before minutes of reading
        elif not out.parent.is_dir():
            raise DiskError(f"--out {out}: there is no folder {out.parent}")

        def report(done: int) -> None:
            if done % REPORT_EVERY == 0 or done == NUM_CELLS:
                print(f"{done:,} of {NUM_CELLS:,} cells", flush=True)

        cells = convert(self.archive.expanduser(), report)
        write_bytes(seeds_path(out), seeds_file(cells))
        write_bytes(out, table_file(cells))
        print(f"{out}\n{seeds_path(out)}")
        return 0


COMMAND = MakeTable
