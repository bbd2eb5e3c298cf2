"""Campaigns: declared sets of runs, some of which start from others; planned, run, told.

=============  =====================================================================================
module         does
=============  =====================================================================================
``manifest``   a TOML file → groups of runs (arms × seeds × settings, recipes, grids)
``plan``       groups on a store → runs with configuration, signature, folder, order; kept as a file
``state``      what became of planned runs: read from run folders, never remembered elsewhere
``work``       one planned run: trained, scored on both splits; stops and goes on
``launch``     all of them on this machine, several at a time
=============  =====================================================================================

``manifest`` and ``state`` need no torch: asking how far a campaign is takes no longer than reading
its run folders.
"""
