"""Store → models → numbers."""

import os

# Idle OpenMP threads sleep instead of spinning: on a machine that others use too, two spinning
# processes slow each other down tenfold. Read when torch loads, so it must come first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
