"""Audio and MIDI encoders, and their parts."""
