"""ENAS's controller: a recurrent network that decides an operation for one edge after another."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cdarts.spaces import Space
from cdarts.topology import Genotype

HIDDEN, LAYERS = 32, 2
"""Size of the LSTM, as in NAS-Bench-201's run."""
TEMPERATURE, LARGEST = 5.0, 2.5
"""Logits are LARGEST * tanh(logits / TEMPERATURE), which keeps decisions from being made too early."""
INITIAL = 0.1
"""Weights start uniform between -0.1 and 0.1."""


class Decisions(NamedTuple):
    """A genotype that the controller drew; log-probability and entropy, sums over the edges, in nats."""

    genotype: Genotype
    log_probability: Tensor
    entropy: Tensor


class Controller(nn.Module):
    """pi(operation of edge e | operations of the edges before it), the edges of all kinds of cell in a row.

    It chooses among the operations that a genotype can have. Where edges compete, as in the DARTS space, it has no say
    in which of them stay: that is drawn uniformly. The network is tiny, and what it decides is needed on the CPU, so
    there it lives, whatever the device of the search.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        self.columns = possible_columns(space)
        self.begin = nn.Parameter(torch.empty(1, HIDDEN))
        self.embed = nn.Embedding(len(self.columns), HIDDEN)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, LAYERS)
        self.predict = nn.Linear(HIDDEN, len(self.columns))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -INITIAL, INITIAL)

    def sample(self, draw: torch.Generator) -> Decisions:
        """A genotype drawn with the controller's probabilities."""
        return self._decide(
            lambda probabilities: int(torch.multinomial(probabilities, 1, generator=draw)),
            lambda _: float(torch.rand((), generator=draw)),
        )

    def likeliest(self) -> Genotype:
        """The genotype of the likeliest decisions, each after the others; edges with the surest ones stay."""
        with torch.no_grad():
            return self._decide(lambda probabilities: int(probabilities.argmax()), float).genotype

    def _decide(self, choose: Callable[[Tensor], int], rank: Callable[[Tensor], float]) -> Decisions:
        """`choose`: from an edge's probabilities to a choice; `rank`: from that choice's to the edge's rank, 0 to 1."""
        space = self.space
        log_probabilities, entropies = [], []
        strengths = {}
        inputs: Tensor = self.begin
        memory = None
        for kind in space.kinds:
            strengths[kind] = [[0.0] * len(space.operations) for _ in space.all_edges()]
            for row in strengths[kind]:
                output, memory = self.lstm(inputs, memory)
                logits = LARGEST * torch.tanh(self.predict(output[0]) / TEMPERATURE)
                logs = torch.log_softmax(logits, dim=0)
                probabilities = logs.exp()
                choice = choose(probabilities.detach())
                row[self.columns[choice]] = 1.0 + rank(probabilities[choice].detach())
                log_probabilities.append(logs[choice])
                entropies.append(-(probabilities * logs).sum())
                inputs = self.embed.weight[choice].unsqueeze(0)
        genotype = space.derive(strengths)
        return Decisions(genotype, torch.stack(log_probabilities).sum(), torch.stack(entropies).sum())


def possible_columns(space: Space) -> list[int]:
    """Positions of the operations that a genotype of the space can have; ``none`` is not one in the DARTS space."""
    names = space.operations
    columns = []
    for column, name in enumerate(names):
        rows = [[float(other == column) for other in range(len(names))]] * len(space.all_edges())
        if name in space.derive(dict.fromkeys(space.kinds, rows)).operations():
            columns.append(column)
    return columns
