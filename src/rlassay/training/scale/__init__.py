"""Training at scale: strategies that divide the policy, and micro-batches by token budget."""
