"""Tabulates what was measured: how well bounds agree, and what trainings with them reach."""
