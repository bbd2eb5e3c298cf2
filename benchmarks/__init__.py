"""Every figure in the README comes from here: ratios within one run, written as JSON."""
