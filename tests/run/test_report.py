"""The report: whatever is in a run directory is on the page, and what is missing is said."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lapwing.errors import CheckpointError
from lapwing.run.evaluate import Evaluation, save_evaluation
from lapwing.run.held_out import ActionError, Calibration, HeldOut, ImageTest
from lapwing.run.report import write_report
from lapwing.run.results import read_results
from lapwing.run.verdict import alike, findings
from lapwing.spec import Camera, RobotSpec, unnamed_axes

VOID = {"meta", "br", "img"}


def make_evaluation(wins: int, episodes: int = 100, filmed: int = 0) -> Evaluation:
    return Evaluation(
        seeds=tuple(range(episodes)),
        returns=tuple(float(index < wins) for index in range(episodes)),
        lengths=tuple(10 + index for index in range(episodes)),
        flags={
            "success": tuple(index < wins for index in range(episodes)),
            "wrong_object": tuple(index >= 98 for index in range(episodes)),
        },
        cameras=("left", "right"),
        frames=tuple(np.full((5, 4, 8, 3), 40 * index, np.uint8) for index in range(filmed)),
    )


ERROR = ActionError(5, 0.9, {}, (1, 1, 1))


def make_calibration(bias: float, spearman: float = 0.82) -> Calibration:
    return Calibration(spearman, bias, 0.02, 0.4, (0, 1), (-0.1, 0.9), (0.0, 0.5, 0.8), (0.1, 0.45, 0.85))


def make_held_out(**changes: Any) -> HeldOut:
    def error(mse: float) -> ActionError:
        return ActionError(50, mse, {"arm": mse, "gripper": 2 * mse}, (0.01 + mse, 0.02, 0.3))

    values: dict[str, Any] = {
        "episodes": 25,
        "samples": 1234,
        "modes": ("pi", "z0"),
        "axes": (("elbow $1", "rad", "arm"), ("wrist", "rad", "arm"), ("grip", "open", "gripper")),
        "errors": {"pi": error(0.3), "z0": error(0.25), "hold": error(0.9), "mean": error(1.0)},
        "errors_positive": {"pi": error(0.2), "z0": error(0.15), "hold": error(0.8), "mean": error(float("nan"))},
        "calibration": make_calibration(-0.04),
        "image_test": ImageTest(256, 0.3, 0.45, (0.1, 0.2)),
    }
    return HeldOut(**values | changes)


def make_run(run: Path, algorithm: str = "lapo") -> Path:
    """A run directory that has been begun and nothing else."""
    run.mkdir()
    config: dict[str, Any] = {
        "algorithm": algorithm,
        "config": {"expectile": 0.9, "vision": {"backbone": "small"}},
        "data": "f00d",
    }
    config["reward_facts"] = {"reward": [0, 1], "returns": [0, 1]}
    (run / "config.json").write_text(json.dumps(config))
    return run


def fill_run(run: Path, wins: int = 80) -> Path:
    """All that training and evaluation leave behind."""
    (run / "held_out.json").write_text(json.dumps({"step": 1500, **make_held_out().to_dict()}))
    data = {"path": "<lab>/toy.hdf5", "episodes": 400, "steps": 8000, "success_rate": 0.42, "notes": ["no & boundary"]}
    cameras = (Camera("left", 48, 64), Camera("right", 48, 64))
    spec = RobotSpec("twig", cameras, unnamed_axes("state", 4), unnamed_axes("action", 3), rate_hz=20.0)
    data |= {"spec": spec.to_dict(), "rate_hz": 0, "returns": [0.0, 1.0, 1.0], "lengths": [3, 4, 5]}
    (run / "data.json").write_text(json.dumps(data))
    (run / "progress.csv").write_text(
        "step,seconds,q_mean,critic_loss,valid/action_error,valid/action_error_pi,valid/action_error_positive\n"
        "100,30,0.1,0.5,,,\n1500,60,0.2,nan,0.4,0.4,0.3\n2000,120,0.3,0.4,0.5,0.5,0.4\n2100,1"
    )
    save_evaluation(
        run, "toy", 5, {"pi": make_evaluation(wins, filmed=2), "blind": make_evaluation(1)}, "step-00001500"
    )
    return run


class Page(HTMLParser):
    """Checks that every element is closed, and collects text and what would be fetched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.fetched: list[str] = []
        self.headings: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read_page(path: Path) -> tuple[str, Page]:
    page = Page(path.read_text(encoding="utf-8"))
    return " ".join(" ".join(page.text).split()), page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fill_run(make_run(tmp_path / "my-run"))


def test_everything_there_is_shown(run: Path) -> None:
    path = write_report(run)
    text, page = read_page(path)
    assert path == run / "report.html"
    assert page.headings == [
        "Success in toy",
        "Actions on held-out episodes",
        "Values",
        "Training",
        "Data",
        "Configuration",
    ]
    assert "the policy (pi) succeeds in 80 % of 100 fresh episodes (95 % interval 71 to 87 %)" in text
    assert "clearly more than the data it learned from (42 %)" in text
    assert "67 % less squared error than holding still" in text
    assert "with the images of other moments its error rises by 50 %" in text
    assert "correlation of 0.82 and lie 0.04 below them" in text
    assert "success after 10 steps; success after 11 steps" in text
    assert "elbow $1" in text
    assert "<lab>/toy.hdf5" in text
    assert "robot twig rate 20 Hz cameras, height x width left (48 x 64), right (48 x 64)" in text
    assert "state axes 4 action axes 3" in text
    assert "state_0" not in text
    assert "no & boundary" in text
    assert "checkpoint of step 1,500" in text
    assert "evaluation seed 5, checkpoint step-00001500; the first row is deployed" in text
    assert "2,000 steps in 2.0 min" in text
    assert "config.vision.backbone small" in text
    assert "blind: black images 1 % (0 to 5 %) 2 % (1 to 7 %)" in text
    assert (text.count("range of returns"), text.count("possible values")) == (3, 1)
    assert "is not there" not in text


def test_the_page_needs_nothing_from_elsewhere(run: Path) -> None:
    html = write_report(run).read_text()
    _, page = read_page(run / "report.html")
    pictures = [one for one in page.fetched if one.startswith("data:image/png;base64,")]
    assert len(pictures) == 1
    assert base64.b64decode(pictures[0].split(",")[1]) == (run / "eval" / "toy-5.png").read_bytes()
    inside = {one for one in page.fetched if one.startswith("#")}
    assert set(page.fetched) == inside | set(pictures)
    assert inside <= {f"#{name}" for name in re.findall(r'id="([^"]+)"', html)}
    assert "url(http" not in html
    assert "@import" not in html
    assert html.count("<svg") == 10
    assert "currentColor" in html
    assert [file.name for file in run.glob(".*")] == []


def test_what_is_missing_is_said_with_the_command(tmp_path: Path) -> None:
    text, _ = read_page(write_report(make_run(tmp_path / "bare")))
    assert "Not yet seen in a world" in text
    assert "lapwing eval" in text
    assert "Not yet judged on held-out episodes" in text
    assert "progress.csv is not there" in text
    assert "data.json is not there" in text
    assert "not trained yet" in text


def test_no_rollout_recorded(run: Path) -> None:
    save_evaluation(run, "toy", 5, {"pi": make_evaluation(80)})
    assert read_results(run).worlds[0].checkpoint is None
    text, page = read_page(write_report(run))
    assert "No rollout was recorded here" in text
    assert not [one for one in page.fetched if one.startswith("data:")]


def test_figures_of_different_checkpoints_say_their_steps(run: Path) -> None:
    together, _ = read_page(write_report(run))
    assert "different checkpoints" not in together
    assert "step 1,500)" not in together
    save_evaluation(run, "toy", 5, {"pi": make_evaluation(80)}, "step-00002400")
    text, _ = read_page(write_report(run))
    assert "the policy (pi, step 2,400) succeeds in 80 %" in text
    assert "Success and held-out figures are of different checkpoints: what follows is of step 1,500." in text
    assert "success in toy, 100 episodes, step 2,400" in text
    assert "held-out action error (pi, step 1,500)" in text
    assert "rank correlation of value and return, step 1,500" in text


def test_other_runs_stand_beside(run: Path, tmp_path: Path) -> None:
    other = fill_run(make_run(tmp_path / "cloned", "bc"), wins=53)
    text, _ = read_page(write_report(run, [other]))
    assert "clearly more than BC, run cloned: 53 %, interval 43 to 62 %" in text
    assert text.count("BC, run cloned") >= 4
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"data": "other"}))
    fewer, _ = read_page(write_report(run, [other]))
    assert "BC, run cloned" in fewer
    assert fewer.count("BC, run cloned") < text.count("BC, run cloned")


def test_the_head_that_imitates_is_not_taken_for_a_run_that_does(run: Path, tmp_path: Path) -> None:
    save_evaluation(run, "toy", 5, {"pi": make_evaluation(80), "bc": make_evaluation(60)})
    other = make_run(tmp_path / "bc", "bc")
    save_evaluation(other, "toy", 5, {"bc": make_evaluation(50)})
    text, _ = read_page(write_report(run, [other]))
    assert "LAPO's bc head" in text
    assert "BC, separate run" in text
    own, _ = read_page(write_report(other))
    assert "bc: imitation (deployed)" in own
    assert "'s bc head" not in own


def test_numbers_to_compare_have_the_same_decimals(run: Path) -> None:
    assert alike(0.924, 1.026) == ["0.92", "1.03"]
    assert alike(16.3, 1.0) == ["16.3", "1.0"]
    assert alike(0.0, 0.0034) == ["0.0000", "0.0034"]
    assert alike(0.0, 123.4, float("nan")) == ["0", "123", "nan"]
    text, _ = read_page(write_report(run))
    assert "0.30 held-out action error (pi) 0.90 the same, holding still" in text


@pytest.mark.parametrize(("is_relative", "remedy"), [(False, "train with --relative-actions"), (True, "train longer")])
def test_what_loses_to_holding_still_has_a_remedy(run: Path, is_relative: bool, remedy: str) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"options": {"relative_actions": is_relative}}))
    errors = {**dict.fromkeys(("pi", "hold"), ERROR), "mean": replace(ERROR, mse=1.0)}
    (run / "held_out.json").write_text(json.dumps(make_held_out(errors=errors).to_dict()))
    assert [one for one in findings(read_results(run), []) if "no nearer than" in one.text and remedy in one.text]


def test_the_first_finding_tells_the_score_where_there_is_one(run: Path) -> None:
    scored = replace(make_evaluation(80), figures={"score": 86.31})
    save_evaluation(run, "toy", 5, {"pi": scored}, "step-00001500")
    assert "(95 % interval 71 to 87 %), D4RL's score 86.3, clearly more" in findings(read_results(run), [])[0].text


@pytest.mark.parametrize(
    ("wins", "tone", "words"), [(80, "good", "clearly more"), (45, "fair", "not clearly"), (9, "bad", "clearly less")]
)
def test_the_first_finding_weighs_policy_against_data(run: Path, wins: int, tone: str, words: str) -> None:
    first = findings(read_results(fill_run(run, wins)), [])[0]
    assert first.tone == tone
    assert words in first.text


@pytest.mark.parametrize(
    ("changes", "tone", "words"),
    [
        ({"image_test": ImageTest(256, 0.3, 0.3, (-0.1, 0.1))}, "bad", "does not look"),
        ({"image_test": ImageTest(256, 0.3, 0.31, (0.005, 0.02))}, "fair", "hardly looks"),
        (
            {"errors": {**dict.fromkeys(("pi", "hold"), ERROR), "mean": replace(ERROR, mse=1.0)}},
            "bad",
            "no nearer than holding still",
        ),
        ({"errors": dict.fromkeys(("pi", "hold", "mean"), ERROR)}, "fair", "no nearer than the mean action"),
        ({"episodes": 6}, "fair", "only 6 held-out episodes"),
        ({"calibration": make_calibration(0.26)}, "fair", "26 % of the range of returns: trust their order"),
        ({"calibration": make_calibration(-0.26, 0.1)}, "bad", "0.26 below them on average, 26 % of the range"),
        ({"calibration": make_calibration(0.1)}, "good", "lie 0.1 above them on average."),
    ],
)
def test_findings_say_what_is_wrong(run: Path, changes: dict[str, Any], tone: str, words: str) -> None:
    (run / "held_out.json").write_text(json.dumps(make_held_out(**changes).to_dict()))
    said = [one for one in findings(read_results(run), []) if words in one.text]
    assert [one.tone for one in said] == [tone]


def test_an_agent_without_values_or_cameras(run: Path) -> None:
    (run / "held_out.json").write_text(
        json.dumps(make_held_out(calibration=None, errors_positive={}, image_test=None).to_dict())
    )
    text, page = read_page(write_report(run))
    assert "Values" not in page.headings
    assert "This policy has no cameras" in text
    assert "advantage" not in " ".join(page.headings)


@pytest.fixture
def sac_run(tmp_path: Path) -> Path:
    """A run of SAC in a world, before anybody judged it."""
    run = fill_run(make_run(tmp_path / "hybrid", "sac"))
    (run / "held_out.json").unlink()
    (run / "eval" / "toy-5.json").unlink()
    (run / "progress.csv").write_text(
        "step,critic_loss,q_mean,q_diverged,online/env_steps,online/success_recent\n"
        "100,0.5,0.2,0,1100,\n200,0.4,0.3,0,1200,0.05\n"
    )
    return run


def test_what_sac_did_in_the_world_stands_apart(sac_run: Path) -> None:
    text, _ = read_page(write_report(sac_run))
    assert "In the world, while it learned" in text
    assert text.index("env steps") < text.index("Losses and measures") < text.index("critic loss")
    assert text.count("success recent") == 1
    assert "--world WORLD --episodes 100" in text
    assert "ran away" not in text
    save_evaluation(sac_run, "panda", 5, {"pi": make_evaluation(80)})
    text, _ = read_page(write_report(sac_run))
    assert "pi: policy (deployed)" in text
    assert "latent policy" not in text


def test_values_that_ran_away_are_said(sac_run: Path) -> None:
    with (sac_run / "progress.csv").open("a") as file:
        file.write("300,9,80,1,1300,0\n")
    first, second, *_ = findings(read_results(sac_run), [])
    assert "Not yet seen in a world" in first.text
    assert (second.tone, second.text.startswith("Its values ran away from all returns")) == ("bad", True)


def test_sac_is_not_told_to_learn_relative_actions(sac_run: Path) -> None:
    errors = dict.fromkeys(("pi", "hold", "mean"), ActionError(5, 0.9, {}, (1, 1, 1)))
    (sac_run / "held_out.json").write_text(json.dumps(make_held_out(modes=("pi",), errors=errors).to_dict()))
    [said] = [one.text for one in findings(read_results(sac_run), []) if "no nearer than" in one.text]
    assert said.endswith("train longer, or on more recordings.")


def test_a_half_written_row_is_no_trouble(run: Path) -> None:
    steps, seconds = read_results(run).progress["seconds"]
    assert steps.tolist() == [100, 1500, 2000]
    assert seconds.tolist() == [30, 60, 120]
    assert read_results(run).progress["critic_loss"][1].tolist() == [0.5, 0.4]
    assert read_results(run).progress["valid/action_error"][0].tolist() == [1500, 2000]


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a run, config\.json is missing; expected a directory made by"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("held_out.json", "{", r"held_out\.json: damaged"),
        ("held_out.json", "[]", r"held_out\.json: expected a JSON object, got list"),
        ("held_out.json", "{}", r"held_out\.json: does not fit this version"),
        ("eval/toy-5.json", '{"world": "toy"}', r"toy-5\.json: does not fit this version"),
    ],
)
def test_damaged_files_are_named(run: Path, file: str, content: str, message: str) -> None:
    (run / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()
