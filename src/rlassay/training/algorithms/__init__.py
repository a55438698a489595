"""Optional parts of the trainer: a critic, KL control, guards, dynamic sampling and replay, one module each."""
