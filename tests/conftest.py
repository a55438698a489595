"""What holds for every test: one thread, no network, no display. Set before anything imports torch or matplotlib."""

import os

os.environ.update(
    OMP_NUM_THREADS="1",  # two test processes on two cores
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
)
