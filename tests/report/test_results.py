"""A training's answers on its page: every number counted anew, pictures that are the images, any name only text."""

import base64
import io
import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cdarts.data import load
from cdarts.report.data_summary import data_summary_json, read_data_summary
from cdarts.report.page import MAX_BYTES, page, read_record
from cdarts.report.pictures import SHEET_GAP, from_text, sample_sheet, thumbnail, to_text
from cdarts.report.predictions import MOST_ERRORS, confused_pairs, read_predictions

_PAGES = runpy.run_path(str(Path(__file__).with_name("pages.py")))  # tests are no package
Page, make_training = _PAGES["Page"], _PAGES["make_training"]


def page_of(*runs: Path) -> Any:
    return Page(page([read_record(run) for run in runs], now="now"))


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_tables_are_those_of_another_implementation(tmp_path: Path) -> None:
    run, data, scores = make_training(tmp_path / "run", images=60)
    found = page_of(run)
    labels, predicted = data.test.labels, scores.predictions.numpy()
    (matrix,) = found.table("confusion")
    expected = confusion_matrix(labels, predicted)
    assert [[int(cell or 0) for cell in row[1:]] for row in matrix[1:]] == expected.tolist()
    assert matrix[0][1:] == [row[0] for row in matrix[1:]] == ["cat", "dog", "eel"]
    (rows,) = found.table("scores")
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted)
    for index, row in enumerate(rows[1:]):
        assert row[:5] == [
            data.class_names[index],
            str(support[index]),
            *(f"{100 * values[index]:.2f} %" for values in (recall, precision, f1)),
        ]
    assert f"{100 * scores.accuracy:.2f} % correct" in found.text()


def test_pairs_are_the_largest_off_the_diagonal() -> None:
    counts = np.array([[5, 2, 0], [7, 9, 0], [1, 2, 4]])
    assert confused_pairs(counts, 3) == [(1, 0, 7), (0, 1, 2), (2, 1, 2)]
    assert confused_pairs(np.diag([3, 4]), 5) == []


def test_worst_errors_are_the_least_probable_labels(tmp_path: Path) -> None:
    run, data, scores = make_training(tmp_path / "run", images=90)
    stored = read_predictions(json.loads((run / "predictions.json").read_text()))
    wrong = np.flatnonzero(stored.predicted != stored.labels)
    worst = sorted(wrong, key=lambda image: float(scores.label_probability[image]))[:MOST_ERRORS]
    assert [error.image for error in stored.errors] == worst
    found = page_of(run)
    pictures = [attributes for tag, attributes in found.elements if tag == "img" and "Test image" in attributes["alt"]]
    assert [attributes["alt"] for attributes in pictures] == [f"Test image {image + 1}" for image in worst]
    for attributes, image in zip(pictures, worst, strict=True):
        shown = np.asarray(picture(attributes["src"].partition(",")[2]).convert("RGB"))
        assert shown.shape == (10, 10, 3)
        assert np.abs(shown.astype(int) - data.test.pixels[image]).max() <= 1, (
            "a hundred colours need no palette's help"
        )
    first = stored.errors[0]
    assert f"{100 * first.label_probability:.2f} %" in found.text()


def test_cost_by_operation_adds_up(tmp_path: Path) -> None:
    run, _, _ = make_training(tmp_path / "run")
    (rows,) = page_of(run).table("parts")
    assert [row[0] for row in rows[1:]] == ["sep_conv_3x3", "stem", "classifier", "skip_connect", "all"]
    assert rows[1][1:5] == ["3,000", "95.8", "70,000", "97.2"]
    assert rows[-1][1:5] == ["3,133", "100.0", "72,030", "100.0"]


def test_a_latency_that_was_measured_has_a_tile(tmp_path: Path) -> None:
    run, _, _ = make_training(tmp_path / "run")
    assert "1 image" not in page_of(run).text()
    summary = json.loads((run / "summary.json").read_text())
    summary["latency"] = {"milliseconds": 12.345, "device": "cpu", "threads": 2, "batch_size": 1}
    (run / "summary.json").write_text(json.dumps(summary))
    text = page_of(run).text()
    assert "12.35 ms" in text or "12.34 ms" in text
    assert "cpu, 2 threads, 1 image" in text


def test_the_sheet_has_a_row_for_each_class() -> None:
    data = load("digits")
    stored = data_summary_json(data)
    summary = read_data_summary(stored)
    sheet = np.asarray(picture(stored["sheet"]))
    step = data.side + SHEET_GAP
    assert sheet.shape == (10 * step - SHEET_GAP, 8 * step - SHEET_GAP)
    assert summary.rows == list(data.class_names) and summary.columns == 8
    members = np.flatnonzero(data.train.labels == 3)
    assert (sheet[3 * step : 3 * step + 8, 0:8] == data.train.pixels[members[0], :, :, 0]).all()
    assert (sheet[3 * step : 3 * step + 8, 7 * step :] == data.train.pixels[members[-1], :, :, 0]).all()


def test_a_sheet_of_large_images_of_which_a_class_has_few() -> None:
    pixels = np.zeros((3, 96, 96, 3), dtype=np.uint8)
    sheet = sample_sheet(lambda index: pixels[index], np.array([0, 0, 2]), 3)
    assert (sheet.classes, sheet.columns) == (3, 2)
    assert picture(to_text(sheet.png)).size == (2 * 32 + SHEET_GAP, 3 * 32 + 2 * SHEET_GAP)
    assert max(picture(to_text(thumbnail(pixels[0]))).size) == 48


@pytest.mark.parametrize("classes", [24, 25, 130])
def test_many_classes(tmp_path: Path, classes: int) -> None:
    run, _, _ = make_training(tmp_path / "run", classes=[f"class {n}" for n in range(classes)], images=600)
    found = page_of(run)
    assert bool(found.table("confusion")) == (classes <= 24)
    assert ('class="heat confusion"' in found.source) == (24 < classes <= 120)
    assert ("30 more classes" in found.text()) == (classes == 130)
    assert found.table("pairs"), "what is confused most often is said in any case"


def test_hostile_names_of_classes_stay_text(tmp_path: Path) -> None:
    hostile = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}\u2028", "x" * 500]
    run, _, _ = make_training(tmp_path / "run", classes=hostile, images=80)
    found = page_of(run)
    assert len(found.scripts) == 2 and hostile[0] in found.text()
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "img":
            assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", attributes["src"] or "")
    (rows,) = found.table("scores")
    assert rows[4][0] == "x" * 60 + "…"


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [0, 1]},
        {"labels": ["0"] * 30},
        {"predicted": [7] * 30},
        {"confidence": [2.0] * 30},
        {"classes": []},
        {"classes": "abc"},
        {"errors": [{"image": 1, "png": "javascript:alert(1)"}]},
        {"errors": [{"image": 999, "png": ""}]},
        {"errors": [{"image": 1, "png": to_text(b"GIF89a")}]},
    ],
)
def test_damaged_predictions_are_left_out_and_said(tmp_path: Path, change: dict[str, Any]) -> None:
    run, _, _ = make_training(tmp_path / "run")
    stored = json.loads((run / "predictions.json").read_text())
    (run / "predictions.json").write_text(json.dumps(stored | change))
    found = page_of(run)
    assert "predictions.json cannot be read" in found.text() and not found.table("confusion")


@pytest.mark.parametrize("content", ["{}", "[", '{"name": "x", "side": 8, "channels": 1, "columns": 1, "sheet": "AA"}'])
def test_a_damaged_summary_of_the_data_is_left_out_and_said(tmp_path: Path, content: str) -> None:
    run, _, _ = make_training(tmp_path / "run")
    (run / "data.json").write_text(content)
    found = page_of(run)
    assert "data.json cannot be read" in found.text()
    assert "Images of each class" in found.text()


def test_only_a_png_is_a_picture() -> None:
    assert from_text(5) is from_text("%%") is from_text(to_text(b"GIF")) is None
    assert from_text(to_text(b"\x89PNG\r\n\x1a\n")) is not None


def test_a_page_with_all_its_pictures_stays_small(tmp_path: Path) -> None:
    classes = [f"class {n}" for n in range(20)]
    run, _, _ = make_training(tmp_path / "run", classes=classes, images=2000, side=224)
    assert len(page([read_record(run)]).encode()) < MAX_BYTES / 2, "noise, which no PNG makes smaller"
