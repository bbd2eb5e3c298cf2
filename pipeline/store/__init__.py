"""The store: the contract between the offline stage and everything that reads it.

``schema`` says what is where, ``writer`` makes it, ``reader`` opens and verifies it. NumPy, zarr and
pyarrow only.
"""

from pipeline.store.reader import Store, find_newest

__all__ = ["Store", "find_newest"]
