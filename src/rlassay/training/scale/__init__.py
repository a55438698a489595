"""Training at scale: micro-batches by tokens."""
