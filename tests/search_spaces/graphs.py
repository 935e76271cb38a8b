"""Units of networks as modules, and what their layers give."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.graph import Graph, GraphBuilder, Layer
from search_spaces.modules import Block, build
from search_spaces.operators import TemporalOp
from search_spaces.parts import Conv
from search_spaces.spec import ArchSpec


def unit_of(op: TemporalOp, in_planes: int, out_planes: int, **settings: Any) -> Block:
    """Returns a convolution with its temporal form, norm and ReLU."""
    module = build(Conv(in_planes=in_planes, out_planes=out_planes, op=op, **settings))
    assert isinstance(module, Block)
    return module


def block_of(layer: Layer, inputs: int = 1, name: str = "") -> Block:
    """Returns a block of one layer."""
    builder = GraphBuilder(inputs)
    return Block(builder.graph(builder.add(layer, *(~i for i in range(inputs)), name=name)))


def outputs(block: nn.Module, x: Any) -> dict[str, Tensor]:
    """Returns what every named layer of a block gives for an input, and the whole block under the empty name."""
    found: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor, *, name: str) -> None:
        found[name] = out.clone()

    assert isinstance(block, Block)
    names = [node.name for node in block.graph.nodes if node.name]
    hooks = [block.get_submodule(name).register_forward_hook(partial(keep, name=name)) for name in names]
    with torch.no_grad():
        found[""] = block(x)
    for hook in hooks:
        hook.remove()
    return found


def graphs(spec: ArchSpec) -> list[tuple[str, tuple[object, ...], tuple[int, ...]]]:
    """Returns a network, layer by layer; where temporal operators stand is left out, since some have two names."""
    found = []
    for name, unit in spec.canonical().links(num_classes=5):
        graph: Graph = unit.graph()
        found.append((name, graph.nodes, graph.outputs))
    return found
