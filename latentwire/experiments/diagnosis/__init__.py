"""Why a run failed, explained from its own files. ``docs/diagnosis.md`` shows how it reads.

``diagnose`` weighs every registered hypothesis against what the run left; ``compare_runs`` lists what differs between two runs.
Standard library only, Python 3.9: both run on a login node.
"""

# importing a module of rules registers its hypotheses, in this order
from latentwire.experiments.diagnosis import ending_rules, learning_rules, output_rules
from latentwire.experiments.diagnosis.comparison import Comparison, compare_runs
from latentwire.experiments.diagnosis.report import Diagnosis, diagnose

__all__ = ["Comparison", "Diagnosis", "compare_runs", "diagnose", "ending_rules", "learning_rules", "output_rules"]
