"""What a run leaves of its data set for people to see: sizes, and a sheet of images. Read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdarts.report.pictures import from_text, sample_sheet, to_text

if TYPE_CHECKING:
    from cdarts.data import ImageData

DATA = "data.json"
"""In the directory of a search or a retraining."""


@dataclass(frozen=True)
class DataSummary:
    """One data set."""

    name: str
    side: int
    """Height and width of an image, in pixels."""
    channels: int
    warnings: list[str]
    """What may be wrong with it."""
    sheet: str
    """Base64 of a PNG: a row for each of `rows`; empty where there is none."""
    rows: list[str]
    """Names of the classes in the sheet."""
    columns: int


def data_summary_json(data: "ImageData") -> dict[str, Any]:
    """The file's content; its sheet shows training images."""
    sheet = sample_sheet(lambda index: data.train.pixels_of(index), data.train.labels, data.num_classes)
    return {
        "name": data.name,
        "side": data.side,
        "channels": data.channels,
        "warnings": list(data.warnings),
        "rows": list(data.class_names[: sheet.classes]),
        "columns": sheet.columns,
        "sheet": to_text(sheet.png),
    }


def read_data_summary(stored: Mapping[str, Any]) -> DataSummary:
    """The content of the file. Raises `ValueError` with the reason where it is none."""
    name, side, channels, columns = (stored.get(key) for key in ("name", "side", "channels", "columns"))
    if not isinstance(name, str) or type(side) is not int or type(channels) is not int or type(columns) is not int:
        raise ValueError("name, side, channels and columns must be a text and three numbers")
    rows, warnings = stored.get("rows"), stored.get("warnings")
    if not isinstance(rows, list) or not isinstance(warnings, list):
        raise ValueError("rows and warnings must be lists")
    sheet = from_text(stored.get("sheet"))
    if sheet is None:
        raise ValueError("sheet must be a PNG in base64")
    return DataSummary(name, side, channels, [str(text) for text in warnings], sheet, [str(n) for n in rows], columns)
