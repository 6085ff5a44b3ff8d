"""From a suite to finished runs: the plan, the place it needs, workers, job scripts for Slurm."""
