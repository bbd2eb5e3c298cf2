"""Store → models → numbers."""
