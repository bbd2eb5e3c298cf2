"""Offline stage: raw recordings in, one small exact store out.

Rooms, from the bottom up: ``base`` (errors, files, configuration, console) · ``spectral`` (the
STFT every descriptor shares) · ``descriptors`` · ``store`` (the contract with the trainer) ·
``corpora`` · ``audio``, ``midi``, ``segments`` · ``plan`` · ``ingest`` · ``describe`` · ``build`` ·
``cli``. A room imports only from rooms to its left.
"""
