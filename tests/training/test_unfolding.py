"""The vectors that unfold soft tokens begin where the receiver takes notice of soft tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentwire.bridges import bridge_config
from latentwire.bridges.attentive import AttentiveConfig
from latentwire.config import RunConfig, load_config
from latentwire.models.receiver import Receiver
from latentwire.models.sender import load_sender
from latentwire.training.packing import find_packing, load_packing
from latentwire.training.packing_run import learn_packing
from latentwire.training.run import new_bridge
from latentwire.training.unfolding import listening_vectors, notice
from tests.conftest import FAMILIES
from tests.models.test_receiver import receiver_of
from tests.training.test_packing import CONFIG as PACKED
from tests.training.test_packing import SMALL

CONFIG = Path(__file__).parents[2] / "configs/codes.yaml"
SETTINGS = AttentiveConfig(tokens_per_soft_token=3, stride=3, unfold=2)


def noticed(receiver: Receiver, vectors: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return notice(receiver, SETTINGS, vectors, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def vectors(receiver: Receiver) -> torch.Tensor:
    return listening_vectors(receiver, SETTINGS, seed=1)


def test_every_place_notices_far_more_than_that_of_a_vector_drawn_at_random(receiver: Receiver, vectors: torch.Tensor) -> None:
    drawn = torch.randn(2, receiver.width, generator=torch.Generator().manual_seed(1))
    assert (noticed(receiver, vectors) > 5 * noticed(receiver, drawn)).all()


def test_they_have_the_scale_of_embeddings_and_depend_on_the_seed_alone(receiver: Receiver, vectors: torch.Tensor) -> None:
    torch.testing.assert_close(vectors.pow(2).mean(-1), torch.ones(2))
    assert not vectors.requires_grad
    torch.manual_seed(7)
    assert torch.equal(listening_vectors(receiver, SETTINGS, seed=1), vectors)
    assert not torch.equal(listening_vectors(receiver, SETTINGS, seed=2), vectors)
    assert not any(parameter.requires_grad for parameter in receiver.model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_receivers_of_every_family_can_be_listened_to(family_folder: dict[str, str], family: str) -> None:
    other = receiver_of(family_folder[family])
    drawn = torch.randn(2, other.width, generator=torch.Generator().manual_seed(1))
    assert (noticed(other, listening_vectors(other, SETTINGS, seed=1)) > noticed(other, drawn)).all()


def config(folder: Path, **more: str) -> RunConfig:
    settings = {"name": "attentive", "tokens_per_soft_token": "3", "stride": "3", "unfold": "2", "hidden_size": "24", **more}
    bridge = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return load_config(CONFIG, [f"bridge={{{bridge}}}", "seed=1", f"output_dir={folder}"])


def test_a_new_bridge_begins_with_them_unless_they_are_to_be_drawn(
    receiver: Receiver, vectors: torch.Tensor, tmp_path: Path
) -> None:
    sender = load_sender("nano-llama", layer=1, device="cpu")
    listening, drawn = (new_bridge(config(tmp_path, **more), sender, receiver) for more in ({}, {"unfold_start": "drawn"}))
    assert listening.unfold_embeddings is not None
    assert drawn.unfold_embeddings is not None
    assert torch.equal(listening.unfold_embeddings, vectors)
    assert not torch.equal(drawn.unfold_embeddings, vectors)
    # nothing else is another bridge for it
    others = [{name: one for name, one in bridge.named_parameters() if "unfold" not in name} for bridge in (listening, drawn)]
    assert all(torch.equal(one, others[1][name]) for name, one in others[0].items())


def test_a_packing_begins_with_them_too(receiver: Receiver, tmp_path: Path) -> None:
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    learned = []
    for start in ("listening", "drawn"):
        bridge = f"bridge={{name: attentive, tokens_per_soft_token: 3, stride: 3, unfold: 2, unfold_start: {start}}}"
        packed = load_config(PACKED, [*settings, bridge, "seed=1", f"output_dir={tmp_path / start}"])
        learn_packing(packed, device="cpu")
        vectors = load_packing(find_packing(packed), receiver).unfold_embeddings
        assert vectors is not None
        learned.append((vectors - listening_vectors(receiver, bridge_config(packed.bridge), seed=1)).abs().max())
    # two steps bring them no further
    assert learned[0] < 0.05 < learned[1]


def test_a_bridge_that_begins_with_another_keeps_what_that_learned(receiver: Receiver, tmp_path: Path) -> None:
    sender = load_sender("nano-llama", layer=1, device="cpu")
    first = new_bridge(config(tmp_path, unfold_start="drawn"), sender, receiver)
    assert first.unfold_embeddings is not None
    first.unfold_embeddings.data.mul_(2)
    first.save_pretrained(tmp_path / "bridge")
    second = new_bridge(config(tmp_path, init=str(tmp_path / "bridge")), sender, receiver)
    assert second.unfold_embeddings is not None
    assert torch.equal(second.unfold_embeddings, first.unfold_embeddings)
