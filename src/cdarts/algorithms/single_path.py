"""SPOS: single path one-shot search with uniform sampling (Guo et al., ECCV 2020; arXiv 1904.00420)."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from tyro.conf import Suppress

from cdarts.algorithms.config import Protocol
from cdarts.algorithms.sampling_config import SamplingConfig
from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.single_path_search import SinglePathSearch
    from cdarts.data import ImageData

Config = TypeVar("Config", bound="SinglePathConfig")


@dataclass(frozen=True, kw_only=True)
class SinglePathConfig(SamplingConfig):
    """SPOS (Guo et al., ECCV 2020): weights of random paths are trained, then evolution finds the best genotype.

    The paper searches in neither the DARTS space nor NAS-Bench-201. The evolution's numbers are the authors'; the
    training is that of RSPS in NAS-Bench-201.
    """

    name: Suppress[Literal["single-path"]] = "single-path"
    population: int = 50
    """Candidates of each generation."""
    generations: int = 20
    parents: int = 10
    """The best candidates of all generations, from which the next one comes."""
    crossovers: int = 25
    """Candidates of a generation that have each edge from one of two parents."""
    mutations: int = 25
    """Candidates of a generation that are a parent with some edges drawn anew. The rest are random."""
    mutation_probability: float = 0.1
    """Of each edge."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        for name in ("population", "generations", "parents"):
            self.at_least(name, 1)
        for name in ("crossovers", "mutations"):
            self.at_least(name, 0)
        if self.crossovers + self.mutations > self.population:
            raise ConfigurationError(
                f"--crossovers {self.crossovers} --mutations {self.mutations}: together they must not exceed "
                f"--population {self.population}"
            )
        if not 0 <= self.mutation_probability <= 1:
            raise ConfigurationError(f"--mutation-probability {self.mutation_probability}: must lie between 0 and 1")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "SinglePathSearch":
        from cdarts.algorithms.single_path_search import SinglePathSearch

        self.check(data)
        return SinglePathSearch(self, data, seed=seed, device=device, execution=execution)

    def under(self: Config, protocol: Protocol) -> Config:
        """At most four times as many candidates in all as epochs: scoring then takes about as long as training.

        Generations and population shrink by the same factor, what a generation is made of by the population's.
        """
        shrunk = min(1.0, math.sqrt(4 * protocol.epochs / (self.population * self.generations)))
        generations = max(1, round(shrunk * self.generations))
        population = min(self.population, max(1, 4 * protocol.epochs // generations))
        share = population / self.population
        return replace(
            super().under(protocol),
            generations=generations,
            population=population,
            parents=max(1, round(share * self.parents)),
            crossovers=math.floor(share * self.crossovers),
            mutations=math.floor(share * self.mutations),
        )
