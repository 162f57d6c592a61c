"""SPOS's evolution over genotypes, with the accuracy of shared weights as fitness."""

import torch
from torch import Tensor

from cdarts.algorithms.sampling import SamplingSearch, distinct
from cdarts.algorithms.single_path import SinglePathConfig
from cdarts.engine.task import Epoch
from cdarts.spaces import Space
from cdarts.topology import Genotype


class SinglePathSearch(SamplingSearch):
    """Uniform paths in training; each selection epoch is one generation of the evolution (algorithm 1).

    No candidate is scored twice. Candidates beyond the limits are not scored: the strongest ones within take
    their place. Left out: the recomputing of BatchNorm's statistics for each candidate, in whose place scores use the
    statistics of each batch.
    """

    config: SinglePathConfig

    def selection(self) -> list[Epoch]:
        return [Epoch("select", self.config.population)] * self.config.generations

    def propose(self) -> list[Genotype]:
        config, draw, tries = self.config, self.draw("evolution", 0), 10 * self.config.population
        parents = sorted(self.scores, key=lambda genotype: -self.scores[genotype])[: config.parents]
        chosen: list[Genotype] = []
        if parents:
            mutants = (self.mutant(one_of(parents, draw), draw) for _ in range(tries))
            chosen += distinct(mutants, config.mutations, self.scores)
            children = (self.child(one_of(parents, draw), one_of(parents, draw), draw) for _ in range(tries))
            chosen += distinct(children, config.crossovers, {*self.scores, *chosen})
        newcomers = (self.random_candidate("newcomer", self.epoch, number) for number in range(tries))
        return chosen + distinct(newcomers, config.population - len(chosen), {*self.scores, *chosen})

    def mutant(self, parent: Genotype, draw: torch.Generator) -> Genotype:
        """The parent with some edges drawn anew."""
        rows = noisy_strengths(self.config.space, parent, draw)
        for kind, row in rows.items():
            anew = torch.rand((len(row), 1), generator=draw) < self.config.mutation_probability
            rows[kind] = torch.where(anew, 1.0 + 0.5 * torch.rand(row.shape, generator=draw), row)
        return self.derive({kind: row.tolist() for kind, row in rows.items()})

    def child(self, father: Genotype, mother: Genotype, draw: torch.Generator) -> Genotype:
        """Each edge from one of the parents."""
        first, second = (noisy_strengths(self.config.space, parent, draw) for parent in (father, mother))
        strengths = {}
        for kind, row in first.items():
            from_first = torch.rand((len(row), 1), generator=draw) < 0.5
            strengths[kind] = torch.where(from_first, row, second[kind]).tolist()
        return self.derive(strengths)


def one_of(parents: list[Genotype], draw: torch.Generator) -> Genotype:
    """A parent at random."""
    return parents[int(torch.randint(len(parents), (1,), generator=draw))]


def noisy_strengths(space: Space, genotype: Genotype, draw: torch.Generator) -> dict[str, Tensor]:
    """Strengths, edges x operations, from which the space derives this very genotype.

    What the genotype has lies between 1 and 1.5, all else between 0 and 0.5. So where edges compete, as in the DARTS
    space, rows of several genotypes can be put together: chance decides among edges of the same standing.
    """
    strengths = {}
    for kind in space.kinds:
        edges = space.all_edges()
        strengths[kind] = 0.5 * torch.rand((len(edges), len(space.operations)), generator=draw)
        for choice in genotype.cells[kind]:
            strengths[kind][edges.index(choice.edge), space.operations.index(choice.operation)] += 1.0
    return strengths
