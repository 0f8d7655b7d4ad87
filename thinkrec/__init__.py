"""ThinkRec: thinking-based recommendation with language models, as a reproducible pipeline."""

import logging
import os

# Spinning OpenMP threads make two slower than one beside another job. OpenMP reads this once, when torch is first
# imported: so here, for commands and programs alike. What is set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # or it tells of faster kernels when peft is imported
