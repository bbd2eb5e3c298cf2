"""Every figure in the README comes from here: ratios within one run, written as JSON."""

import trainer  # noqa: F401  # sets what NumPy and torch read when they load, as in the commands
