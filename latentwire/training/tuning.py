"""Tuning of the receiver's side, for baselines: adapters inside it, or learned tokens before its prompt (both by peft)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentwire.config import FirstStage, ModelSettings, RunConfig, Terms
from latentwire.data.task import Example
from latentwire.errors import MissingPackageError, UsageError
from latentwire.models.chat import PromptStyle
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt
from latentwire.training.bundles import RowBundles
from latentwire.training.learners import Learner
from latentwire.training.trainer import CHECKPOINT_FILE, Hooks, Trainer


def _peft(what: str) -> Any:
    try:
        import peft
    except ImportError:
        raise MissingPackageError(what, "peft", "baselines") from None
    return peft


class _Parameters(nn.Module):
    """A flat view of parameters that live inside another module."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name.replace(".", "/"), parameter)


class AdapterLearner(Learner):
    """Low-rank adapters in all linear layers of a fresh copy of the receiver, which reads context and question as text.

    Args:
        model: the receiver to load; the one other methods use stays as it is.
        prompt_style: as the others read prompts.
        rank: rank of the adapters, whose scale alpha is twice that; they are kept in float32.
        dora: decompose weights into magnitude and direction.
    """

    def __init__(
        self,
        model: ModelSettings,
        *,
        rank: int,
        dora: bool,
        seed: int,
        device: str | None = None,
        prompt_style: PromptStyle = "auto",
    ) -> None:
        peft = _peft("an adapter")
        self.receiver = load_receiver(
            model.model, revision=model.revision, device=device or model.device, dtype=model.dtype, prompt_style=prompt_style
        )
        layers = sorted(
            {name.rpartition(".")[2] for name, part in self.receiver.model.model.named_modules() if isinstance(part, nn.Linear)}
        )
        torch.manual_seed(seed)
        settings = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, use_dora=dora, target_modules=layers)
        peft.inject_adapter_in_model(settings, self.receiver.model)
        adapters = {name: part for name, part in self.receiver.model.named_parameters() if part.requires_grad}
        for part in adapters.values():
            part.data = part.data.float()
        self.module = _Parameters(adapters)

    def prompts(self, rows: Sequence[Example]) -> list[Prompt]:
        return [row.receiver_prompt_aware for row in rows]


class PromptLearner(Learner):
    """Learned tokens before the prompt, the same for every row; they start as embeddings of random words of the vocabulary.

    Args:
        aware: the prompt holds the context. Without it, only the prior of the answers can be learned.
    """

    def __init__(self, receiver: Receiver, *, tokens: int, aware: bool, seed: int) -> None:
        peft = _peft("prompt tuning")
        self.receiver, self.tokens, self.aware = receiver, tokens, aware
        torch.manual_seed(seed)
        settings = peft.PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=tokens, token_dim=receiver.width, num_transformer_submodules=1,
            prompt_tuning_init="SAMPLE_VOCAB",
        )  # fmt: skip
        # a table as the model reads it, which some scale; a second one, since peft copies some of its rows and the frozen one must
        # not become a part of the module
        with torch.no_grad():
            table = receiver.embed(torch.arange(receiver.embed.num_embeddings, device=receiver.device)).float().clone()
        words = nn.Embedding.from_pretrained(table)
        self.module = peft.PromptEmbedding(settings, words).to(receiver.device).requires_grad_(True)

    def prompts(self, rows: Sequence[Example]) -> list[Prompt]:
        texts = [(row.receiver_prompt_aware if self.aware else row.receiver_prompt).text for row in rows]
        return [Prompt("", text) for text in texts]

    def soft_tokens(self, rows: Sequence[Example]) -> SoftTokens:
        indices = torch.arange(self.tokens, device=self.receiver.device)
        vectors = self.module(indices)[None].expand(len(rows), -1, -1)
        return SoftTokens(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device))


def fit_learner(
    learner: Learner,
    config: RunConfig,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    seed: int,
    lr: float,
    steps: int | None,
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains ``learner`` with AdamW on the rows that the config gives a bridge, and for as many steps (or ``steps``); resumes.

    Raises:
        StoppedEarlyError: asked to stop; all is saved. UsageError: no step is to be made.
    """
    if not (steps or config.training.steps):
        raise UsageError("training.steps = 0 does not fit what has to learn; give tuning_steps (--method_set tuning_steps=300)")
    training = config.training.model_copy(
        update={
            "optimizer": "adamw",
            "lr": lr,
            "steps": steps or config.training.steps,
            "first_stage": FirstStage(),
            "terms": Terms(),
            "questions_per_message": 1,
        }
    )
    own = config.model_copy(update={"training": training, "seed": seed, "output_dir": str(folder)})
    trainer = Trainer(
        own,
        learner=learner,
        train=RowBundles(train),
        validation=validation,
        folder=folder,
        hooks=Hooks(should_stop=should_stop),
    )
    if (folder / CHECKPOINT_FILE).exists():
        trainer.restore()
    best = trainer.run()
    return {
        "seconds": round(trainer.seconds, 1),
        "steps": training.steps,
        "trainable_params": sum(parameter.numel() for parameter in learner.module.parameters()),
        "best_step": best.step,
        "validation": round(best.score, 5),
        "train_rows": len(train),
        "validation_rows": len(validation),
    }
