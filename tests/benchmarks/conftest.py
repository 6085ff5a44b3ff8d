from __future__ import annotations

from pathlib import Path

import pytest

from latentwire.benchmarks.pair import BenchPair, load_bench_pair
from latentwire.benchmarks.sized import SMALL, make_sized_pair


@pytest.fixture(scope="session")
def sized_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sized_pair(tmp_path_factory.mktemp("sized"), SMALL)


@pytest.fixture(scope="session")
def writing(sized_folder: Path) -> BenchPair:
    """Free answers."""
    return load_bench_pair(sized_folder, task="tinyworld_record1", device="cpu", max_rows=24)


@pytest.fixture(scope="session")
def scoring(sized_folder: Path) -> BenchPair:
    """Options."""
    return load_bench_pair(sized_folder, task="tinyworld_topic", device="cpu", max_rows=24)
