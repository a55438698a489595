"""MLflow, fed from the files on disk: a copy for watching, never the record.

`follow` wraps a job; `sync.sync_study` writes the values that a store lacks. Only `store.py` imports MLflow, and only
the feeding process and `rlassay mlflow-sync` import it.
"""

from rlassay.tracking.process import follow

__all__ = ["follow"]
