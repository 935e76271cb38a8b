"""Scores of networks that are not trained: how good a network may be, from its structure or its first gradients.

`nas.search.scores.score.score` computes one. What each is worth on recorded trainings stands in docs/search-results.md.
"""
