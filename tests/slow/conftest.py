from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm_testbed import SlurmTestbed, UnavailableError


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmTestbed]:
    """A real Slurm on this machine; skips with the reason where there can be none."""
    try:
        with SlurmTestbed(tmp_path_factory.mktemp("slurm")) as testbed:
            yield testbed
    except UnavailableError as error:
        pytest.skip(str(error))
