"""Why a job may decline to run."""


class RefusedError(RuntimeError):
    """A job cannot run here and now; the message says why, and what to do about it."""


class RunBusyError(RefusedError):
    """Another process is training in this run directory."""
