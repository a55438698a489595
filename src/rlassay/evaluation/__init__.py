"""Judging finished policies: `generate` answers with the model, `score` judges the answers without it."""
