"""The page of a run: true to the records, one file that asks for nothing, safe for any text, there in any state."""

import base64
import hashlib
import json
import re
import runpy
import subprocess
import sys
import time
from functools import partial
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cdarts import zoo
from cdarts.algorithms.collapse import collapse
from cdarts.errors import ConfigurationError
from cdarts.operations import OPERATIONS, PARAMETER_FREE
from cdarts.report.charts import HeatMap, Line, Time, figure, heat_map, line_chart, tone
from cdarts.report.drawing import LabelSize, cell_shape, operation_label
from cdarts.report.page import DETAILS, MAX_BYTES, Reference, one_run, page, read_record
from cdarts.report.page_cells import SCALE, evolution
from cdarts.report.page_records import MAX_EPOCH, _collapsed, runs_of, whole_run
from cdarts.topology import parse_genotype

_PAGES = runpy.run_path(str(Path(__file__).with_name("pages.py")))  # tests are no package
Page, journal, make_run, make_training = (_PAGES[name] for name in ("Page", "journal", "make_run", "make_training"))
space_called = _PAGES["space_called"]

TEMPLATES = files("cdarts.report") / "templates"

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--",
    "]]>",
    "{{ 7*7 }}{% raw %}",
    "a\x00b\u2028c\ud800",
    "javascript:alert(1)",
    "&lt;b&gt;",
)


def page_of(*runs: Path) -> Any:
    return Page(page([read_record(run) for run in runs], now="now").encode("utf-8", "replace").decode())


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_curves_are_the_journals(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=7)
    (stage,) = page_of(run).data()["stages"]
    for name in ("metrics", "genotypes"):
        for line in journal(run, name):
            for key, value in line.items():
                if isinstance(value, float):
                    assert stage["columns"][key][line["epoch"]] == value
    assert stage["columns"]["search_loss"][::2] == [None] * 4, "an epoch in which S-Net stands still says nothing"


@pytest.mark.parametrize("space_name", ["darts", "nasbench201"])
def test_strengths_are_the_journals(tmp_path: Path, space_name: str) -> None:
    run = make_run(tmp_path / "run", epochs=5, space_name=space_name)
    (stage,) = page_of(run).data()["stages"]
    assert stage["evolution"]["epochs"] == list(range(5))
    for frame, line in enumerate(journal(run, "genotypes")):
        for kind, matrix in line["strengths"].items():
            shown = stage["evolution"]["cells"][kind]["strengths"][frame]
            assert shown == [[round(value * SCALE) for value in row] for row in matrix]


def test_what_stands_without_a_script_is_the_newest_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=6)
    found = page_of(run)
    metrics, last = journal(run, "metrics")[-1], journal(run, "genotypes")[-1]
    assert found.numbers["search_accuracy"] == f"{100 * metrics['search_accuracy']:.2f} %"
    assert found.numbers["feedback"] == f"{metrics['feedback']:.4f}"
    space, genotype = space_called("darts"), parse_genotype(last["text"])
    before = parse_genotype(journal(run, "genotypes")[-2]["text"])
    for rows, matrix, (kind, choices) in zip(
        found.table("edges"), found.table("matrix"), genotype.cells.items(), strict=True
    ):
        strengths = last["strengths"][kind]
        assert len(rows) == 1 + len(choices)
        for row, choice in zip(rows[1:], choices, strict=True):
            of_edge = dict(zip(space.operations, strengths[space.all_edges().index(choice.edge)], strict=True))
            others = {name: value for name, value in of_edge.items() if name not in ("none", choice.operation)}
            second = max(others, key=others.__getitem__)
            assert row[:5] == [
                f"{choice.edge.source} → {choice.edge.target}",
                operation_label(choice.operation),
                f"{of_edge[choice.operation]:.5f}",
                operation_label(second),
                f"{of_edge[second]:.5f}",
            ]
            assert (row[6] == "new") == (choice not in before.cells[kind])
        assert [row[1:] for row in matrix[1:]] == [[f"{value:.5f}" for value in row] for row in strengths]


def test_the_table_of_numbers_is_complete(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=4)
    (rows,) = page_of(run).table("numbers")
    keys = [name.replace(" ", "_") for name in rows[0]]
    for line, row in zip(journal(run, "metrics"), rows[1:], strict=True):
        found = dict(zip(keys, row, strict=True))
        assert found["epoch"] == str(line["epoch"] + 1) and found["phase"] == line["phase"]
        for key in line.keys() - {"epoch", "phase", "cycle"}:
            assert float(found[key]) == line[key], "as exact as it stands in the journal"


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [(0.5, True, "50.00 %"), (None, False, "–"), (3.0, False, "3"), (1.5, False, "1.5000"), (2e-5, False, "2.000e-5"),
     (1.25e7 + 0.5, False, "1.250e+7"), (-0.25, False, "-0.2500"),
     (0.50125, True, "50.13 %"), (0.53125, False, "0.5313"), (-0.53125, False, "-0.5313")],
)  # fmt: skip
def test_figures(value: float | None, percent: bool, text: str) -> None:
    assert figure(value, percent) == text


def test_a_curve_lies_where_its_numbers_are() -> None:
    svg = line_chart("x", [Line("y", "a", [0.0, None, 1.0])], Time(3), False)
    time = Time(3)
    match = re.search(r'class="line a" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', svg)
    assert match
    x0, y0, x1, y1 = map(float, match.groups())
    assert (x0, x1) == (pytest.approx(time.x(0), abs=0.05), pytest.approx(time.x(2), abs=0.05))
    assert y0 - y1 == pytest.approx(132, abs=0.1), "from the lowest tick to the highest, the whole frame"


def test_a_heat_map_is_dark_where_strengths_are_large() -> None:
    space = space_called("toy")
    matrix = [[0.0] * len(space.operations) for _ in space.all_edges()]
    matrix[0][1] = 1.0
    svg = heat_map(HeatMap("toy", space.all_edges(), space.operations, [matrix, matrix], [(0, 1)]))
    assert svg.count('class="h9"') == 1 and svg.count('class="chosen"') == 1
    assert len(re.findall("M", re.search(r'class="h9" d="([^"]*)"', svg)[1])) == 1, "equal neighbours are one"  # type: ignore[index]


def test_thinned_frames_keep_the_first_and_the_last(tmp_path: Path) -> None:
    frames = read_record(make_run(tmp_path / "run", epochs=30, space_name="nasbench201")).frames
    found = evolution(frames, 7)
    assert found is not None
    assert len(found.data["epochs"]) == 7 and found.data["epochs"][0] == 0 and found.data["epochs"][-1] == 29
    whole = evolution(frames, 30)
    assert whole is not None and found.changes == whole.changes, "what has changed when is known of all epochs"
    assert [epoch for epoch, _ in whole.changes] == [
        after.epoch for before, after in pairwise(frames) if before.genotype.cells != after.genotype.cells
    ]
    assert (found.left_out, whole.left_out) == (23, 0)


def test_a_shape_has_every_edge() -> None:
    genotype = parse_genotype("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|")
    shape = cell_shape(genotype.cells["cell"], False, LabelSize(34.0, 120.0))
    assert tuple(edge.choice for edge in shape.edges) == genotype.cells["cell"]
    assert all(edge.width >= 120 for edge in shape.edges)
    boxes = [(edge.x, edge.y, edge.width) for edge in shape.edges]
    for index, (x, y, width) in enumerate(boxes):
        for a, b, other in boxes[:index]:
            assert abs(x - a) >= (width + other) / 2 or abs(y - b) >= 34, "labels of two lines do not meet"


def test_the_rule_of_collapse_is_the_searches() -> None:
    for name in OPERATIONS:
        assert (name.split("_")[0] not in ("sep", "dil", "nor")) == (name in PARAMETER_FREE), name
    for text in (
        "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_1x1~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ):
        genotype = parse_genotype(text)
        assert (collapse(genotype) is None) == (_collapsed(genotype.cells["cell"]) is None)


# -- size, and what it asks for ----------------------------------------------------------------------------------------


def test_fifty_epochs_of_the_darts_space_fit(tmp_path: Path) -> None:
    text = page([read_record(make_run(tmp_path / "run", epochs=50))])
    assert len(text.encode()) < MAX_BYTES / 2
    (stage,) = Page(text).data()["stages"]
    assert len(stage["evolution"]["epochs"]) == 50, "nothing is left out"


def test_a_page_that_would_grow_too_large_holds_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_record(make_run(tmp_path / "run", epochs=150, space_name="nasbench201"))
    full = page([record])
    monkeypatch.setattr("cdarts.report.page.MAX_BYTES", len(full) - 1)
    less = page([record])
    assert len(less) < len(full)
    assert Page(less).data()["stages"][0]["columns"] == Page(full).data()["stages"][0]["columns"]


def test_the_longest_run_fits(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=2, space_name="nasbench201")
    line = journal(run, "metrics")[-1]
    lines = (
        json.dumps(line | {"epoch": n, "eval_loss": 1 / (n + 3), "phase": ("warmup", "joint")[n % 2], "cycle": n // 2})
        for n in range(MAX_EPOCH)
    )
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    began = time.process_time()
    found = page_of(run)
    assert time.process_time() - began < 20
    assert len(found.source.encode()) < MAX_BYTES
    assert found.numbers["eval_loss"] == figure(1 / (MAX_EPOCH + 2))
    assert "Some 400 of the 10,000 epochs are drawn" in " ".join(found.text().split())


def test_one_stray_number_is_no_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": MAX_EPOCH, "eval_loss": 1.0}) + "\n")
    record = read_record(run)
    assert record.num_epochs == 3 and "damaged" in record.remarks[0]


def test_it_asks_for_nothing_and_runs_its_own_script_alone(tmp_path: Path) -> None:
    found = page_of(make_run(tmp_path / "run"))
    urls = re.findall(
        r"""(?:https?:|//|data:|url\()[^\s"'<>]*""",
        found.source.replace("http://www.w3.org/2000/svg", "").replace("img-src data:;", ""),
    )
    assert [url for url in urls if not url.startswith("// ")] in ([], ["//"] * len(urls)), urls
    for tag, attributes in found.elements:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")}
        assert attributes.get("href", "#").startswith("#") is not False
    data, (attributes, script) = found.scripts
    assert data[0]["type"] == "application/json" and not attributes
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in found.elements if t == "meta" and "http-equiv" in a]
    assert policy is not None and f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_reading_it_needs_no_torch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=2, space_name="nasbench201")
    code = (
        "import sys, pathlib; from cdarts.report.page import write_page; path = pathlib.Path(sys.argv[1]); "
        "write_page([path], path / 'page.html'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run)], check=False).returncode == 0
    assert (run / "page.html").stat().st_size > 20_000


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", space_name="nasbench201")
    assert page([read_record(run)], now="x") == page([read_record(run)], now="x")


# -- hostile text ------------------------------------------------------------------------------------------------------


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "<script>alert(2)<" / "b>",
        epochs=2,
        space_name="nasbench201",
        state="failed",
        classes=[*HOSTILE, "cat"],
        message=" ".join(HOSTILE),
        data=HOSTILE[0],
        evil={HOSTILE[1]: HOSTILE[0]},
    )
    config = json.loads((run / "config.json").read_text())
    config["settings"]["preset"] = HOSTILE[1]
    (run / "config.json").write_text(json.dumps(config))
    lines = journal(run, "metrics")
    for line in lines:
        line |= dict.fromkeys(HOSTILE, 0.5) | {"phase": HOSTILE[0]}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = page_of(run)
    tame = page_of(make_run(tmp_path / "tame", epochs=2, space_name="nasbench201"))
    assert len(found.scripts) == len(tame.scripts) == 2
    assert {tag for tag, _ in found.elements} == {tag for tag, _ in tame.elements} | {"code", "p"}
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
    for name in HOSTILE[:4]:
        assert name in found.text(), "it is shown as it is"
    assert "{{ 7*7 }}" in found.text()
    assert "<img" not in found.source and found.source.count("<script") == 2
    assert found.source.lower().count("</script") == 2 and "<!--" not in found.source


def test_hostile_names_in_several_runs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, epochs=2, seed=i) for i, name in enumerate(("<i>a", "\"'><script>x<"))]
    found = page_of(*runs)
    assert len(found.scripts) == 2 and "i" not in {tag for tag, _ in found.elements}
    assert "<i>a" in found.text()


# -- states and damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["done", "running", "interrupted", "failed"])
@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_every_state_has_a_page(tmp_path: Path, state: str, epochs: int) -> None:
    run = make_run(tmp_path / "run", epochs=epochs, state=state, message="because" if state == "failed" else "")
    found = page_of(run)
    assert state in found.text() and "cdarts search cdarts --out" in found.text()
    assert (f"cdarts resume {run}" in found.text()) == (state != "done")
    assert ("because" in found.text()) == (state == "failed")
    assert ("2.14.1" in found.text(), "cpu, 1 thread" in found.text()) == (True, True)


def test_a_folder_with_nothing_but_its_settings(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "state not known" in page_of(tmp_path).text()


def test_no_run_no_page(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a run directory"):
        read_record(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_record(tmp_path)


DAMAGE = [
    b"\x00\xff",
    b"{}\n",
    b"[1]\n",
    b'{"epoch": -1}\n',
    b'{"epoch": 1e9}\n',
    b'{"epoch": 99999999}\n',
    b'{"epoch": true}\n',
    b'{"epoch": 0, "text": "|x"}\n',
    b'{"epoch": 0, "text": 5, "strengths": []}\n',
    b'{"epoch": 0, "loss": NaN}\n',
    b'{"epoch": 0, "phase": "joint", "eval_accuracy": 1e300, "eval_loss": -1e300, "best_score": 1e24}\n',
    b'{"epoch": 0, "phase": 5, "cycle": "x", "seconds": "soon", "loss": 1e400}\n',
    b'{"epoch": 0, "seconds": ' + b"9" * 400 + b"}\n",
    b"[" * 100_000,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "genotypes.jsonl", "status.json", "environment.json", "summary.json"]
)
def test_damaged_files_are_left_out_and_said(tmp_path: Path, name: str, damage: bytes) -> None:
    run = make_run(tmp_path / "run", epochs=2, space_name="nasbench201")
    (run / name).write_bytes(damage)
    found = page_of(run)
    assert "run" in found.text()
    unreadable = name.endswith(".json") and damage[:1] in (b"\x00", b"[")
    assert (f"{name} cannot be read" in found.text()) == unreadable


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "search_lo')
    record = read_record(run)
    assert record.num_epochs == 3 and not record.remarks


def test_journals_that_are_a_line_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=5, state="running")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:30])
    found = page_of(run)
    (stage,) = found.data()["stages"]
    assert stage["epochs"] == 4 and stage["evolution"]["epochs"] == [0, 1, 2, 3]
    assert {len(column) for column in stage["columns"].values()} == {4}
    assert found.numbers["search_accuracy"] == figure(json.loads(lines[3])["search_accuracy"], True)


def test_a_tile_says_which_epoch_its_number_is_of(tmp_path: Path) -> None:
    run, _, _ = make_training(tmp_path / "run")
    lines = journal(run, "metrics")
    for line in lines[1:]:
        del line["test_accuracy"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "epoch 1 of 3; best" in page_of(run).text()
    # S-Net stands still in the last epoch, a warm-up
    assert "while searching, epoch 2 of 3" in page_of(make_run(tmp_path / "search", epochs=3)).text()


def test_a_folder_within_a_run_is_no_stage_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=2)
    inner, _, _ = make_training(run / "retrain")
    record = read_record(run)
    assert not record.stages and record.num_epochs == 2
    assert whole_run(inner) == inner
    (tmp_path / "run" / "config.json").write_text('{"command": "run"}')
    assert whole_run(inner) == run and [stage.command for stage in read_record(run).stages] == ["retrain"]


def test_a_retraining_with_several_seeds_stands_for_its_runs(tmp_path: Path) -> None:
    runs = [make_training(tmp_path / "all" / f"seed-{seed}", seed=seed)[0] for seed in (2, 10)]
    (tmp_path / "all" / "seed-11").mkdir()
    assert runs_of(tmp_path / "all") == [tmp_path / "all"]
    (tmp_path / "all" / "config.json").write_text('{"command": "retrain", "settings": {"seeds": "2-11"}}')
    assert runs_of(tmp_path / "all") == runs
    assert runs_of(tmp_path) == [tmp_path] and runs_of(runs[0]) == [runs[0]]


def test_many_classes_are_counted_not_those_that_are_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=1, classes=[f"class {n}" for n in range(250)])
    assert "150 more classes are in environment.json" in page_of(run).text()
    run, _, _ = make_training(tmp_path / "training", classes=[f"class {n}" for n in range(250)], images=600)
    assert "the first 20 of 250 classes" in page_of(run).text()


# -- light, dark and paper ---------------------------------------------------------------------------------------------


def colours(dark: bool) -> dict[str, tuple[float, ...]]:
    """Named colours of the style sheet, and how much of the accent the darkest field of a confusion matrix has."""
    css = (TEMPLATES / "page.css").read_text()
    rule = css[css.index("[data-theme=dark]" if dark else ":root{") :].split("}")[0]
    found = {
        name: tuple(
            int(value[i : i + len(value) // 3] * (6 // len(value)), 16) / 255
            for i in range(0, len(value), len(value) // 3)
        )
        for name, value in re.findall(r"--(\w+):#([0-9a-f]{3,6})", rule)
    }
    return found | {"deepest": (float(re.search(r"--deepest:([.\d]+)", rule)[1]),)}  # type: ignore[index]


def luminance(colour: tuple[float, ...]) -> float:
    """Relative, as WCAG 2 defines it."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True])
def test_counts_can_be_read_in_every_field_of_a_confusion_matrix(dark: bool) -> None:
    named = colours(dark)
    for share in range(101):
        part = share / 100 * named["deepest"][0]
        ground = tuple(part * a + (1 - part) * w for a, w in zip(named["accent"], named["wash"], strict=True))
        low, high = sorted((luminance(ground), luminance(named["ink"])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, share


def test_paper_is_never_dark(tmp_path: Path) -> None:
    style = page_of(make_run(tmp_path / "run", epochs=1)).source.split("<style>")[1].split("</style>")[0]
    outside, depth, on_screens = "", 0, 0
    for part in re.split(r"(@media[^{]*\{|[{}])", style):
        if part.startswith("@media"):
            depth, on_screens = depth + 1, depth + 1 if "screen" in part else on_screens
        elif part == "{":
            depth += 1
        elif part == "}":
            depth, on_screens = depth - 1, 0 if on_screens == depth else on_screens
        elif not on_screens:
            outside += part
    assert "data-theme=dark" in style and "data-theme" not in outside and "--ground:#fff" in outside


def test_warnings(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=2, shuffled_labels=True)
    (run / "nonfinite.json").write_text("[]")
    (run / "stuck.log").write_text("")
    (run / "data-skipped.json").write_text("{}")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step-1.damaged").write_text("")
    text = page_of(run).text()
    for words in ("permuted", "nonfinite.json", "stuck.log", "data-skipped.json", "step-1.damaged"):
        assert words in text


# -- several runs ------------------------------------------------------------------------------------------------------


def test_several_runs_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"seed-{seed}", epochs=4, space_name="nasbench201", seed=seed) for seed in range(3)]
    found = page_of(*runs)
    (rows,) = found.table("runs")
    last = [journal(run, "metrics")[-1]["eval_accuracy"] for run in runs]
    column = rows[0].index("E-Net")
    assert [row[column] for row in rows[1:4]] == [f"{100 * value:.2f} %" for value in last]
    mean = sum(last) / 3
    deviation = (sum((value - mean) ** 2 for value in last) / 2) ** 0.5
    assert rows[4][1] == "cdarts on digits" and "n = 3" in rows[4]
    assert f"{100 * mean:.2f} % ± {100 * deviation:.2f}" in rows[4]
    (differences,) = found.table("differences")
    genotypes = [parse_genotype(journal(run, "genotypes")[-1]["text"]) for run in runs]
    for position, row in enumerate(differences[1:]):
        assert row[2:] == [operation_label(g.cells["cell"][position].operation) for g in genotypes]
    assert found.source.count('class="line r0"') > 3


def test_a_mean_is_over_runs_that_differ_by_their_seed_alone(tmp_path: Path) -> None:
    make = partial(make_run, epochs=2, space_name="nasbench201", cycles=2)
    runs = [make(tmp_path / f"seed-{seed}", seed=seed) for seed in range(3)]
    runs += [make(tmp_path / "again", seed=1), make(tmp_path / "stopped", seed=7, state="interrupted")]
    runs += [make(tmp_path / "other", seed=9, cycles=3), make(tmp_path / "another", seed=10, cycles=3)]
    (runs[2] / "metrics.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "eval_loss"} | {"val_accuracy": 0.5}) + "\n"
                for line in journal(runs[2], "metrics"))
    )  # fmt: skip
    (rows,) = page_of(*runs).table("runs")
    means = [dict(zip(rows[0], [row[0], row[1], row[2], "", *row[3:]], strict=True)) for row in rows[1 + len(runs) :]]
    assert [mean["search"] for mean in means] == ["cdarts on digits, cycles 2", "cdarts on digits, cycles 3"]
    assert [mean["seed"] for mean in means] == ["n = 3", "n = 2"], "one run of each seed, of those that are done"
    values = [journal(run, "metrics")[-1]["eval_accuracy"] for run in runs[:3]]
    assert means[0]["E-Net"].startswith(f"{100 * sum(values) / 3:.2f} %")
    assert means[0]["search, alpha's half"] == "50.00 % (n = 1)"


def test_trainings_of_other_cells_are_other_groups(tmp_path: Path) -> None:
    runs = []
    for seed, name in enumerate(("darts-v1", "darts-v2", "darts-v2")):
        run, _, _ = make_training(tmp_path / f"run-{seed}", seed=seed)
        config = {"command": "retrain", "settings": {"data": "made", "seed": seed}}
        config |= {"genotype": zoo.load(name).to_json()}
        (run / "config.json").write_text(json.dumps(config))
        runs.append(run)
    # the same cell from elsewhere, and from before a setting was there, is the same
    config["settings"] |= {"younger": 1}
    config["genotype"] = zoo.load("darts-v2").to_json() | {"provenance": {"data": "elsewhere"}}
    (runs[-1] / "config.json").write_text(json.dumps(config))
    (rows,) = page_of(*runs).table("runs")
    assert [(row[1], row[2]) for row in rows[4:]] == [
        ("retrain on made (1)", "n = 1"),
        ("retrain on made (2)", "n = 2"),
    ]


def test_whole_runs_of_other_sizes_are_other_groups(tmp_path: Path) -> None:
    for seed, channels in enumerate((4, 4, 16)):
        run = tmp_path / f"run-{seed}"
        run.mkdir()
        config = {"command": "run", "settings": {"data": "digits", "seed": seed, "budget": "4m"}}
        (run / "config.json").write_text(json.dumps(config))
        (run / "status.json").write_text('{"state": "done"}')
        inner = make_run(run / "search", epochs=2, seed=seed)
        stored = json.loads((inner / "config.json").read_text())
        stored["settings"]["algorithm"]["channels"] = channels
        (inner / "config.json").write_text(json.dumps(stored))
    (rows,) = page_of(*sorted(tmp_path.iterdir())).table("runs")
    assert [(row[1], row[2]) for row in rows[4:]] == [
        ("run on digits, channels 4", "n = 2"),
        ("run on digits, channels 16", "n = 1"),
    ]


def test_many_runs_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"run-{n}", epochs=2, space_name="nasbench201", seed=n, cycles=n) for n in range(9)]
    found = page_of(*runs)
    assert len({tone(index) for index in range(24)}) == 24
    dots = [a["d"] for t, a in found.elements if t == "path" and (a.get("class") or "").startswith("dot r0")]
    assert len(dots) == 4 and len({d.translate(str.maketrans("", "", "0123456789. ")) for d in dots}) == 2
    for run in runs:
        assert found.text().count(run.name) >= 3, "in the table, in the key of the curves and in that of the dots"


def test_cells_are_compared_with_the_first_that_there_is(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "none", epochs=0, state="running", space_name="nasbench201")]
    runs += [make_run(tmp_path / name, epochs=2, space_name="nasbench201", seed=3) for name in ("a", "b")]
    assert 'class="op' in page_of(*runs).source and " differs" not in page_of(*runs).source.split("<tbody>")[-1]


def test_runs_of_different_kinds_share_a_page(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", epochs=2),
        make_run(tmp_path / "b", epochs=0, state="failed"),
        make_run(tmp_path / "c", epochs=3, space_name="nasbench201", preset="other"),
    ]
    found = page_of(*runs)
    assert not found.table("differences"), "cells of two spaces have no edges in common"
    (rows,) = found.table("runs")
    assert [row[3] for row in rows[1:4]] == ["done", "failed", "done"]


def test_what_is_said_of_settings(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run", epochs=1))
    reference = Reference("preset x", {"algorithm": {"name": "cdarts", "space": {"name": "darts"}, "channels": 36}})
    text = page([record], lambda _: reference)
    first = Page(text).table("settings")[0]
    assert first[1:] == [["algorithm.channels", "16", "36"]]
    assert "search, against preset x" in Page(text).text()
    same = page([record], lambda _: Reference("preset y", {"algorithm": record.algorithm}))
    assert "Nothing differs." in Page(same).text() and "algorithm.channels" in Page(same).text()
    assert "algorithm.channels" in Page(page([record])).text(), "settings that are compared with nothing are shown too"
    (view,) = one_run(record, lambda _: None, DETAILS[0])["settings"]
    assert not view.reference and ("seed", "0") in view.others
