"""What a finished search thinks of cells it need not have chosen: their accuracy with the weights it has learned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from cdarts.algorithms.base import SearchAlgorithm, random_genotype
from cdarts.algorithms.cyclic import CyclicSearch
from cdarts.algorithms.cyclic_parts import inheritance
from cdarts.algorithms.sampling import batch_statistics, distinct, unaugmented
from cdarts.data import Batch, Batches
from cdarts.errors import ConfigurationError
from cdarts.networks import Cell, Network
from cdarts.relaxations import edge_weights
from cdarts.topology import Genotype, Topology

ATTEMPTS = 1_000
"""Draws for each cell that is wanted, until they are all different."""


@dataclass(frozen=True)
class ScoredCell:
    """A cell, and what the search's networks make of it; accuracies in percent of `num_images`."""

    genotype: Genotype
    num_images: int
    search_accuracy: float
    """With S-Net's weights."""
    eval_accuracy: float | None
    """With the weights that operations have had in E-Nets; None for searches without one."""
    coverage: float | None
    """Share of the cell's edges whose operation an E-Net has had, or that have no weights."""


def score_cells(
    search: SearchAlgorithm, *, number: int, images: int | None, seed: int, report: Callable[[int], None]
) -> list[ScoredCell]:
    """Score as many different random cells, without augmentation, each batch with its own statistics.

    S-Net on the val half, E-Net on the half that its steps have not learned from, if there is one (`_unseen`).
    `images`: how many of a half are taken, rounded up to whole batches; None takes all. `report` is told how many cells
    are done. The networks stay as they are. The space has one kind of cell.

    Raises `ConfigurationError` if the search has no network that holds every cell.
    """
    network = search_network(search)
    space = search.config.space
    draws = (random_genotype(space, seed, "scored", attempt) for attempt in range(ATTEMPTS * number))
    batches = _first(search.val, images)
    eval_batches = _first(_unseen(search), images) if isinstance(search, CyclicSearch) else []
    mean_nodes = isinstance(search, CyclicSearch) and search.config.mean_nodes
    bank = _bank(search) if isinstance(search, CyclicSearch) else {}
    scored = []
    for genotype in distinct(draws, number):
        paths = space.topology(genotype)
        weights = {kind: edge_weights(cell, mean_nodes).to(search.device) for kind, cell in paths.items()}
        search_accuracy = _accuracy(network, batches, weights, paths)
        eval_accuracy = coverage = None
        if isinstance(search, CyclicSearch):
            eval_net, coverage = _eval_net(search, genotype, bank)
            eval_accuracy = _accuracy(eval_net, eval_batches)
        num_images = sum(len(labels) for _, labels in batches)
        scored.append(ScoredCell(genotype, num_images, search_accuracy, eval_accuracy, coverage))
        report(len(scored))
    return scored


def search_network(search: SearchAlgorithm) -> Network:
    """The network of a search that holds every operation on every edge. Raises `ConfigurationError` if it has none."""
    network = getattr(search, "search_net", None)
    if not isinstance(network, Network):
        raise ConfigurationError(f"{search.config.name}: this search has no network that could score cells")
    supernet = search.config.space.supernet()
    cells = [module.topology for module in network.modules() if isinstance(module, Cell)]
    if any(cell not in supernet.values() for cell in cells):
        raise ConfigurationError(
            f"{search.config.name}: this search ends with a network that holds only some of the operations, "
            "which can score only some of the cells"
        )
    return network


def _first(half: Batches, images: int | None) -> list[Batch]:
    """Of a half's images as many as are asked for, in whole batches."""
    number = len(half) if images is None else -(-images // half.batch_size)
    return list(islice(unaugmented(half)(0), number))


def _unseen(search: CyclicSearch) -> Batches:
    """The half that E-Net's steps have not learned from; val where they have learned from both.

    A stem that both networks share has learned from both halves all the same.
    """
    config = search.config
    learned = {config.joint_half} | ({config.warmup_half} if config.warmup_epochs else set())
    return search.train if learned == {"val"} else search.val


@torch.no_grad()
def _accuracy(
    network: Network,
    batches: list[Batch],
    weights: Mapping[str, Tensor] | None = None,
    paths: Topology | None = None,
) -> float:
    """In percent; of a part of the network if `paths` names one."""
    with batch_statistics(network):
        hits = [network(images, weights, paths=paths).logits.argmax(dim=1) == labels for images, labels in batches]
    return 100 * float(torch.cat(hits).double().mean())


def _bank(search: CyclicSearch) -> dict[str, Tensor]:
    """The newest weights of every operation that an E-Net has had."""
    return search.bank | inheritance(search.eval_net, search.config.inherit_batchnorm)


def _eval_net(search: CyclicSearch, genotype: Genotype, bank: dict[str, Tensor]) -> tuple[Network, float]:
    """The E-Net of a cell with the weights met so far, and its coverage. What was not met stays as initialised."""
    network = search.make_eval_net(genotype, cycle=0)
    wanted = inheritance(network, search.config.inherit_batchnorm).keys()
    network.load_state_dict({name: bank[name] for name in network.state_dict().keys() & bank.keys()}, strict=False)
    edges = [f"edges.{choice.edge}.{choice.operation}." for cell in genotype.cells.values() for choice in cell]
    unmet = [name for name in wanted if name not in bank]
    met = sum(not any(edge in name for name in unmet) for edge in edges)
    return network, met / len(edges)
