"""Prior: learned tokens and the question, no context. What can be learned about the answers without any input."""

from __future__ import annotations

from latentwire.methods.base import AS_THE_TASK_SAYS
from latentwire.methods.prompt_tuning import PromptTuning


class Prior(PromptTuning):
    """Learned tokens and the question, no context: it measures the prior of the answers, and is named so."""

    name = "prior"
    receiver_sees = AS_THE_TASK_SAYS
    aware = False
    blind = True
