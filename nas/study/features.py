"""Scores of networks that are not trained, by name: what the model of a search may see as a feature."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SCORES: Mapping[str, str] = MappingProxyType(
    {
        "params": "log10 of the number of parameters",
        "synflow": "paths through the network, weighed by its initial weights",
        "naswot": "how differently a batch of clips switches the rectifiers",
        "zico": "how much gradients agree over batches",
        "entropy": "of the features of a network of Gaussian weights, by how kernels fit their inputs",
        "temporal": "effective number of frames that a multiply-accumulate sees",
    }
)
"""Each score in one line, by name."""

STORED: Mapping[str, str] = MappingProxyType(
    {"supernet": "nas supernet STUDY", "supernet_darts": "nas supernet STUDY --strategy darts"}
)
"""Scores that another command stores in the study's database, and the command."""

FEATURES = (*SCORES, *STORED)
"""What `search.features` may name."""

BY_DATA = ("naswot", "zico")
"""Scores that look at clips."""
