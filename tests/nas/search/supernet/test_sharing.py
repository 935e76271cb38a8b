"""With the shared weights, the supernet computes on a path what the network by itself computes with them."""

from __future__ import annotations

import random

import pytest
import torch

from nas.search.supernet.paths import Strategy, cover, mixture
from search_spaces.catalogue import build
from search_spaces.families.resnet.make import make_stem, of_depth
from search_spaces.operators import Kind, TemporalOp
from search_spaces.spec import ArchSpec
from tests.nas.search.supernet.test_paths import drawn

pytest.importorskip("nni")
pytest.importorskip("pytorch_lightning")
from nas.search.supernet.sharing import Supernet, supernet_of

CLIPS = (2, 3, 8, 32, 32)


def plain(width: int, kind: Kind, kernel: int) -> ArchSpec:
    """A network with one operator everywhere."""
    op = TemporalOp(kind=kind, kernel=kernel)
    return of_depth(10, width=width, stem=make_stem("1x3x3/2", width=width), op_at=lambda _s, _b, _i: op)


def made(
    networks: dict[str, ArchSpec], *, strategy: Strategy = "random", zero_init: bool = False
) -> tuple[Supernet, dict[str, object]]:
    places = cover(networks, num_classes=5)
    torch.manual_seed(0)
    return supernet_of(places, strategy=strategy, zero_init=zero_init), dict(places.paths)


def test_a_path_computes_what_the_network_by_itself_does() -> None:
    networks = drawn(60, 1)
    net, paths = made(networks)
    clips = torch.randn(CLIPS, generator=torch.Generator().manual_seed(0))
    for key in random.Random(0).sample(sorted(networks), 16):
        for training in (True, False):  # with statistics of a batch, then with those that it has left
            alone = build(networks[key], num_classes=5)
            alone.load_state_dict(net.weights(paths[key]))
            net.take(paths[key])
            for module in (alone.train(training), *net.children()):
                module.train(training)
            net.training = False  # a supernet in training would draw a path of its own
            torch.manual_seed(3)
            ours = net(clips)
            torch.manual_seed(3)
            assert torch.equal(ours, alone(clips)), networks[key].describe()
            after = net.weights(paths[key])
            assert all(torch.equal(after[name], value) for name, value in alone.state_dict().items())


def test_what_is_learned_on_one_path_is_there_on_another() -> None:
    """The narrow network has the first channels of the wide one, and the short kernel the centre of the long one."""
    net, paths = made({"wide": plain(16, "3d", 5), "narrow": plain(8, "3d", 3)})
    net.take(paths["wide"])
    net.eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    before = net.weights(paths["narrow"])
    net(torch.randn(CLIPS)).square().sum().backward()
    optimizer.step()
    after = net.weights(paths["narrow"])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if name.endswith("conv.weight")} <= changed
    whole = net.weights(paths["wide"])["stages.1.0.conv2.conv.weight"]
    assert torch.equal(after["stages.1.0.conv2.conv.weight"], whole[:16, :16, 1:4])


def test_each_step_takes_the_path_of_a_network_of_the_pool() -> None:
    networks = {kind: plain(8, kind, 3) for kind in ("2d", "3d", "2plus1d", "p3d_a")}
    net, paths = made(networks)
    net.train()
    clips = torch.randn(CLIPS)
    touched = set()
    for step in range(20):
        torch.manual_seed(step)
        net.zero_grad()
        net(clips).sum().backward()
        names = frozenset(name for name, value in net.named_parameters() if value.grad is not None)
        torch.manual_seed(step)
        key = list(paths)[int(torch.randint(len(paths), ()))]
        expected = {id(value) for value in _parameters_of(net, paths[key])}
        assert {id(net.get_parameter(name)) for name in names} == expected
        touched.add(key)
    assert len(touched) == len(networks)


def _parameters_of(net: Supernet, path: dict[str, object]) -> list[torch.nn.Parameter]:
    found = []
    for choice in net.children():
        form = path[choice.label]
        if form != "skip":
            unit = choice[form]
            own = dict(unit.shared.named_parameters())
            found += [own[name] for name in unit.weights(path[unit.choice.label]) if name in own]
    return found


def test_initial_values_are_those_of_networks_by_themselves() -> None:
    spec = plain(16, "2plus1d", 3)
    net, paths = made({"one": spec})
    torch.manual_seed(0)
    alone = build(spec, num_classes=5).state_dict()
    for name, value in net.weights(paths["one"]).items():
        assert value.shape == alone[name].shape
        spread, usual = (one.float().std(unbiased=False).item() for one in (value, alone[name]))
        assert spread == pytest.approx(usual, rel=0.25, abs=1e-3), name
    zero, paths = made({"one": spec}, zero_init=True)
    lasts = {name: value for name, value in zero.weights(paths["one"]).items() if name.endswith("conv2.norm.weight")}
    assert lasts and not any(value.any() for value in lasts.values())


KINDS: tuple[Kind, ...] = ("2d", "3d", "p3d_a")


def test_darts_mixes_the_forms_by_their_shares() -> None:
    networks = {kind: plain(8, kind, 3) for kind in KINDS}
    net, paths = made(networks, strategy="darts")
    clips = torch.randn(CLIPS)
    place = net.get_submodule("at_stages_1_0")
    place.resample(mixture(cover(networks, num_classes=5), paths["3d"]))
    with torch.no_grad():
        place._arch_alpha.copy_(torch.tensor([0.0, 1.0, 2.0]))
    x = torch.randn(2, 8, 4, 8, 8)
    place.train()
    parts = [place[form](x) for form in place.names]
    expected = sum(share * part for share, part in zip(place.shares().values(), parts, strict=True))
    assert torch.allclose(place(x), expected, atol=1e-6)
    assert list(place.shares().values()) == pytest.approx(torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0).tolist())
    net.take(paths["p3d_a"])  # by itself, a path has no mixture
    alone = build(networks["p3d_a"], num_classes=5)
    alone.load_state_dict(net.weights(paths["p3d_a"]))
    assert torch.equal(net.eval()(clips), alone.eval()(clips))


def test_either_weights_learn_or_the_shares_of_forms() -> None:
    net, _ = made({kind: plain(8, kind, 3) for kind in KINDS}, strategy="darts")
    shares = {name for name, _ in net.named_parameters() if name.endswith("_arch_alpha")}
    assert len(shares) == len(net.shares()) == 6
    net.train()
    seen = set()
    for step in range(8):
        torch.manual_seed(step)
        net.zero_grad()
        net(torch.randn(CLIPS)).square().sum().backward()
        learned = {name for name, value in net.named_parameters() if value.grad is not None}
        several = {name for name in shares if "stages" in name}
        assert learned == several or not learned & shares
        assert learned == several or len(learned) > 100
        seen.add(learned == several)
    assert seen == {True, False}
