"""The house stays in order: arrows point down, registered names are documented, nothing unsafe slips in."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from latentwire.bridges import BRIDGES
from latentwire.evaluation.results import ResultRow, RunInfo
from latentwire.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "latentwire"
_CONFIG = {"config", "bridges", "messages", "models", "data"}
_EVALUATION = {"evaluation", "methods", "training"} | _CONFIG
#: room, or module beside the rooms → what it may import from (besides itself and the plain modules everybody needs)
ALLOWED: dict[str, set[str]] = {
    "data": set(),
    "models": set(),
    "messages": {"models"},
    "bridges": {"messages", "models"},
    "config": {"bridges", "messages", "data"},
    "training": _CONFIG,
    "methods": {"training"} | _CONFIG,
    "evaluation": _EVALUATION,
    "analysis": _EVALUATION,
    "benchmarks": _EVALUATION,
    "report": {"analysis", "benchmarks", "evaluation"},
    "telepathy": {"bridges", "messages", "models"},
    "experiments": _EVALUATION,
    "cli": {"experiments", "report", "analysis", "benchmarks", "telepathy"} | _EVALUATION,
}
PLAIN = {"schema", "prompts", "files", "hub", "errors", "processes", "provenance", "seeding"}


def imports_of(path: Path) -> set[str]:
    """Rooms of this package that a module imports, wherever in the file."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("latentwire."):
            rooms.add(node.module.split(".")[1])
    return rooms


def modules_of(room: str) -> list[Path]:
    module = PACKAGE / f"{room}.py"
    return [module] if module.exists() else sorted((PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_arrows_point_down(room: str) -> None:
    for path in modules_of(room):
        upward = imports_of(path) - ALLOWED[room] - {room} - PLAIN
        assert not upward, f"{path.relative_to(ROOT)} imports from {upward}"


def test_plain_modules_need_no_room_and_every_module_has_its_place() -> None:
    for name in PLAIN:
        assert imports_of(PACKAGE / f"{name}.py") <= PLAIN, name
    beside = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert beside - {"__init__", "__main__"} == PLAIN | set(ALLOWED)


def test_no_module_outgrows_a_head() -> None:
    long = {str(path): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path: lines for path, lines in long.items() if lines > 450} == {}


def test_every_registered_name_is_documented() -> None:
    for names, page in ((BRIDGES, "architecture.md"), (METHODS, "methods.md")):
        text = (ROOT / "docs" / page).read_text()
        assert [name for name in names if f"| `{name}` |" not in text] == []


def test_every_key_of_the_result_file_is_documented() -> None:
    text = (ROOT / "docs" / "results-format.md").read_text()
    keys = {f"run.{key}" for key in RunInfo.__annotations__} | set(ResultRow.__annotations__)
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_no_pickle_and_no_remote_code() -> None:
    for path in (*PACKAGE.rglob("*.py"), *(ROOT / "telepathy").glob("*.py")):
        text = path.read_text()
        assert "torch.load" not in text, path
        assert "torch.save" not in text, path
        assert "import pickle" not in text, path
        assert "trust_remote_code=True" not in text.replace(" ", ""), path


def test_embedded_models_are_small_and_carry_their_cards() -> None:
    from latentwire.models.source import EMBEDDED_FOLDER, embedded_names

    assert {name.split("@")[0] for name in embedded_names()} == {"nano-llama", "nano-mistral"}
    for name in embedded_names():
        assert (EMBEDDED_FOLDER / name / "model.safetensors").stat().st_size < 12_000_000
        card = (EMBEDDED_FOLDER / name / "README.md").read_text()
        assert all(word in card for word in ("tokens", "minutes", "record3", "nats per token", "never seen in training"))
