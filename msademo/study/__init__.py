"""Qualitative error analysis: a labelled set, a run over it in the background, what went wrong, and what to take along.

sets -> runner (measure) -> store -> judging, statistics -> export. Nothing here knows the page.
"""
