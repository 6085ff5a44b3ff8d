"""The diagnosis names the planted cause first, shows where it stands, and invents nothing where all is well."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from latentwire.experiments.diagnosis import diagnose
from latentwire.experiments.diagnosis.hypotheses import HYPOTHESES
from latentwire.experiments.diagnosis.outputs import hungarian
from latentwire.experiments.exchange.collect import sample_predictions
from latentwire.experiments.registry.model import ErrorClass, Experiment, State
from tests.evaluation.making import free
from tests.experiments.diagnosing import ROOT, caused_by
from tests.experiments.written import CONFIG, GOLD, LABELS, curve, labelled, noisy, written

GOLDEN = Path(__file__).parent / "golden"


def test_an_experiment_left_running_is_lost_and_says_what_a_restart_costs(tmp_path: Path) -> None:
    lost = written(
        tmp_path,
        "run",
        log=curve(400),
        log_text="step 300: loss 1.2\nstep 400: loss 1.1\n",
        state=State.LOST,
        reason="no heartbeat for 312 s, and job 4242 is gone",
        attempt={"ended": None, "exit_code": None},
    )
    (tmp_path / "runs/run/checkpoint.safetensors").write_bytes(b"x")
    found = caused_by(lost, tmp_path, "lost")
    assert "log.jsonl ends at step 400 of 1000" in found.as_markdown()
    assert "it resumes from runs/run/checkpoint.safetensors" in found.as_markdown()
    assert found.cause is not None
    assert found.cause.command == "python scripts/experiment_manager.py --mark-rerun run"


def test_a_run_left_running_names_who_ended_it_where_the_log_does(tmp_path: Path) -> None:
    limit = "slurmstepd: error: *** JOB 4242 ON node7 CANCELLED AT 2025-11-01T12:00:00 DUE TO TIME LIMIT ***"
    left = written(
        tmp_path,
        "run",
        log=curve(400),
        log_text=f"step 400\n{limit}\n",
        state=State.RUNNING,
        attempt={"ended": None, "exit_code": None},
    )
    last_write_s = max(path.stat().st_mtime for path in (tmp_path / "runs/run").iterdir())
    found = caused_by(left, tmp_path, "lost", now_s=last_write_s + 5 * 3600)
    assert "DUE TO TIME LIMIT" in found.as_markdown()
    assert "5.0 hours ago" in found.as_markdown()


def test_a_run_that_still_writes_is_not_lost(tmp_path: Path) -> None:
    alive = written(tmp_path, "run", log=curve(400), state=State.RUNNING, attempt={"ended": None, "exit_code": None})
    last_write_s = max(path.stat().st_mtime for path in (tmp_path / "runs/run").iterdir())
    found = diagnose(alive, root=tmp_path, others={}, now_s=last_write_s + 20)
    assert found.cause is None


def test_labels_in_another_order_are_the_cause_and_the_order_is_told(tmp_path: Path) -> None:
    given = [(label + 1) % len(LABELS) for label in noisy(GOLD, 0.1)]
    swapped = written(tmp_path, "run", records=labelled(given, GOLD), log=curve(), summary={"validation": 0.9})
    found = caused_by(swapped, tmp_path, "labels_swapped")
    assert "“entity” as “abbreviation”" in found.as_markdown()
    assert "“abbreviation” as “number”" in found.as_markdown()


def test_two_labels_that_changed_places_are_found_among_many(tmp_path: Path) -> None:
    exchange = {0: 3, 3: 0}
    given = [exchange.get(label, label) for label in noisy(GOLD, 0.05)]
    found = caused_by(written(tmp_path, "run", records=labelled(given, GOLD), log=curve()), tmp_path, "labels_swapped")
    assert found.cause is not None
    assert "“description” as" not in found.cause.speaks_for[0].text


def test_the_samples_that_came_through_git_are_enough_for_a_diagnosis(tmp_path: Path) -> None:
    given = [(label + 1) % len(LABELS) for label in noisy(GOLD, 0.1)]
    swapped = written(tmp_path, "run", records=labelled(given, GOLD), log=curve(), summary={"validation": 0.9})
    run = tmp_path / "runs/run"
    sample_predictions(run)
    shutil.rmtree(run / "predictions")
    report = caused_by(swapped, tmp_path, "labels_swapped").as_markdown()
    assert "runs/run/samples/" in report
    assert "n 100" in report


@pytest.mark.parametrize("labels", [2, 6, 77])
def test_random_answers_are_no_swapped_labels(tmp_path: Path, labels: int) -> None:
    """With many labels some exchange always fits the rows that it was chosen on."""
    names = [f"label {number:02}" for number in range(labels)]
    rng = Random(labels)
    given, gold = ([rng.randrange(labels) for _ in range(300)] for _ in range(2))
    found = diagnose(written(tmp_path, "run", records=labelled(given, gold, names), log=curve()), root=tmp_path, others={})
    assert "labels_swapped" not in [finding.name for finding in found.findings if finding.is_found]


def test_the_assignment_is_a_cheapest_one() -> None:
    from scipy.optimize import linear_sum_assignment

    rng = Random(5)
    for size in (1, 2, 7, 20):
        for _ in range(5):
            cost = [[float(rng.randrange(-9, 10)) for _ in range(size)] for _ in range(size)]
            ours = hungarian(cost)
            rows, columns = linear_sum_assignment(cost)
            assert sorted(ours) == list(range(size))
            assert sum(cost[row][column] for row, column in enumerate(ours)) == sum(
                cost[r][c] for r, c in zip(rows, columns, strict=True)
            )


def test_one_answer_for_all_rows_is_named_with_what_is_right_about_it(tmp_path: Path) -> None:
    log = curve(end=1.75, shuffled_gap=0.4)
    found = caused_by(written(tmp_path, "run", records=labelled([1] * 240, GOLD), log=log), tmp_path, "majority_answer")
    assert "“entity” is the answer to 100% of the rows; it is right for 17%" in found.as_markdown()


def test_right_answers_in_other_words_are_a_matter_of_the_metric(tmp_path: Path) -> None:
    records = [free(index, f"The answer is {index + 10} apples.", str(index + 10)) for index in range(60)]
    caused_by(written(tmp_path, "run", records=records, log=curve()), tmp_path, "metric_mismatch")


def test_silence_is_named(tmp_path: Path) -> None:
    records = [free(index, "", f"{index} apples") for index in range(40)]
    caused_by(written(tmp_path, "run", records=records, log=curve()), tmp_path, "empty_answers")


def test_a_message_that_carries_nothing_is_named(tmp_path: Path) -> None:
    given = noisy(GOLD, 1.0)
    log = curve(end=1.75, shuffled_gap=0.001, effective_rank=1.1)
    run = written(tmp_path, "run", records=labelled(given, GOLD), log=log, controls={"shuffled": labelled(given, GOLD)})
    caused_by(run, tmp_path, "message_ignored")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_healthy_run_is_reported_as_healthy(tmp_path: Path, share: float) -> None:
    """Weak and strong results alike, as long as they beat chance and their message matters."""
    run = written(
        tmp_path,
        "run",
        records=labelled(noisy(GOLD, share), GOLD),
        controls={"shuffled": labelled(noisy(GOLD, 1.0, seed=3), GOLD)},
        log=curve(),
        summary={"validation": 1 - share, "train_rows": 5000, "best_step": 1000},
        log_text="results written\n",
    )
    found = diagnose(run, root=tmp_path, others={})
    assert found.cause is None, found.as_markdown()
    assert found.is_healthy
    assert "No problem was found." in found.as_markdown()
    assert "Nothing needs to be mended." in found.as_markdown()


def test_targets_that_all_have_one_length_are_no_fault_where_they_are_learned(tmp_path: Path) -> None:
    """Codes of eight symbols look like targets cut at eight tokens."""
    codes = [" ".join(f"{index * place % 7}" for place in range(1, 9)) for index in range(60)]
    records = [free(index, code if index % 4 else "0", code, message_tokens=8) for index, code in enumerate(codes)]
    tokens = {"p50": 8, "max": 8, "at_max": 1.0}
    rows = [{"task": "trec", "split": "train", "rows": 500, "sender_sees": "a", "receiver_sees": "b", "labels": {}, "bits": 40.0}]
    rows[0] |= {"target_tokens": tokens, "target_words_p50": 8, "sender_words_shown": 0.2, "max_new_tokens": 16}
    found = diagnose(written(tmp_path, "run", records=records, rows=rows, log=curve()), root=tmp_path, others={})
    assert found.is_healthy, found.as_markdown()


def test_a_good_score_that_another_message_gives_too_is_no_communication(tmp_path: Path) -> None:
    given = noisy(GOLD, 0.3)
    run = written(
        tmp_path,
        "run",
        records=labelled(given, GOLD),
        controls={"shuffled": labelled([*given[:-6], *([0] * 6)], GOLD)},
        log=curve(shuffled_gap=0.0),
        rows=[{"task": "trec", "split": "train", "rows": 9, "sender_sees": "a", "receiver_sees": "b", "sender_words_shown": 0.1}],
    )
    caused_by(run, tmp_path, "message_ignored")


@pytest.mark.parametrize("error_class", list(ErrorClass))
def test_every_class_of_failure_is_explained(tmp_path: Path, error_class: ErrorClass) -> None:
    failed = written(
        tmp_path,
        "run",
        state=State.PREEMPTED if error_class is ErrorClass.PREEMPTED else State.FAILED,
        reason="failed",
        attempt={"exit_code": 1, "error_class": error_class, "error": f"what was said about {error_class.value}"},
    )
    found = diagnose(failed, root=tmp_path, others={})
    assert found.cause is not None
    assert found.cause.name == {ErrorClass.NAN: "diverged"}.get(error_class, error_class.value)
    assert f"what was said about {error_class.value}" in found.as_markdown()
    assert len(found.cause.mechanism) > 40


def test_other_experiments_that_failed_alike_point_at_the_place(tmp_path: Path) -> None:
    end = {"exit_code": 1, "error_class": ErrorClass.DISK_QUOTA, "error": "Disk quota exceeded"}
    runs = {name: written(tmp_path, name, state=State.FAILED, attempt=end) for name in ("one", "two", "three")}
    found = diagnose(runs["one"], root=tmp_path, others=runs)
    assert "2 other experiment(s) ended in this class (three, two): the place, not this experiment" in found.as_markdown()


def test_a_run_that_worked_shows_which_setting_matters(tmp_path: Path) -> None:
    training = CONFIG["training"] | {"lr": 0.00001}
    log = curve(end=1.78, shuffled_gap=0.05)
    poor = written(tmp_path, "poor", records=labelled(noisy(GOLD, 1.0), GOLD), log=log, config={"training": training})
    good = written(tmp_path, "good", records=labelled(GOLD, GOLD), log=curve())
    found = diagnose(poor, root=tmp_path, others={"good": good, "poor": poor})
    assert found.cause is not None
    assert found.cause.name == "unlike_its_peers", found.as_markdown()
    assert "good reached 100.0%; 1 settings differ: training.lr 1e-05 here, 0.01 there" in found.as_markdown()
    assert "--set training.lr=0.01 " in found.cause.command


def test_an_experiment_that_never_ran_says_so(tmp_path: Path) -> None:
    found = diagnose(Experiment("new", State.PENDING, "planned"), root=tmp_path, others={})
    assert not found.is_healthy
    assert "Nothing is known yet" in found.as_markdown()


def test_an_invalid_result_tells_what_the_registry_and_the_check_said(tmp_path: Path) -> None:
    found = diagnose(
        written(tmp_path, "run", state=State.INVALID, reason="the result file holds no finite number"), root=tmp_path, others={}
    )
    assert found.cause is not None
    assert found.cause.name == "invalid_result"
    assert "the result file holds no finite number" in found.as_markdown()


def test_damaged_files_are_named_and_stop_nothing(tmp_path: Path) -> None:
    run = written(tmp_path, "run", records=labelled(GOLD, GOLD), log=curve())
    path = tmp_path / "runs/run/log.jsonl"
    path.write_text(path.read_text()[:-20])
    (tmp_path / "runs/run/train.json").write_text('{"validation": ')
    answers = next((tmp_path / "runs/run/predictions").rglob("*.jsonl"))
    answers.write_text(answers.read_text()[:-20])
    text = diagnose(run, root=tmp_path, others={}).as_markdown()
    assert "'runs/run/predictions/trec/bridge-pooled-seed42.jsonl' are cut or corrupt (239 of 240 rows)" in text
    assert "runs/run/log.jsonl:10 cannot be read" in text
    assert "runs/run/train.json cannot be read" in text


def test_json_holds_what_markdown_says(tmp_path: Path) -> None:
    given = [(label + 1) % len(LABELS) for label in GOLD]
    found = diagnose(written(tmp_path, "run", records=labelled(given, GOLD), log=curve()), root=tmp_path, others={})
    content = json.loads(json.dumps(found.as_json()))
    assert content["cause"] == "labels_swapped"
    assert content["healthy"] is False
    first = content["hypotheses"][0]
    assert first["found"] is True
    assert first["for"][0]["where"] in found.as_markdown()
    assert first["command"] in found.as_markdown()
    assert set(content["background"]) >= {"The run", "What happened", "Outputs against targets", "Objective"}


def test_a_long_log_is_cited_by_its_true_line(tmp_path: Path) -> None:
    lines = [f"step {number} " + "." * 200 for number in range(8000)]
    text = "\n".join([*lines, "ModuleNotFoundError: No module named 'peft'", ""])
    end = {"exit_code": 1, "error_class": ErrorClass.IMPORT, "error": "No module named 'peft'"}
    failed = written(tmp_path, "run", log_text=text, state=State.FAILED, attempt=end)
    found = caused_by(failed, tmp_path, "import")
    assert found.cause is not None
    assert found.cause.speaks_for[0].where == "runs/logs/run.log:8001"


def test_every_hypothesis_has_a_name_of_its_own_and_explains_itself() -> None:
    names = [hypothesis.name for hypothesis in HYPOTHESES]
    assert len(names) == len(set(names))
    page = (ROOT / "docs" / "diagnosis.md").read_text()
    assert [name for name in names if f"`{name}`" not in page] == []


# ------------------------------------------------------------------------------------------------------------------ golden


def agrees_with_golden(text: str, name: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"UPDATE_GOLDEN=1 writes {path.name} anew"


def test_the_report_on_swapped_labels_reads_as_written_down(tmp_path: Path) -> None:
    given = [(label + 1) % len(LABELS) for label in noisy(GOLD, 0.1)]
    swapped = written(tmp_path, "trec-pooled-seed42", records=labelled(given, GOLD), log=curve(), summary={"validation": 0.9})
    good = written(tmp_path, "trec-pooled-seed43", records=labelled(GOLD, GOLD), log=curve(), config={"seed": 43})
    text = diagnose(swapped, root=tmp_path, others={"trec-pooled-seed43": good}).as_markdown()
    agrees_with_golden(text, "swapped_labels.md")


def test_the_report_on_a_lack_of_memory_reads_as_written_down(tmp_path: Path) -> None:
    log = (
        "step 300: loss 1.2\nTraceback (most recent call last):\n"
        '  File "/scratch/LatentWire/latentwire/training/trainer.py", line 130, in train_step\n    objective.backward()\n'
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.26 GiB. GPU 0 has a total capacity of 79.11 GiB of which "
        "1.06 GiB is free.\n"
    )
    end = {
        "exit_code": 1,
        "error_class": ErrorClass.OOM,
        "error": "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.26 GiB.",
    }
    failed = written(tmp_path, "trec-pooled-seed42", log=curve(300), log_text=log, state=State.FAILED, reason="oom", attempt=end)
    training = CONFIG["training"] | {"batch_size": 8}
    good = written(tmp_path, "trec-small", records=labelled(GOLD, GOLD), log=curve(), config={"training": training})
    text = diagnose(failed, root=tmp_path, others={"trec-small": good}).as_markdown()
    agrees_with_golden(text, "out_of_memory.md")


def test_it_runs_on_the_standard_library_alone(tmp_path: Path) -> None:
    run = written(tmp_path, "run", records=labelled([1] * 240, GOLD), log=curve())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from latentwire.experiments.diagnosis import compare_runs, diagnose\n"
        "from latentwire.experiments.registry.model import Experiment, State\n"
        "run = Experiment('run', State.COMPLETED, '', run_folder=sys.argv[2])\n"
        "root = Path(sys.argv[3])\n"
        "print(diagnose(run, root=root, others={}).as_json()['cause'], len(compare_runs(run, run, root=root).as_markdown()) > 0)\n"
        "allowed = set(sys.stdlib_module_names) if hasattr(sys, 'stdlib_module_names') else set(sys.modules)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} - allowed - {'latentwire', '__main__'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT), str(run.run_folder), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["majority_answer True", "[]"]
