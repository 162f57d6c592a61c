"""Run directories made by hand, whose every number is known, and the reading of pages."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

from cdarts.data import Augmentation, ImageData, Images
from cdarts.randomness import generator
from cdarts.report.data_summary import data_summary_json
from cdarts.report.predictions import predictions_json
from cdarts.retraining.task import Scores
from cdarts.spaces import SPACES, Space


def space_called(name: str) -> Space:
    return SPACES[name]()


def make_run(
    path: Path,
    *,
    epochs: int = 6,
    space_name: str = "darts",
    state: str = "done",
    seed: int = 0,
    classes: Sequence[str] = ("cat", "dog"),
    message: str = "",
    **settings: Any,
) -> Path:
    """A search as a run directory holds it: strengths at random that drift, so that cells change now and then."""
    space = space_called(space_name)
    draw = generator(seed, "page", space_name)
    shape = (len(space.all_edges()), len(space.operations))
    logits = {kind: torch.randn(shape, generator=draw) for kind in space.kinds}
    path.mkdir(parents=True)
    metrics, genotypes = [], []
    for epoch in range(epochs):
        for kind in logits:
            logits[kind] = logits[kind] + 0.3 * torch.randn(shape, generator=draw)
        strengths = {kind: torch.softmax(values.double(), dim=1).tolist() for kind, values in logits.items()}
        phase = "joint" if epoch % 2 else "warmup"
        losses = {
            name: float(torch.rand((), generator=draw, dtype=torch.float64))
            for name in ("search_loss", "search_accuracy", "eval_loss", "eval_accuracy", "feedback")
            if phase == "joint" or name.startswith("eval")
        }
        common = {"seconds": round(1.5 + epoch, 3)}
        metrics.append({"epoch": epoch, "phase": phase, "cycle": epoch // 2, **losses, **common})
        genotype = space.derive(strengths)
        record = {"text": genotype.text(), "skips": 1, "parameter_free": 2, "strengths": strengths}
        genotypes.append({"epoch": epoch, **record, "entropy": 0.9 - epoch / 1000, "margin": 0.01, **common})
    counts = {name: 10 + position for position, name in enumerate(classes)}
    files = {
        "config.json": {
            "command": "search",
            "cdarts": "0.1.0",
            "settings": {
                "data": "digits",
                "seed": seed,
                "algorithm": {"name": "cdarts", "space": {"name": space_name}, "channels": 16},
                "preset": "cdarts",
                **settings,
            },
        },
        "environment.json": {
            "cdarts": "0.1.0",
            "python": "3.11.7",
            "torch": "2.14.1",
            "platform": "Linux",
            "command": ["cdarts", "search", "cdarts", "--out", str(path)],
            "device": "cpu",
            "threads": 1,
            "images": {"train": counts, "test": counts},
        },
        "status.json": {"state": state, "message": message, "time": "2026-01-01T00:00:00+0000"}
        | ({} if state == "done" else {"resume": f"cdarts resume {path}"}),
    }
    for name, value in files.items():
        (path / name).write_text(json.dumps(value))
    for name, lines in (("metrics", metrics), ("genotypes", genotypes)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if state == "done" and epochs:
        (path / "genotype.json").write_text(json.dumps(genotype.to_json()))
    return path


def make_training(
    path: Path, *, classes: Sequence[str] = ("cat", "dog", "eel"), images: int = 30, side: int = 10, seed: int = 0
) -> tuple[Path, ImageData, Scores]:
    """A retraining as its directory holds it, with answers at random: two in three are right."""
    path.mkdir(parents=True)
    labels = torch.randint(len(classes), (images,), generator=generator(seed, "labels"))
    pixels = torch.randint(256, (images, side, side, 3), generator=generator(seed, "pixels"), dtype=torch.uint8)
    split = Images(pixels.numpy(), labels.numpy())
    data = ImageData("made", split, split, tuple(classes), (0.5,) * 3, (0.25,) * 3, Augmentation(), warnings=("few",))
    logits = torch.randn(images, len(classes), generator=generator(seed, "logits"), dtype=torch.float64)
    logits[torch.arange(images), labels] += 1.0
    chances = logits.softmax(dim=1)
    predicted = chances.argmax(dim=1)
    right = float((predicted == labels).double().mean())
    own = chances.gather(1, labels[:, None])[:, 0]
    scores = Scores(right, float(-own.log().mean()), predicted, chances.max(dim=1).values, own)
    metrics = [
        {"epoch": epoch, "phase": "train", "loss": 1.0 / (epoch + 1), "test_accuracy": right - 0.1 * (2 - epoch)}
        | {"seconds": 2.0}
        for epoch in range(3)
    ]
    parts = {"stem": (100, 2000), "sep_conv_3x3": (3000, 70000), "skip_connect": (0, 0), "classifier": (33, 30)}
    files = {
        "config.json": {"command": "retrain", "settings": {"data": "made", "seed": seed}},
        "environment.json": {"images": data.counts()},
        "status.json": {"state": "done"},
        "summary.json": {
            "parameters": 3133,
            "macs": 72030,
            "cost_by_part": {name: {"parameters": p, "macs": m} for name, (p, m) in parts.items()},
        },
        "predictions.json": predictions_json(data, scores),
        "data.json": data_summary_json(data),
    }
    for name, value in files.items():
        (path / name).write_text(json.dumps(value))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    return path, data, scores


def journal(path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / f"{name}.jsonl").read_text().splitlines()]


class Page(HTMLParser):
    """Elements, texts and tables of a page, as a browser without scripts sees them."""

    VOID = frozenset({"meta", "input", "br", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self.numbers: dict[str, str] = {}
        """By key, what stands beside a curve."""
        self.tables: list[tuple[str, list[list[str]]]] = []
        """Class and rows of every table."""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in self.VOID:
            self._open.append((tag, attributes))
        if tag == "script":
            self.scripts.append((attributes, ""))
        elif tag == "table":
            self.tables.append((attributes.get("class") or "", []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"{opened} closed by {tag}"

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
            return
        if tag == "style":
            return
        self.texts.append(data)
        if attributes.get("data-key"):
            self.numbers[str(attributes["data-key"])] = data
        if any(name in ("td", "th") for name, _ in self._open) and self.tables:
            self.tables[-1][1][-1][-1] += data

    def text(self) -> str:
        return "".join(self.texts)

    def data(self) -> dict[str, Any]:
        """The block of JSON."""
        (block,) = [text for attributes, text in self.scripts if attributes.get("type") == "application/json"]
        value = json.loads(block)
        assert isinstance(value, dict)
        return value

    def table(self, name: str) -> list[list[list[str]]]:
        return [rows for kind, rows in self.tables if kind == name]
