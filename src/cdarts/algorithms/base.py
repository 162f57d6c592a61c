"""What every search gives besides being a task: its genotype, and how alpha stands."""

import math
from abc import abstractmethod
from collections import Counter
from typing import Any

from cdarts.engine.task import Task
from cdarts.operations import PARAMETER_FREE
from cdarts.spaces.base import Strengths
from cdarts.topology import Genotype


class SearchAlgorithm(Task):
    """A task whose result is a genotype."""

    @abstractmethod
    def genotype(self) -> Genotype:
        """The architecture as the search would answer now."""

    @abstractmethod
    def num_parameters(self) -> dict[str, int]:
        """Parameters of each network, by its name."""


def architecture_record(genotype: Genotype, strengths: Strengths) -> dict[str, Any]:
    """One line of ``genotypes.jsonl``: strengths, their entropy, and what is chosen.

    The entropy is the mean over edges, in units of the uniform distribution's: 1 where nothing is decided, 0 where
    every edge is.
    """
    rows = [row for matrix in strengths.values() for row in matrix]
    entropy = sum(-sum(p * math.log(p) for p in row if p > 0) / math.log(len(row)) for row in rows) / len(rows)
    counts = Counter(genotype.operations())
    return {
        "text": genotype.text(),
        "strengths": strengths,
        "entropy": entropy,
        "skips": counts["skip_connect"],
        "parameter_free": sum(count for name, count in counts.items() if name in PARAMETER_FREE),
    }
