"""Figures and the one-page HTML report: what was learnt, how well, and what was sent where."""
