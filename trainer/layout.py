"""The names in a run folder: ``runs/<arm>-<hash12>/``. Nothing is imported here."""

RUN_FILE = "run.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
MODEL = "model.safetensors"
EVALUATION = "evaluation"
FINISHED = "trained"
"""Status of a run that was trained to its end."""
