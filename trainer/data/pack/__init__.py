"""Packs: folders of few large files with the frames of all videos of a data set."""
