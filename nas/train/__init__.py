"""Trainings as jobs, where they run, and trained networks in their folders."""
