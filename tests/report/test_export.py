from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from latentwire.errors import UnknownNameError
from latentwire.evaluation.comparison import Comparison, Contrast, compare
from latentwire.evaluation.predictions import find_predictions, write_predictions
from latentwire.evaluation.results import ResultRow, Results
from latentwire.report.export import (
    Grid,
    _difference,
    chosen_metric,
    comparison_csv,
    escape_latex,
    headline_grid,
    long_grid,
    to_csv,
    to_latex,
    to_markdown,
    wide_grid,
)
from latentwire.report.tables import metrics_of, task_table
from tests.evaluation.making import answered


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    good, fair = [index % 10 != 0 for index in range(40)], [index % 2 == 0 for index in range(40)]
    write_predictions(tmp_path, *answered(fair, method="receiver_text", problems=["questions: one label"], latency_ms_p50=2.0))
    write_predictions(tmp_path, *answered(good, method="bridge:x_1", seed=1))
    write_predictions(tmp_path, *answered([True] * 11 + good[11:], method="bridge:x_1", seed=2))
    write_predictions(tmp_path, *answered(fair, method="bridge:x_1", seed=1, control="shuffled"))
    write_predictions(tmp_path, *answered(good, method="receiver_text", task="second", partial=True))
    return compare(find_predictions(tmp_path))


def test_the_wide_table_has_methods_down_and_tasks_across(comparison: Comparison) -> None:
    grid = wide_grid(comparison)
    assert grid.columns == ("method", "questions (accuracy)", "second (accuracy)")
    cells = {row[0]: row[1:] for row in grid.rows}
    assert cells["chance"] == ("50.0", "50.0")
    assert cells["receiver_text"] == ("50.0 ± 14.8 !", "90.0 ± 9.5")
    assert cells["bridge:x_1"] == ("92.5 (3.5)", "–")
    assert cells["bridge:x_1 · shuffled"] == ("50.0 ± 14.8", "–")
    assert any("second n = 40 (a part of the split)" in note for note in grid.notes)
    assert grid.notes[-1] == "! the prediction check found: questions: one label"


def test_the_long_table_has_everything(comparison: Comparison) -> None:
    lines = {row[3]: dict(zip(long_grid(comparison).columns, row, strict=True)) for row in long_grid(comparison).rows}
    bridge = lines["bridge:x_1"]
    assert bridge["seeds"] == "1: 90.0 2: 95.0"
    assert bridge["minus receiver_text (95 %)"].startswith("+42.5 (+")
    # 20 rows only the bridge has right, 4 only the reference: 2 · (1 + 24 + 276 + 2,024 + 10,626) / 2^24; the other seed's is less
    assert bridge["p"] == bridge["p (Holm)"] == "0.002"
    assert bridge["message"] == "2 tok, 8 B"
    assert lines["receiver_text !"]["ms"] == "2.0"
    assert lines["bridge:x_1 · shuffled"]["p (Holm)"] == "–"


def test_the_headlines_say_what_is_missing(comparison: Comparison) -> None:
    shuffled, label = headline_grid(comparison).rows
    assert shuffled[:4] == ("questions", "accuracy", "bridge:x_1", "shuffled")
    assert shuffled[4].startswith("+42.5")
    assert label[3:] == ("label_byte", "–", "–", "–", "–")


def test_a_difference_that_is_the_same_in_every_row_has_no_interval() -> None:
    assert _difference(Contrast("zero", 3, 1.0, 1.0, 1.0, "constant")) == "+100.0"
    assert _difference(Contrast("zero", 3, 0.5, 0.25, 0.75, "bca")) == "+50.0 (+25.0 to +75.0)"


def test_a_metric_that_is_not_there_is_named(comparison: Comparison) -> None:
    assert chosen_metric(comparison, None) is None
    assert wide_grid(comparison, "accuracy") == wide_grid(comparison)
    with pytest.raises(UnknownNameError, match="did you mean accuracy"):
        chosen_metric(comparison, "acuracy")


GRID = Grid("A_title", ("a|b", "100 %"), (("x_1 & {y} \\ $5 # ~^", "±5"),), ("note",))


def test_latex_is_escaped_and_its_braces_match() -> None:
    text = to_latex(GRID)
    body = text.split(r"\midrule")[1]
    assert r"x\_1 \& \{y\} \textbackslash{} \$5 \# \textasciitilde{}\textasciicircum{} & $\pm$5 \\" in body
    assert r"a$|$b & 100 \% \\" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert escape_latex("plain text") == "plain text"


def test_markdown_cells_cannot_break_out() -> None:
    lines = to_markdown(GRID).splitlines()
    assert lines[2] == "| a\\|b | 100 % |"
    assert lines[3] == "| --- | ---: |"


def test_csv_comes_back_as_it_was(comparison: Comparison) -> None:
    assert list(csv.reader(io.StringIO(to_csv(GRID)))) == [list(GRID.columns), *map(list, GRID.rows)]
    lines = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert len(lines) == len(comparison.rows)
    row = next(line for line in lines if (line["method"], line["control"]) == ("bridge:x_1", ""))
    assert (row["seeds"], row["values"]) == ("1; 2", "0.9; 0.95")
    assert float(row["versus_difference"]) == pytest.approx(0.425)
    assert row["versus_against"] == "receiver_text"


def test_every_metric_of_a_task_has_a_table_of_its_own() -> None:
    def row(metric: str, value: float) -> ResultRow:
        known: dict[str, Any] = {
            "task": "spans", "split": "test", "subset": "all", "method": "receiver_text", "control": None, "sender_sees": "",
            "receiver_sees": "", "seed": None, "metric": metric, "value": value, "ci_low": value, "ci_high": value,
            "interval": "wilson", "n": 10, "chance": 0.0, "message_tokens": 1.0, "message_bytes": 1.0, "latency_ms_p50": None,
            "problems": [],
        }  # fmt: skip
        return ResultRow(**known)  # type: ignore[typeddict-item]

    results = Results(schema_version=2, run={"partial": []}, rows=[row("exact_match", 0.1), row("f1", 0.6)])  # type: ignore[typeddict-item]
    assert metrics_of(results, "spans") == ["exact_match", "f1"]
    table = task_table(results, "spans", "f1")
    assert "f1" in str(table.title)
    assert [list(column.cells) for column in table.columns][1] == ["60.0% (60.0–60.0)"]
