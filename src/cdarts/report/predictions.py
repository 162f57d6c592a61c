"""What a trained network answers for every test image: written beside the model, read by the page.

Reading needs no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cdarts.report.pictures import Labels, from_text, thumbnail, to_text

if TYPE_CHECKING:
    from cdarts.data import ImageData
    from cdarts.retraining.task import Scores

PREDICTIONS = "predictions.json"
"""In the directory of the model."""

MOST_ERRORS = 24
"""Worst errors that are kept as pictures."""

DIGITS = 6
"""Decimals of a probability."""

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WorstError:
    """An image to whose class the network gave little: one of the least probable labels."""

    image: int
    """Its position among the test images."""
    label: int
    predicted: int
    confidence: float
    """Probability of the predicted class."""
    label_probability: float
    png: str
    """Base64."""


@dataclass(frozen=True)
class Predictions:
    """Of all test images, in their order."""

    data: str
    """Name of the data set."""
    classes: Sequence[str]
    labels: Labels
    predicted: Labels
    confidence: Floats
    """Probability of the predicted class, by the network's softmax."""
    label_probability: Floats
    errors: Sequence[WorstError]

    @property
    def accuracy(self) -> float:
        """Fraction correct."""
        return float(np.mean(self.labels == self.predicted))

    def confusion(self) -> Counts:
        """How many images of each class (row) were taken for each (column), (K, K)."""
        size = len(self.classes)
        counts: Counts = np.bincount(self.labels * size + self.predicted, minlength=size * size).reshape(size, size)
        return counts


def predictions_json(data: "ImageData", scores: "Scores") -> dict[str, Any]:
    """The file's content, see `Predictions`. scores: of the test images of `data`, in their order."""
    labels, predicted = data.test.labels, scores.predictions.numpy()
    label_probability = scores.label_probability.numpy()
    wrong = np.flatnonzero(labels != predicted)
    worst = wrong[np.argsort(label_probability[wrong], kind="stable")][:MOST_ERRORS]
    pictures = [to_text(thumbnail(pixels)) for pixels in data.test.pixels_of(worst)] if len(worst) else []
    return {
        "data": data.name,
        "classes": list(data.class_names),
        "labels": labels.tolist(),
        "predicted": predicted.tolist(),
        "confidence": [round(value, DIGITS) for value in scores.confidence.tolist()],
        "label_probability": [round(value, DIGITS) for value in label_probability.tolist()],
        "errors": [{"image": int(image), "png": png} for image, png in zip(worst, pictures, strict=True)],
    }


def read_predictions(stored: Mapping[str, Any]) -> Predictions:
    """The content of the file. Raises `ValueError` with the reason where it is none."""
    classes = stored.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes must be a list of names")
    labels, predicted = (_indices(stored.get(key), key, len(classes)) for key in ("labels", "predicted"))
    confidence, label_probability = (_chances(stored.get(key), key) for key in ("confidence", "label_probability"))
    if len({len(values) for values in (labels, predicted, confidence, label_probability)}) != 1 or not len(labels):
        raise ValueError("labels, predicted, confidence and label_probability must be as many, and not none")
    errors = []
    listed = stored.get("errors")
    for error in listed[:MOST_ERRORS] if isinstance(listed, list) else []:
        image = error.get("image") if isinstance(error, dict) else None
        png = from_text(error.get("png")) if isinstance(error, dict) else None
        if type(image) is not int or not 0 <= image < len(labels) or png is None:
            raise ValueError("errors must name images and hold their pictures as PNG")
        errors.append(
            WorstError(
                image,
                int(labels[image]),
                int(predicted[image]),
                float(confidence[image]),
                float(label_probability[image]),
                png,
            )
        )
    data = stored.get("data")
    return Predictions(
        data if isinstance(data, str) else "", classes, labels, predicted, confidence, label_probability, errors
    )


def _indices(values: Any, key: str, size: int) -> Labels:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < size for value in values):
        raise ValueError(f"{key} must be numbers of classes")
    return np.asarray(values, dtype=np.int64)


def _chances(values: Any, key: str) -> Floats:
    if not isinstance(values, list) or not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        raise ValueError(f"{key} must be probabilities")
    return np.asarray(values, dtype=np.float64)


# -- what the page says of them ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised; what cannot be said, since nothing was there or nothing predicted, is None."""

    name: str
    images: int
    recall: float | None
    """Share of its images that were recognised."""
    precision: float | None
    """Share of what was taken for it that was it."""
    f1: float | None
    """Harmonic mean of both, 2 TP / (2 TP + FP + FN)."""
    mistaken_for: str
    """The class that most of its other images were taken for, with their number."""


def class_scores(classes: Sequence[str], confusion: Counts) -> list[ClassScore]:
    """Of every class. confusion: as `Predictions.confusion` gives it."""
    scores = []
    for index, name in enumerate(classes):
        right, images, taken = (
            int(confusion[index, index]),
            int(confusion[index].sum()),
            int(confusion[:, index].sum()),
        )
        others = confusion[index].copy()
        others[index] = 0
        most = int(others.argmax())
        scores.append(
            ClassScore(
                name=name,
                images=images,
                recall=right / images if images else None,
                precision=right / taken if taken else None,
                f1=2 * right / (images + taken) if images + taken else None,
                mistaken_for=f"{classes[most]} ({others[most]})" if others[most] else "",
            )
        )
    return scores


def confused_pairs(confusion: Counts, most: int) -> list[tuple[int, int, int]]:
    """Label, prediction and number of images of the pairs that were confused most often, the most frequent first."""
    off = confusion.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    pairs = [(int(place // len(off)), int(place % len(off))) for place in order]
    return [(label, predicted, int(off[label, predicted])) for label, predicted in pairs if off[label, predicted]]
