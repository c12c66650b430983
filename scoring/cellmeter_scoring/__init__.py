"""Scores computed from a captured log alone, offline, at any later time."""
