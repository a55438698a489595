"""vLLM under the trainer, in its processes or on a server."""
