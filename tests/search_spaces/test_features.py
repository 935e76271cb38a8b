"""Features are what the classifier sees, in every family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nas.use.features import last_layers, tapped
from search_spaces.catalogue import preset
from search_spaces.errors import SpecError
from search_spaces.graph import Link
from search_spaces.modules import Network
from search_spaces.parts import Pool
from search_spaces.spec import ArchSpec
from tests.conformance.test_networks import clip_of, clips, made, networks_to_run


@pytest.mark.parametrize("make", networks_to_run())
def test_logits_are_weights_times_features_and_a_constant(make: Callable[[], ArchSpec]) -> None:
    spec = make()
    network = made(spec).eval()
    assert isinstance(network, Network)
    with torch.no_grad(), tapped(network) as tap:
        logits = network(clips(spec, 3)).double()
        features = tap.features().double()
    weights = torch.cat([network.get_submodule(last.name).weight for last in last_layers(network)], 1).double()
    assert features.shape == (3, weights.shape[1])
    assert features.std(0).max() > 0
    rest = logits - features @ weights.T
    torch.testing.assert_close(rest, rest[:1].expand_as(rest), rtol=1e-4, atol=1e-4 * float(logits.abs().max() + 1e-3))


def test_features_of_a_clip_do_not_depend_on_its_batch_and_the_tap_is_taken_away() -> None:
    spec = preset("r3d_18").scaled(1 / 8)
    network = made(spec).eval()
    assert isinstance(network, Network)
    with torch.no_grad(), tapped(network) as tap:
        network(clips(spec, 3))
        together = tap.features()
        network(clips(spec, 3)[1:2])
        alone = tap.features()
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        network(torch.zeros(1, 3, *clip_of(spec)))
    assert torch.equal(tap.features(), alone)


def test_a_network_without_a_classifier_is_refused() -> None:
    pool = Pool(kernel=(2, 2, 2), stride=(2, 2, 2))
    with pytest.raises(SpecError, match="last linear layer, but end"):
        last_layers(Network([Link("end", pool)]))
