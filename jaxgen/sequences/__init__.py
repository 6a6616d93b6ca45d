"""Discrete sequences: text, language models' training, and filling in hidden tokens."""
