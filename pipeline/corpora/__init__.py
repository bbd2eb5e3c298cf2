"""Corpora: recordings with metadata. ``demo`` is made here, ``maestro`` and CSV files are read."""
