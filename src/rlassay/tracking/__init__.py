"""MLflow, fed from the files on disk: a copy for watching, never the record.

`follow` goes round a job's work; `sync.sync_study` writes whatever a store lacks. Only `store.py` and `database.py`
import MLflow, and only the feeding process and `rlassay mlflow-sync` import them.
"""

from rlassay.tracking.process import follow

__all__ = ["follow"]
