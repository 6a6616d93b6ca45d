"""Whole tasks and the settings of papers: completing images, baselines, Plug & Play."""
