"""TensorBoard's event files, read back: every number of the journals, once, at its epoch."""

import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cdarts.errors import ConfigurationError
from cdarts.report.page_records import read_record
from cdarts.report.tensorboard import EventFiles

_PAGES = runpy.run_path(str(Path(__file__).with_name("pages.py")))  # tests are no package
make_run, make_training, journal = (_PAGES[name] for name in ("make_run", "make_training", "journal"))


def events_in(folder: Path) -> list[Any]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    (path,) = folder.glob("events.out.tfevents.*")
    return [event for event in LegacyEventFileLoader(str(path)).Load() if event.HasField("summary")]


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for event in events_in(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                assert (value.tag, event.step) not in found, "each number once"
                found[value.tag, event.step] = value.simple_value
    return found


def expected(run: Path) -> dict[tuple[str, int], float]:
    return {
        (key, line["epoch"]): pytest.approx(value)
        for name in ("metrics", "genotypes")
        for line in journal(run, name)
        for key, value in line.items()
        if isinstance(value, int | float) and key not in ("epoch", "cycle")
    }


def convert(run: Path, folder: Path) -> None:
    events = EventFiles(folder)
    events.follow(read_record(run))
    events.close()


def test_every_number_of_the_journals(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=5, space_name="nasbench201")
    for _ in range(2):  # the second time replaces what the first has written
        convert(run, tmp_path / "events")
        assert scalars(tmp_path / "events") == expected(run)


def test_a_run_that_goes_on_is_followed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=4, space_name="nasbench201", state="running")
    whole = {name: (run / f"{name}.jsonl").read_bytes() for name in ("metrics", "genotypes")}
    events = EventFiles(tmp_path / "events")
    cuts = {name: [0, *(i + 1 for i, byte in enumerate(text) if byte == 10)] for name, text in whole.items()}
    for step, (metrics, genotypes) in enumerate([(1, 0), (1, 1), (3, 2), (4, 4)]):
        (run / "metrics.jsonl").write_bytes(whole["metrics"][: cuts["metrics"][metrics] + step])  # half a line follows
        (run / "genotypes.jsonl").write_bytes(whole["genotypes"][: cuts["genotypes"][genotypes] + step])
        events.follow(read_record(run))
    events.close()
    assert scalars(tmp_path / "events") == expected(run)


def test_pictures(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=4, space_name="nasbench201")
    convert(run, tmp_path / "events")
    pictures = [(value, event.step) for event in events_in(tmp_path / "events") for value in event.summary.value
                if value.HasField("image")]  # fmt: skip
    texts = [line["text"] for line in journal(run, "genotypes")]
    changed = [epoch for epoch in range(4) if epoch == 0 or texts[epoch] != texts[epoch - 1]]
    assert [step for _, step in pictures] == changed
    for value, _ in pictures:
        image = Image.open(io.BytesIO(value.image.encoded_image_string))
        assert image.size == (value.image.width, value.image.height)
    training, _, _ = make_training(tmp_path / "training")
    convert(training, tmp_path / "trained")
    assert "training images" in [
        value.tag for event in events_in(tmp_path / "trained") for value in event.summary.value
    ]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'cdarts\[tensorboard\]'"):
        EventFiles(tmp_path / "events")
    assert not (tmp_path / "events").exists()


def test_times_follow_the_epochs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=3, space_name="nasbench201")
    convert(run, tmp_path / "events")
    began = (run / "config.json").stat().st_mtime
    times = {event.step: event.wall_time - began for event in events_in(tmp_path / "events")}
    seconds = [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [times[epoch] for epoch in range(3)] == [pytest.approx(sum(seconds[: epoch + 1])) for epoch in range(3)]
