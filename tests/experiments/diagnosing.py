"""What tests of the diagnosis share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentwire.experiments.diagnosis import Diagnosis, diagnose
from latentwire.experiments.registry.model import Experiment

ROOT = Path(__file__).resolve().parents[2]


def places_exist(diagnosis: Diagnosis, root: Path) -> None:
    """Every ``file:line`` that is cited is a line of a file of the run, or of the code."""
    for finding in diagnosis.findings:
        for item in (*finding.speaks_for, *finding.speaks_against):
            if item.where is None:
                continue
            path, _, line = item.where.rpartition(":") if item.where.rpartition(":")[2].isdigit() else (item.where, "", "1")
            file = next((base / path for base in (root, ROOT) if (base / path).exists()), None)
            assert file is not None, item
            if file.is_file():
                assert 1 <= int(line) <= len(file.read_text().splitlines()), item


def caused_by(experiment: Experiment, root: Path, name: str, **more: Any) -> Diagnosis:
    found = diagnose(experiment, root=root, others={}, **more)
    assert found.cause is not None, found.as_markdown()
    assert found.cause.name == name, found.as_markdown()
    places_exist(found, root)
    assert not found.is_healthy
    return found
