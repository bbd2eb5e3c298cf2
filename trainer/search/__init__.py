"""Search: which recording is it, and where? Indexes of stores, files that are looked for in them."""
