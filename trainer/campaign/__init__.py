"""Campaigns: declared sets of runs, some of which start from others; planned, run, told.

================  ==================================================================================
module            does
================  ==================================================================================
``manifest``      a TOML file → groups of runs (arms × seeds × settings, recipes, grids)
``plan``          groups on a store → runs with configuration, signature, folder, order; kept as a file
``state``         what became of planned runs: read from run folders, never remembered elsewhere
``cost``          hours that are left, from steps that were measured
``work``          one planned run: trained, scored on both splits; stops and goes on
``launch``        all of them on this machine, several at a time
``batch_script``  the text of a Slurm array whose tasks do one run each
``scheduler``     what Slurm is asked, and what it answers
``slurm``         arrays submitted, watched, cancelled; never the same run twice
``rehearsal``     one step of a run, without training it
``checks``        what is tried of files: folders, space, versions, beginnings, the store
``preflight``     what would end runs in a queue, found before they are queued
``reading``       values of records and logs that may be damaged
``ledger``        all runs and scores below a folder → one Parquet table
``comparable``    which rows of the ledger may stand beside each other
``recorded``      what the paper wrote down
``standing``      rows → leaderboard: seeds joined, intervals, paired differences, floors
``charts``        pictures; ``figures`` and ``sections`` what they show, and tables
``report``        the page of a campaign
``housekeeping``  sizes of run folders, and what of them may go
``tell``          what commands say; ``queueing`` and ``keeping`` likewise
================  ==================================================================================

``manifest``, ``plan`` (once kept), ``state``, ``ledger`` and ``slurm`` need no torch: asking how far a
campaign is takes no longer than reading its run folders.
"""
