"""Store → models → numbers."""

import os

# Read when torch and NumPy load, so both must come first.
# Idle OpenMP threads sleep instead of spinning: on a machine that others use too, two spinning
# processes slow each other down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# NumPy's OpenBLAS spins 2**26 cycles after a product, on cores that PyTorch wants by then: embedding
# after scoring took half as long again.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
