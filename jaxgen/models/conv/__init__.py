"""Convolutions: their layers, and the forms in which they are computed."""
