"""One evaluator for every method: same rows, same prompts, same scoring, same metric."""
