"""Retrieval scores: galleries, candidate pools, ranks, intervals, protocols, training-free floors.

Rooms, from the bottom up: ``gallery`` (the segments of one split) · ``pools`` (who competes with
whom) · ``metrics`` (ranks and what follows from them) · ``intervals`` (how sure one may be) ·
``repeats`` (music that comes again) · ``breakdown`` (parts of a score) · ``protocols`` (the paper's
and the strict rules) · ``evaluate`` (one call, one record) · ``compare`` (is one arm better than
another) · ``baselines`` (what needs no training). A file imports only from files to its left.
"""
