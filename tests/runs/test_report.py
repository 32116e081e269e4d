"""The report: one page that needs nothing, says what is so, escapes everything, and never fails a run."""

import math
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml

from odkit.analysis import evaluate
from odkit.cli import main
from odkit.data import Dataset, Predictions
from odkit.runs.dashboard.progress import closing_line
from odkit.runs.events import EventLog
from odkit.runs.final_test import FinalTest
from odkit.runs.report import model_card, report, report_at_the_end, words
from odkit.runs.report.drawings import by_score
from odkit.runs.report.results import WISHES, thresholds
from odkit.runs.report.subject import Subject
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from odkit.system import InputError
from tests.helpers import found_in, make_dataset, make_predictions, squares

HOSTILE = '<script>alert("class")</script>'
# What a page of ours is made of; anything else came in by a name.
ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "nav", "ol", "li", "a", "main", "header", "footer", "section",
    "h1", "h2", "h3", "p", "span", "b", "i", "ul", "div", "table", "thead", "tbody", "tr", "th", "td", "figure", "dl",
    "figcaption", "dt", "dd", "details", "summary", "code", "pre", "svg", "circle", "text", "line", "polyline", "rect",
    "image",
}  # fmt: skip


class Page(HTMLParser):
    """Elements with their attributes, and all text, of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def page_of(run: Run) -> Page:
    return Page(report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("data") / "images", 24, val=0).with_splits(val=0.25, test=0.25)


def judged(run: Run, found: Predictions | None = None, *, epochs: int = 3) -> Run:
    """A run's folder as a worker leaves it that has finished; what was found: nearly everything, if not given."""
    held = run.dataset("val")
    evaluation = evaluate(held, found_in(held) if found is None else found)
    evaluation.predictions.save(run.path / "predictions.npz")
    figures = {"epoch": epochs, "step": 3 * epochs, **evaluation.to_dict()}
    (run.path / "evaluation.json").write_bytes(orjson.dumps(figures))
    log = EventLog(run.path / "events.jsonl")
    reasons = {"batch_size": "4 images a process on a cpu device", "precision": "bf16 gains nothing <here>"}
    machine = {"python": "3.11", "odkit": "0.1", "torch": "2", "torchvision": "0", "numpy": "2", "system": "Linux",
               "device": "x86_64", "commit": "c0ffee" * 7}  # fmt: skip
    choices = {"batch_size": 4, "precision": "fp32", "reasons": reasons}
    log.write("start", step=0, from_step=0, from_epoch=0, steps_per_epoch=3, epochs=epochs, device="cpu",
              processes=1, choices=choices, machine=machine)  # fmt: skip
    for epoch in range(1, epochs + 1):
        for step in range(3 * epoch - 2, 3 * epoch + 1):
            log.write("step", step=step, loss=2.0 / step)
        log.write("epoch", epoch=epoch, step=3 * epoch, loss=1.0, seconds=9.0, images_per_second=5.0,
                  total_seconds=9.0 * epoch)  # fmt: skip
        ap, ap50 = (figures[key] if epoch == epochs else 0.1 * epoch for key in ("ap", "ap50"))
        log.write("evaluation", epoch=epoch, step=3 * epoch, ap=ap, ap50=ap50, best=True, seconds=2.0,
                  best_so_far={"epoch": epoch, "ap": ap, "ap50": ap50})  # fmt: skip
    log.write("warning", kind="data_worker", message="a data worker died; started anew", step=4)
    log.write("end", reason="finished", message="", step=3 * epochs, seconds=40.0)
    log.close()
    return run


def look(run: Run) -> FinalTest:
    """What a look at the test images writes down."""
    held = run.dataset("test")
    found = evaluate(held, found_in(held))
    said = orjson.loads((run.path / "evaluation.json").read_bytes())
    test = FinalTest(
        run=run.name, date="2026-11-29T00:00:00+00:00", detector="ab" * 32, epoch=said["epoch"],
        validation_ap=said["ap"], dataset=found.data_name, fingerprint=held.fingerprint(), images=len(held),
        boxes=held.num_boxes, look=1, device="cpu", precision="fp32", image_size=64, odkit="0.1",
        figures=found.metrics, intervals=found.intervals(samples=50), score=0.6, found=0.834, right=0.5,
    )  # fmt: skip
    (run.path / "test.json").write_bytes(orjson.dumps({"format": 1, "tests": [test.to_dict()]}))
    return test


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    settings = Settings(epochs=3, seed=7, augment="flip")
    return judged(create_run(dataset, settings, tmp_path / "runs", "one"))


# -- what it says ------------------------------------------------------------------------------------------------------


def test_it_says_in_words_what_the_figures_say(run: Run) -> None:
    e = run.evaluation()
    counts = e.per_image()
    true, false, missed = (c.sum() for c in (counts.true_positives, counts.false_positives, counts.missed))
    found, right = round(100 * true / (true + missed)), round(100 * true / (true + false))
    page = page_of(run)
    assert (
        f"Of 100 labelled objects it found {found}, and of 100 boxes that it drew, {right} were right: on "
        f"{len(e.dataset)} validation images, at a score of {e.best_score:.2f} and above."
    ) in page.text
    for text in (
        f"{e.ap:.3f}", f"{e.ap50:.3f}",  # figures
        "Looks for blue and red.",
        "finished after 3 epochs",
        "No test images were looked at.", f"odkit test {run.name}",
        "4 images a process on a cpu device", "bf16 gains nothing <here>",  # reasons
        "augment flip odkit's choice", "epochs 3 odkit's choice", "seed 7 0",  # what a person chose
        "a data worker died; started anew",
        "c0ffeec0ffee", run.config["fingerprint"], "Apache-2.0",
        "Every check ran before training",
        "od.load_detector", f"odkit export {run.name}",
        "It had fewer than 50 boxes to learn blue and red from.",
    ):  # fmt: skip
        assert text in page.text, text
    (row,) = [row for row in e.per_class if row["class"] == "red"]
    learnt = run.dataset("train").class_counts()["red"]
    assert (
        f"red few boxes {row['ap']:.3f} {row['ap50']:.3f} {row['best_score']:.2f} {learnt} {row['boxes']}"
        in page.text
    )


def test_it_says_what_scores_mean_and_which_to_choose(run: Run) -> None:
    e = run.evaluation()
    page = page_of(run)
    assert e.calibration().sentence in page.text
    wish = next(wish for wish in WISHES if not math.isnan(e.score_for(recall=wish).score))
    least = e.score_for(recall=wish).total
    for wanted, row in (("best balance (F1)", e.thresholds.total), (f"{wish:.0%} of objects found", least)):
        found, right = (words.hundred(row[key]) for key in ("recall", "precision"))
        assert f"{wanted} {row['score']:.2f} {found} {right}" in page.text


def test_a_wish_that_no_threshold_grants_is_lowered_or_left_out() -> None:
    truth = make_dataset([(0, 0, [0, 0, 20, 20]), (0, 1, [40, 40, 60, 60])])
    wrong = [(0, 0, 0.9, [70, 0, 90, 20]), (0, 0, 0.3, [0, 0, 20, 20])]
    rows = thresholds(Subject(None, evaluate(truth, make_predictions(wrong))))
    assert [row["wanted"] for row in rows] == ["best balance (F1)"]
    rows = thresholds(Subject(None, evaluate(truth, make_predictions([]))))
    assert rows == []


def test_test_images_have_the_first_word(run: Run) -> None:
    test = look(run)
    page = page_of(run)
    assert (
        "Of 100 labelled objects it found 83, and of 100 boxes that it drew, 50 were right: on 6 test images, at a "
        "score of 0.60 and above."
    ) in page.text
    low, high = test.interval
    assert f"AP {test.ap:.3f} {low:.3f} to {high:.3f}" in page.text
    assert "No test images" not in page.text
    low, high = test.intervals.of("ap", "blue")
    assert f"({low:.3f} to {high:.3f})" in page.text
    other = {"epoch": 9, "ap": 0.5}  # after a resume, another detector is the best
    file = run.path / "evaluation.json"
    file.write_bytes(orjson.dumps({**orjson.loads(file.read_bytes()), **other}))
    assert "No test images were looked at." in page_of(run).text


def test_the_score_curve_counts_what_is_right_and_what_is_found() -> None:
    truth = make_dataset([(0, 0, [0, 0, 20, 20]), (0, 1, [40, 40, 60, 60])])
    found = make_predictions(
        [(0, 0, 0.9, [0, 0, 20, 20]), (0, 1, 0.5, [80, 80, 99, 99]), (0, 1, 0.3, [40, 40, 60, 60])]
    )
    at, right, share = by_score(evaluate(truth, found))
    said = {round(float(score), 2): (right[k], share[k]) for k, score in enumerate(at)}
    assert said[0.2] == (pytest.approx(2 / 3), 1.0)
    assert said[0.4] == (0.5, 0.5)
    assert said[0.7] == (1.0, 0.5)
    assert np.isnan(said[0.95][0])
    assert said[0.95][1] == 0


@pytest.mark.parametrize(
    ("share", "number", "said"),
    [(0, 0, "none"), (0.001, 1, "1"), (0.934, 93, "93"), (0.999, 99, "99"), (1, 100, "all 100")],
)
def test_of_a_hundred(share: float, number: int, said: str) -> None:
    assert (words.hundred(share), words.of_hundred(share)) == (number, said)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c"], "a, b and c"),
        ([*"abcdefghij"], "a, b, c, d, e, f and 4 more"),
    ],
)
def test_names_in_a_sentence(names: list[str], said: str) -> None:
    assert words.listed(names) == said


def test_the_benchmark_is_shown_where_there_is_one(run: Run) -> None:
    assert "95 of 100 within" not in page_of(run).text
    measured = {
        "name": "ONNX int8", "device": "cpu", "latency": {"median": 12.34, "p95": 20.0, "count": 9}, "memory": 5 << 20,
        "paces": [{"batch_size": 1, "images_per_second": 70.0}, {"batch_size": 4, "images_per_second": 91.25}],
        "file_bytes": 4 << 20, "ap": 0.5, "why_not": "", "remark": "",
    }  # fmt: skip
    broken = {
        "name": "OpenVINO",
        "latency": None,
        "paces": [],
        "ap": None,
        "why_not": "openvino is not <installed>",
    }
    page = {"format": 1, "rows": [measured, broken], "machine": "a CPU", "date": "2026-11-29T00:00:00+00:00"}
    (run.path / "benchmark.json").write_bytes(orjson.dumps(page))
    text = page_of(run).text
    assert "ONNX int8 (cpu) 12.3 ms (20.0 ms) 91.2 at 4 5 MB 4 MB 0.500" in text
    assert "OpenVINO openvino is not <installed> — — — — —" in text
    assert "Measured on a CPU, 2026-11-29." in text


# -- one file, and nothing in it but what we put there -----------------------------------------------------------------


def test_it_loads_nothing_and_runs_nothing(run: Run) -> None:
    look(run)
    page = page_of(run)
    names = {name for name, _ in page.elements}
    assert names <= ELEMENTS
    assert {"image", "polyline", "table"} <= names
    drawn = [(place, a) for place, (name, a) in enumerate(page.elements) if name == "svg"]
    assert len(drawn) > 5
    for place, a in drawn:  # each says what it shows to who cannot see it
        assert a["role"] == "img"
        assert a.get("aria-label") or page.elements[place + 1][0] == "title"
    assert all(a.get("scope") for name, a in page.elements if name == "th")
    addresses = [value or "" for _, a in page.elements for key, value in a.items() if key in ("href", "src")]
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in addresses)
    anchors = {a["id"] for _, a in page.elements if "id" in a}
    assert {address[1:] for address in addresses if address.startswith("#")} <= anchors
    policy = [
        a["content"] or "" for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "url(" not in (run.path / "report.html").read_text()
    assert (run.path / "report.html").stat().st_size < 2_000_000


@pytest.fixture
def hostile(dataset: Dataset, tmp_path: Path) -> Run:
    """A run whose names all want to be HTML, YAML or Markdown."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [folder / f"<img src=x onerror=alert({n})>.png" for n in range(len(dataset))]
    for old, new in zip(dataset.image_paths, paths, strict=True):
        shutil.copy(old, new)
    odd = replace(
        dataset, name='data"><svg onload=alert(1)>', root=folder, image_paths=[str(p) for p in paths],
        image_ids=[p.name for p in paths], class_names=(HOSTILE, "a | b: [c](http://d) `e` & \n- {f}"),
        notes=("</li></ul><h1 onclick=alert(2)>",),
    )  # fmt: skip
    return judged(create_run(odd, Settings(epochs=1), tmp_path / "runs", "odd"))


def test_names_stay_text(hostile: Run) -> None:
    look(hostile)
    page = page_of(hostile)
    assert {name for name, _ in page.elements} <= ELEMENTS
    assert not [key for _, a in page.elements for key in a if key.startswith("on")]
    assert HOSTILE in page.text
    assert "<img src=x onerror=alert(" in page.text
    assert 'data"><svg onload=alert(1)>' in page.text
    assert "</li></ul><h1 onclick=alert(2)>" in page.text


def test_names_stay_text_in_the_card(hostile: Run) -> None:
    card = model_card(hostile)
    _, front, body = card.split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["model-index"][0]["results"][0]["dataset"]["name"].startswith('data"><svg onload=alert(1)>')
    assert said["model-index"][0]["results"][0]["dataset"]["type"] == "data-svg-onload-alert-1"
    assert "datasets" not in said  # they would be the Hub's
    assert "<" not in body.replace("<br>", "")
    assert "&lt;script&gt;alert" in body
    rows = [line for line in body.splitlines() if line.startswith("| a ")]
    assert rows and rows[0].startswith(r"| a \| b: \[c\](http://d) \`e\` &amp; - {f} | ")


# -- the card ----------------------------------------------------------------------------------------------------------


def test_an_interval_that_nobody_knows_is_a_dash(run: Run) -> None:
    test = look(run)
    plain = test.to_dict()
    plain["intervals"]["total"] |= {"ap_low": None, "ap_high": None}
    (run.path / "test.json").write_bytes(orjson.dumps({"format": 1, "tests": [plain]}))
    assert f"| AP | {test.ap:.3f} | — |" in model_card(run)
    assert "nan%" not in report(run).read_text(encoding="utf-8")


def test_the_hub_reads_the_card(run: Run) -> None:
    hub = pytest.importorskip("huggingface_hub")
    test = look(run)
    report(run)
    card = hub.ModelCard((run.path / "MODEL_CARD.md").read_text(encoding="utf-8"))
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("odkit", "object-detection", "apache-2.0")
    assert {one.metric_name: one.metric_value for one in data.eval_results}["AP"] == round(test.ap, 4)
    assert {(one.task_type, one.dataset_split) for one in data.eval_results} == {("object-detection", "test")}
    assert f"| AP | {test.ap:.3f} | " in card.text


@pytest.mark.parametrize(
    ("detector", "weights", "licence"),
    [
        ("starter", "pretrained", "apache-2.0"),
        ("fcos_resnet50_fpn", "pretrained", "bsd-3-clause"),
        ("fcos_resnet50_fpn", "random", "bsd-3-clause"),
        ("starter", "somewhere/mine.pth", "other"),
    ],
)
def test_the_licence_is_that_of_what_it_began_with(
    dataset: Dataset, tmp_path: Path, detector: str, weights: str, licence: str
) -> None:
    settings = Settings(detector=detector, weights=weights, epochs=1)
    run = create_run(dataset, settings, tmp_path, elsewhere=True)
    front = yaml.safe_load(model_card(run).split("---\n")[1])
    assert front["license"] == licence
    assert "model-index" not in front  # nothing is judged yet


# -- whatever the run is -----------------------------------------------------------------------------------------------


def test_pictures_that_are_gone(run: Run, dataset: Dataset) -> None:
    away = dataset.root.with_name("away")
    dataset.root.rename(away)
    try:
        page = page_of(run)
    finally:
        away.rename(dataset.root)
    assert page.text.count("could not be shown:") == 1
    assert "Dotted white" not in page.text
    assert "(file not found)" in page.text
    assert "photo" not in [a.get("class") for name, a in page.elements if name == "svg"]
    assert not [a for name, a in page.elements if name == "image"]


def test_a_run_without_a_detector(dataset: Dataset, tmp_path: Path) -> None:
    run = create_run(dataset, Settings(epochs=5), tmp_path)
    log = EventLog(run.path / "events.jsonl")
    log.write("start", step=0, from_step=0, steps_per_epoch=3)
    log.write("step", step=1, loss=None)
    log.write("end", step=1, reason="stopped", message="")
    log.close()
    page = page_of(run)
    assert (
        "No detector yet: it is saved with the first evaluation, and the run is stopped before it."
        in page.text
    )
    assert "Data: squares" in page.text
    assert "It has no figures yet." in page.text
    assert "Nothing was judged yet." in model_card(run)


@pytest.mark.parametrize("classes", [1, 60])
def test_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (i % 12, k, np.r_[xy, xy + 30])
        for i, k in enumerate(range(classes))
        for xy in [rng.uniform(0, 300, 2)]
    ]
    rows += [(k, 0, [5, 5, 40, 40]) for k in range(12)]
    names = tuple(f"class {k}" for k in range(classes))
    data = make_dataset(sorted(rows, key=lambda row: row[0]), images=12, names=names).with_splits(val=0.5)
    held = data.split("val")
    rows = zip(held.box_images, held.box_classes, np.full(held.num_boxes, 0.9), held.boxes, strict=True)
    some = list(rows) if classes > 1 else []  # and once nothing at all
    found = make_predictions(some, names=names, image_ids=tuple(held.image_ids))
    page = page_of(judged(run_without_audit(data, tmp_path), found, epochs=1))
    assert f"class {classes - 1}" in page.text
    assert f"Looks for {words.listed(names)}." in page.text
    assert "Nothing says how well it finds" in page.text or classes == 1
    assert "Only what labels, sizes and splits say by themselves was checked here" in page.text


def run_without_audit(data: Dataset, folder: Path) -> Run:
    """A run of images that are not there, as one made before audits were written down."""
    path = folder / "runs" / "old"
    path.mkdir(parents=True)
    data.save(path / "dataset.npz")
    config: dict[str, Any] = {
        "format": 1, "settings": Settings(epochs=1).to_dict(), "dataset": data.name,
        "class_names": data.class_names, "fingerprint": data.fingerprint(), "images": data.split_counts(),
    }  # fmt: skip
    (path / "config.json").write_bytes(orjson.dumps(config))
    return Run(path)


def test_what_does_not_fit_into_the_time_is_named(run: Run) -> None:
    page = Page(report(run, seconds=1e-6).read_text())
    assert (
        f"No mistakes: the report was given 1e-06 s; `odkit report {run.name}` makes the whole." in page.text
    )
    assert f"{run.evaluation().ap:.3f}" in page.text
    assert "Mistakes by kind" not in page.text


# -- of detections without a run ---------------------------------------------------------------------------------------


def test_anybodys_detections(dataset: Dataset, tmp_path: Path) -> None:
    held = dataset.split("val")
    evaluation = evaluate(held, found_in(held))
    file = report(evaluation, tmp_path / "new" / "theirs.html")
    page = Page(file.read_text())
    low, high = evaluation.intervals().of("ap")
    assert f"AP {evaluation.ap:.3f} {low:.3f} to {high:.3f}" in page.text
    assert "Mistakes by kind" in page.text
    assert "validation" not in page.text.replace("validation images. A lower", "")
    assert not list(file.parent.glob("*.md"))
    with pytest.raises(InputError, match="an evaluation has no folder of its own"):
        report(evaluation)
    with pytest.raises(InputError, match=r"theirs.pdf should end in .html"):
        report(evaluation, tmp_path / "theirs.pdf")


# -- when a run ends, and by command -----------------------------------------------------------------------------------


def test_a_report_that_fails_is_a_warning(run: Run) -> None:
    log = EventLog(run.path / "events.jsonl")
    report_at_the_end(run, log)
    assert run.last_event["event"] == "end"
    assert closing_line(run).endswith("\nReport: " + str(run.path / "report.html"))
    (run.path / "report.html").unlink()
    (run.path / "report.html").mkdir()  # in the way
    report_at_the_end(run, log)
    log.close()
    assert run.last_event["event"] == "warning"
    assert run.last_event["message"].endswith(f"`odkit report {run.path}` tries again")
    assert run.state == "finished"


def test_the_command_says_where_it_is(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.path / 'report.html'}\n"
    assert (run.path / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(run)
    out = tmp_path / "desk" / "page.html"
    assert main(["report", str(run.path), "--out", str(out)]) == 0
    assert [file.name for file in out.parent.iterdir()] == ["page.html"]


def test_the_wheel_carries_the_templates() -> None:
    from hatchling.builders.wheel import WheelBuilder

    project = Path(__file__).parents[2]
    carried = {file.distribution_path for file in WheelBuilder(str(project)).recurse_included_files()}
    there = {f"odkit/runs/report/templates/{name}" for name in ("report.html", "style.css", "MODEL_CARD.md")}
    assert there <= carried
