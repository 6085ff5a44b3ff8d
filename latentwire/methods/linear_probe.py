"""Linear probe: logistic regression on the sender's hidden states. What is linearly there, a bridge should pass on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from latentwire.data.task import Example
from latentwire.errors import DataError, MissingPackageError, UsageError
from latentwire.methods.base import AS_THE_TASK_SAYS, Control, FitData, Method, Prediction
from latentwire.models.sender import Sender
from latentwire.models.tokens import pad_right

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

POOLINGS = ("mean", "last")
#: inverse strengths of the L2 penalty that validation chooses from
STRENGTHS = (0.003, 0.03, 0.3, 3.0, 30.0)
#: rows on which layer and pooling are compared before the penalty is chosen on all rows
SELECTION_ROWS = 2_000
#: steps of the solver at most
MOST_STEPS = 300


@torch.no_grad()
def pooled_states(sender: Sender, contexts: Sequence[str], *, batch_size: int = 64) -> Float[np.ndarray, "B L poolings D_s"]:
    """Mean and last hidden state of every layer (0 = embeddings; the last one after the final norm), begin-of-text left out."""
    writer = sender.writer
    if writer is None:
        raise ValueError("pooled_states needs a sender loaded with load_sender(…, full=True)")
    encoded, skip = sender.prompter.context_ids(contexts)
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    result: list[Any] = [None] * len(encoded)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        ids, mask = pad_right([encoded[index] for index in part], sender.tokenizer.pad_token_id or 0, sender.device)
        output = writer.model.get_decoder()(input_ids=ids, attention_mask=mask.long(), use_cache=False, output_hidden_states=True)
        real = mask[:, skip:]
        weights, ends = real[:, :, None].float(), real.sum(1) - 1
        pooled = []
        for layer in output.hidden_states:  # one by one: all of them in float32 fill a GPU
            states = layer[:, skip:].float()
            pooled.append(torch.stack([(states * weights).sum(1) / weights.sum(1), states[torch.arange(len(part)), ends]], dim=1))
        both = torch.stack(pooled, dim=1).cpu().numpy()
        for index, row in zip(part, both, strict=True):
            result[index] = row
    return np.stack(result)


class LinearProbe(Method):
    """Logistic regression on the sender's states; layer, pooling and penalty chosen on validation. No receiver."""

    name = "linear_probe"
    sender_sees = AS_THE_TASK_SAYS
    receiver_sees = "nothing"
    fits = True
    writes = True
    needs_options = True

    def fit(self, data: FitData) -> dict[str, Any]:
        if not all(row.label is not None for row in (*data.train, *data.validation)):
            raise UsageError(f"linear_probe needs a label in every row of {data.task.name!r}")
        train = pooled_states(self.parts.sender, [row.sender_prompt for row in data.train])
        validation = pooled_states(self.parts.sender, [row.sender_prompt for row in data.validation])
        labels = np.array([row.label for row in data.train])
        wanted = np.array([row.label for row in data.validation])

        if len(set(labels.tolist())) < 2:
            raise DataError(f"linear_probe cannot learn {data.task.name!r}: all {len(labels)} train rows have one label")
        some = some_of_each(labels, SELECTION_ROWS, seed=data.seed)

        def score(layer: int, pooling: int, strength: float, rows: Int[np.ndarray, " N"]) -> tuple[float, Pipeline]:
            probe = _fitted(strength, train[rows, layer, pooling], labels[rows])
            return float((probe.predict(validation[:, layer, pooling]) == wanted).mean()), probe

        places = [(layer, pooling) for layer in range(train.shape[1]) for pooling in range(len(POOLINGS))]
        first = {place: score(*place, 0.3, some)[0] for place in places}
        best_places = sorted(places, key=lambda place: -first[place])[:2]
        tried = {
            (place, strength): score(*place, strength, np.arange(len(labels))) for place in best_places for strength in STRENGTHS
        }
        (self.place, strength), (accuracy, self.probe) = max(tried.items(), key=lambda item: item[1][0])
        layer, pooling = self.place
        found = {"layer": layer, "pooling": POOLINGS[pooling], "C": strength, "validation": round(accuracy, 5)}
        return found | {"converged": int(self.probe[-1].n_iter_.max()) < MOST_STEPS}

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        layer, pooling = self.place
        states = pooled_states(self.parts.sender, [example.sender_prompt for example in examples])[:, layer, pooling]
        log_probs = self.probe.predict_log_proba(states)
        result = []
        for example, row in zip(examples, log_probs, strict=True):
            scores = np.full(len(example.options), -1e9)  # labels that no train row has cannot be predicted
            known = [(label, value) for label, value in zip(self.probe.classes_, row, strict=True) if label < len(scores)]
            for label, value in known:
                scores[label] = max(value, -1e9)
            option = int(scores.argmax())
            result.append(Prediction(example.options[option], option, tuple(scores.tolist()), 0, 1))
        return result


def some_of_each(labels: Int[np.ndarray, " N"], most: int, *, seed: int) -> Int[np.ndarray, " M"]:
    """At most about ``most`` rows drawn at random, in their order, with every label among them: files are often sorted."""
    if len(labels) <= most:
        return np.arange(len(labels))
    drawn = np.random.default_rng(seed).permutation(len(labels))
    each = [drawn[labels[drawn] == label][0] for label in np.unique(labels)]
    return np.unique(np.concatenate([drawn[:most], each]))


def _fitted(strength: float, states: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"]) -> Pipeline:
    """Standardised states into a logistic regression. One that has not converged is used as it is; the fit says so."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingPackageError("method 'linear_probe'", "scikit-learn", "baselines") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MOST_STEPS)).fit(states, labels)
