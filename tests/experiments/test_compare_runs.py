"""What differs between a failed run and one that worked."""

from __future__ import annotations

from pathlib import Path

from latentwire.experiments.diagnosis import compare_runs
from latentwire.experiments.registry.model import Attempt, ErrorClass, Experiment, State
from tests.experiments.written import CONFIG, DONE, GOLD, curve, labelled, noisy, written


def test_a_comparison_shows_settings_versions_curves_and_rows(tmp_path: Path) -> None:
    training = CONFIG["training"] | {"lr": 1.0}
    facts = {"validation": 0.2, "versions": {"torch": "2.13.0"}, "git": {"commit": "a" * 8}, "hardware": {"device": "cpu"}}
    bad_curve = [entry if entry["step"] < 400 else entry | {"loss": 5.0} for entry in curve()]
    failed = written(tmp_path, "a", records=labelled([1] * 240, GOLD), log=bad_curve, summary=facts, config={"training": training})
    better = {**facts, "validation": 0.9, "versions": {"torch": "2.13.1"}, "git": {"commit": "b" * 8}}
    good = written(tmp_path, "b", records=labelled(noisy(GOLD, 0.1), GOLD), log=curve(), summary=better)
    found = compare_runs(failed, good, root=tmp_path)
    content = found.as_json()
    differing = {(item["group"], item["what"]): (item["a"], item["b"]) for item in content["differences"]}
    assert differing["config", "training.lr"] == (1.0, 0.01)
    assert differing["versions", "torch"] == ("2.13.0", "2.13.1")
    assert differing["git", "commit"] == ("a" * 8, "b" * 8)
    assert differing["outcome", "validation"] == (0.2, 0.9)
    assert ("hardware", "device") not in differing
    assert content["loss_curves_part"]["step"] == 400
    [agreement] = content["agreement"]
    assert agreement["rows"] == 240
    assert agreement["both_right"] + agreement["only_a"] + agreement["only_b"] + agreement["both_wrong"] == 240
    assert agreement["only_b"] > 150
    text = found.as_markdown()
    assert "| training.lr | 1.0 | 0.01 |" in text
    assert "They part at step 400" in text


def test_runs_that_do_not_differ_say_so(tmp_path: Path) -> None:
    records = labelled(GOLD, GOLD)
    runs = [written(tmp_path, name, records=records, log=curve()) for name in ("a", "b")]
    text = compare_runs(*runs, root=tmp_path).as_markdown()
    assert "Nothing that they record differs." in text
    assert "They stay within a tenth" in text


def test_a_run_without_files_can_be_compared(tmp_path: Path) -> None:
    good = written(tmp_path, "b", records=labelled(GOLD, GOLD), log=curve(), summary={"versions": {"torch": "2.13.0"}})
    end = Attempt(**{**vars(DONE), "state": State.FAILED, "error_class": ErrorClass.IMPORT, "error": "No module named 'peft'"})
    failed = Experiment("a", State.FAILED, "import", config=CONFIG, run_folder="runs/a", attempts=(end,))
    text = compare_runs(failed, good, root=tmp_path).as_markdown()
    assert "| error | No module named 'peft' | – |" in text
    assert "| recorded | no | yes |" in text
