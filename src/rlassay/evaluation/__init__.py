"""Evaluation of policies: `generate` samples completions with the model, `score` scores them without it."""
