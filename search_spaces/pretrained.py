"""Weights of trained networks for clips: state dicts of this and of other packages, onto our names.

A layout says what a package calls a tensor that has a name of ours. A state dict is of the layout by which most tensors
of a network are found in it, with their shapes; where it is of another network, what agrees is taken, and the rest
stays as drawn. Each layout is held to outputs of the package's own networks in `tests/parity/`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from search_spaces.errors import SpecError
from search_spaces.graph import STATISTICS, Shape, Unit, join
from search_spaces.inflate import trimmed, unknown
from search_spaces.spec import ArchSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Rules = tuple[tuple[str, str], ...]

# A residual network's `stages.0` is their `layer1`, before any rule.
_FIRST = re.compile(r"^stages\.(\d)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Names of tensors as a package has them.

    Attributes:
        name: The package, and the networks of it.
        mark: A pattern that some name of each state dict of this layout has.
        rules: Patterns in our names and what takes their place, one after the other.
    """

    name: str
    mark: str
    rules: Rules

    def their_name(self, name: str) -> str:
        """Their name of a tensor of ours; empty if they have none."""
        return _their_name(name, self.rules)


@lru_cache(maxsize=65536)
def _their_name(name: str, rules: Rules) -> str:
    if not rules:
        return name
    name = _FIRST.sub(lambda found: f"layer{int(found[1]) + 1}", name)
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


_HEADS: Rules = ((r"^head\.fc\.", "fc."), (r"^stem\.conv\.(?=weight)", "conv1."), (r"^stem\.norm\.", "bn1."))
_SHORTCUTS: Rules = ((r"\.shortcut\.conv\.", ".downsample.0."), (r"\.shortcut\.norm\.", ".downsample.1."))
_RESNET: Rules = (*_HEADS, *_SHORTCUTS, (r"\.conv(\d)\.conv\.", r".conv\1."), (r"\.conv(\d)\.norm\.", r".bn\1."))
# Each unit is a chain there: convolution (a chain of its own where it is a pair), norm, ReLU.
_CHAINS: Rules = (
    (r"\.conv\.mix\.", ".0.0."),
    (r"(layer.*\.conv2)\.conv\.norm\.", r"\1.0.1."),
    (r"\.conv\.conv\.", ".0.2."),
    (r"\.conv\.spatial\.", ".0.0."),
    (r"\.conv\.norm\.", ".0.1."),
    (r"\.conv\.temporal\.", ".0.3."),
    (r"^stem\.0\.(\d)", r"stem.\1"),
    *_SHORTCUTS,
    (r"\.conv(\d)\.conv\.", r".conv\1.0."),
    (r"\.conv(\d)\.norm\.", r".conv\1.1."),
    (r"^head\.fc\.", "fc."),
)
_P3D: Rules = (
    (r"^stem\.conv\.", "conv1_custom."),
    (r"^(layer4\.\d+\.)conv2\.conv\.", r"\1conv_normal."),
    (r"^(layer4\.\d+\.)conv2\.norm\.", r"\1bn_normal."),
    (r"\.conv3\.conv\.", ".conv4."),
    (r"\.conv3\.norm\.", ".bn4."),
    (r"\.conv2\.spatial\.conv\.", ".conv2."),
    (r"\.conv2\.spatial\.norm\.", ".bn2."),
    (r"\.conv2\.temporal\.conv\.", ".conv3."),
    (r"\.conv2\.temporal\.norm\.", ".bn3."),
    *_RESNET,
)
_MMACTION: Rules = (
    (r"^stem\.conv\.", "conv1.conv."),
    (r"^stem\.norm\.", "conv1.bn."),
    (r"\.shortcut\.conv\.", ".downsample.conv."),
    (r"\.shortcut\.norm\.", ".downsample.bn."),
    (r"\.norm\.", ".bn."),
    (r"^(conv1|layer)", r"backbone.\1"),
    (r"^head\.fc\.", "cls_head.fc_cls."),
)
_C3D: Rules = (
    (r"^conv(\d)\.0\.0\.", r"backbone.conv\1a.conv."),
    (r"^conv(\d)\.1\.0\.", r"backbone.conv\1b.conv."),
    (r"^head\.2\.", "backbone.fc6."),
    (r"^head\.5\.", "backbone.fc7."),
    (r"^head\.8\.", "cls_head.fc_cls."),
)


def _mixed(name: Callable[[int, int], str]) -> Rules:
    """Names of the nine blocks of Inception-v1, by stage and block."""
    return tuple((rf"^layer{s + 1}\.{b}\.", f"{name(s, b)}.") for s, n in enumerate((2, 5, 2)) for b in range(n))


_LETTERED = _mixed(lambda s, b: f"Mixed_{s + 3}{'bcdef'[b]}")
_I3D: Rules = (
    (r"^conv1\.", "Conv3d_1a_7x7."),
    (r"^conv2b\.", "Conv3d_2b_1x1."),
    (r"^conv2c\.", "Conv3d_2c_3x3."),
    *_LETTERED,
    (r"\.branch0\.0\.", ".b0."),
    (r"\.branch(\d)\.0\.", r".b\1a."),
    (r"\.branch(\d)\.1\.", r".b\1b."),
    (r"\.conv\.", ".conv3d."),
    (r"\.norm\.", ".bn."),
    (r"^head\.fc\.", "logits.conv3d."),
)
_SLIM: Rules = (
    (r"^.*\.norm\.(weight|num_batches_tracked)$", ""),  # norms have no weight there, which is 1
    (r"^conv1\.", "Conv2d_1a_7x7."),
    (r"^conv2b\.", "Conv2d_2b_1x1."),
    (r"^conv2c\.", "Conv2d_2c_3x3."),
    (r"^attention2c\.fc\.", "Conv2d_2c_3x3.self_gating.transformer_W."),
    *_LETTERED,
    (r"\.branch0\.(?=1)", ".Branch_0.Conv2d_0a_1x1."),
    (r"\.branch([12])\.(?=2)", r".Branch_\1.Conv2d_0b_3x3."),
    (r"\.branch3\.(?=2)", ".Branch_3.Conv2d_0b_1x1."),
    (r"_(\dx\d)\.\d\.fc\.", r"_\1.self_gating.transformer_W."),
    (r"\.branch([012])\.0\.", r".Branch_\1.Conv2d_0a_1x1."),
    (r"\.branch([12])\.1\.", r".Branch_\1.Conv2d_0b_3x3."),
    (r"\.branch3\.1\.", ".Branch_3.Conv2d_0b_1x1."),
    (r"\.spatial\.", "."),
    (r"\.norm\.", ".BatchNorm."),
    (r"\.conv\.", "."),
    (r"^head\.fc\.", "Logits.Conv2d_0c_1x1."),
)
_S3D: Rules = (
    (r"^conv1\.", "features.0."),
    (r"^conv2b\.", "features.2."),
    (r"^conv2c\.", "features.3."),
    *_mixed(lambda s, b: f"features.{(5, 8, 14)[s] + b}"),
    (r"\.branch0\.0\.", ".branch0."),
    (r"\.spatial\.", ".0."),
    (r"\.temporal\.", ".1."),
    (r"\.conv\.", ".0."),
    (r"\.norm\.", ".1."),
    (r"^head\.fc\.", "classifier.1."),
)
_PATHWAYS = (("slow", 0), ("fast", 1))
# Both pathways, or one alone; the letters of the three convolutions of a block.
_SLOWFAST: Rules = (
    *((rf"^layer{s}\.(\d+)\.last\.", rf"s{s + 1}.pathway0_nonlocal\1.") for s in range(1, 5)),
    *(
        (rf"(nonlocal\d+)\.{ours}\.", rf"\1.{theirs}.")
        for ours, theirs in (
            ("query", "conv_theta"),
            ("key", "conv_phi"),
            ("value", "conv_g"),
            ("out", "conv_out"),
            ("norm", "bn"),
        )
    ),
    *((rf"^layer{s}\.(\d+)\.{path}\.", rf"s{s + 1}.pathway{i}_res\1.") for s in range(1, 5) for path, i in _PATHWAYS),
    *((rf"^layer{s}\.(\d+)\.", rf"s{s + 1}.pathway0_res\1.") for s in range(1, 5)),
    *((rf"\.conv{n}\.conv\.", f".branch2.{letter}.") for n, letter in ((1, "a"), (2, "b"), (3, "c"))),
    *((rf"\.conv{n}\.norm\.", f".branch2.{letter}_bn.") for n, letter in ((1, "a"), (2, "b"), (3, "c"))),
    (r"\.shortcut\.conv\.", ".branch1."),
    (r"\.shortcut\.norm\.", ".branch1_bn."),
    *((rf"^fusion\.{k}\.lateral\.conv\.", f"s{k + 1}_fuse.conv_f2s.") for k in range(4)),
    *((rf"^fusion\.{k}\.lateral\.norm\.", f"s{k + 1}_fuse.bn.") for k in range(4)),
    *((rf"^stem\.{path}\.", f"s1.pathway{i}_stem.") for path, i in _PATHWAYS),
    (r"^stem\.spatial\.", "s1.pathway0_stem.conv_xy."),
    (r"^stem\.temporal\.", "s1.pathway0_stem.conv."),
    (r"^stem\.", "s1.pathway0_stem."),
    (r"_stem\.norm\.", "_stem.bn."),
    (r"\.gate\.", ".branch2.se."),
    (r"^head\.conv\.conv\.", "head.conv_5."),
    (r"^head\.conv\.norm\.", "head.conv_5_bn."),
    (r"^head\.expand\.", "head.lin_5."),
    (r"^head\.fc\.", "head.projection."),
)


def _pytorchvideo(blocks: Sequence[int]) -> Rules:
    """Names of pytorchvideo's networks.

    Args:
        blocks: Where the stages stand in its list of blocks; the head is behind the last.
    """
    return (
        *(
            (rf"^layer{s}\.(\d+)\.{path}\.", rf"blocks.{block}.multipathway_blocks.{i}.res_blocks.\1.")
            for s, block in enumerate(blocks, start=1)
            for path, i in _PATHWAYS
        ),
        *((rf"^layer{s}\.(\d+)\.", rf"blocks.{block}.res_blocks.\1.") for s, block in enumerate(blocks, start=1)),
        (r"\.conv2\.conv\.norm\.", ".branch2.conv_b.norm."),
        (r"\.conv2\.conv\.temporal\.", ".branch2.conv_b.conv_t."),
        (r"\.conv2\.conv\.spatial\.", ".branch2.conv_b.conv_xy."),
        *((rf"\.conv{n}\.(conv|norm)\.", rf".branch2.\1_{letter}.") for n, letter in ((1, "a"), (2, "b"), (3, "c"))),
        (r"\.shortcut\.(conv|norm)\.", r".branch1_\1."),
        *((rf"^stem\.{path}\.", f"blocks.0.multipathway_blocks.{i}.") for path, i in _PATHWAYS),
        (r"^stem\.(conv|norm)\.", r"blocks.0.\1."),
        (r"^fusion\.(\d)\.lateral\.conv\.", r"blocks.\1.multipathway_fusion.conv_fast_to_slow."),
        (r"^fusion\.(\d)\.lateral\.norm\.", r"blocks.\1.multipathway_fusion.norm."),
    )


_BLOCKS, _BEHIND_POOL = (1, 2, 3, 4), (1, 3, 4, 5)
_X3D: Rules = (
    # Theirs have the names of the stem's two convolutions the wrong way round.
    (r"^stem\.spatial\.", "blocks.0.conv.conv_t."),
    (r"^stem\.temporal\.", "blocks.0.conv.conv_xy."),
    (r"^head\.conv\.(conv|norm)\.", r"blocks.5.pool.pre_\1."),
    (r"^head\.expand\.", "blocks.5.pool.post_conv."),
    (r"^head\.fc\.", "blocks.5.proj."),
    (r"\.gate\.fc1\.", ".branch2.norm_b.1.block.0."),
    (r"\.gate\.fc2\.", ".branch2.norm_b.1.block.2."),
    (r"\.conv2\.norm\.", ".branch2.norm_b.0."),
    (r"\.shortcut\.(?=weight)", ".branch1_conv."),  # without a norm where the number of planes stays
    *_pytorchvideo(_BLOCKS),
)
_FRAMES: Rules = (
    (r"^backbone\.conv1\.", "base_model."),
    (r"^backbone\.", "base_model."),
    (r"\.block\.1\.", ".net."),
    (r"\.block\.", "."),
    (r"^head\.head\.(fc|reduce)\.", "new_fc."),
)

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout(name="video-nas", mark=r"^(stem|conv1|backbone|head)\.", rules=()),
            Layout(
                name="torchvision, VMZ",
                mark=r"^layer1\.0\.conv1\.0\.",
                rules=(*_CHAINS, (r"^stem\.conv\.", "stem.0."), (r"^stem\.norm\.", "stem.1.")),
            ),
            Layout(
                name="torchvision, VMZ: (2+1)D",
                mark=r"^layer1\.0\.conv1\.0\.",
                rules=(*_CHAINS, (r"^stem\.norm\.", "stem.4.")),
            ),
            Layout(name="torchvision: s3d", mark=r"^features\.0\.0\.0\.", rules=_S3D),
            Layout(name="kenshohara", mark=r"^layer1\.0\.conv1\.weight$", rules=_RESNET),
            Layout(name="P3D", mark=r"^conv1_custom\.", rules=_P3D),
            Layout(name="mmaction2", mark=r"^backbone\.layer1\.0\.conv1\.conv\.", rules=_MMACTION),
            Layout(
                name="mmaction2: CSN",
                mark=r"^backbone\.layer1\.0\.conv2\.0\.",
                rules=((r"\.conv2\.", ".conv2.0."), *_MMACTION),
            ),
            Layout(name="mmaction2: C3D", mark=r"^backbone\.conv1a\.", rules=_C3D),
            Layout(name="pytorch-i3d", mark=r"^Mixed_3b\.b0\.", rules=_I3D),
            Layout(name="TF-Slim", mark=r"^Mixed_3b\.Branch_0\.", rules=_SLIM),
            Layout(name="SlowFast", mark=r"^s1\.pathway0_stem\.", rules=_SLOWFAST),
            Layout(
                name="pytorchvideo",
                mark=r"^blocks\.1\.res_blocks\.",
                rules=(*_pytorchvideo(_BLOCKS), (r"^head\.fc\.", "blocks.5.proj.")),
            ),
            Layout(
                name="pytorchvideo, a pool behind the first stage",
                mark=r"^blocks\.3\.res_blocks\.",
                rules=(*_pytorchvideo(_BEHIND_POOL), (r"^head\.fc\.", "blocks.6.proj.")),
            ),
            Layout(
                name="pytorchvideo: SlowFast",
                mark=r"^blocks\.1\.multipathway_blocks\.",
                rules=(*_pytorchvideo(_BLOCKS), (r"^head\.fc\.", "blocks.6.proj.")),
            ),
            Layout(name="pytorchvideo: X3D", mark=r"^blocks\.5\.pool\.pre_conv\.", rules=_X3D),
            Layout(name="TSM", mark=r"^base_model\.", rules=(*_FRAMES, (r"\.conv1\.1\.", ".conv1.net."))),
            Layout(
                name="TRN",
                mark=r"^consensus\.fc_fusion_scales\.",
                rules=(*_FRAMES, (r"^head\.head\.scales\.", "consensus.fc_fusion_scales.")),
            ),
            Layout(
                name="TRN of one scale",
                mark=r"^consensus\.classifier\.",
                rules=(*_FRAMES, (r"^head\.head\.scales\.0\.", "consensus.classifier.")),
            ),
        )
    }
)
"""Every layout that is recognised, by its name."""


# Names of networks for clips that may have no kernel over time: TSM's and TRN's, and timm's with our heads.
_OF_FRAMES = r"base_model\.|consensus\.|backbone\."


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What became of the weights of a network for clips.

    Attributes:
        layout: By whose names they were found; empty if nothing was.
        taken: Tensors that were used.
        share: Of the parameters of our network before its classifier, those that have got values, 0..1.
        left: Modules of ours that keep their initial values.
        unused: Tensors of the state dict that found no place.
    """

    layout: str
    taken: int
    share: float
    left: tuple[str, ...]
    unused: int


def is_for_clips(shapes: Mapping[str, Shape]) -> bool:
    """Whether a state dict is of a network for clips: some kernel has a temporal side, or its names say so."""
    return any(len(shape) == 5 or re.match(_OF_FRAMES, key) for key, shape in shapes.items())


def match_by_name(
    tensors: Mapping[str, Shape], heads: Collection[str], shapes: Mapping[str, Shape], *, at_least: float = 0.0
) -> tuple[Loaded, dict[str, str]]:
    """Finds tensors of a network in a state dict.

    Args:
        tensors: Shapes of the network's parameters and statistics, by name, in order.
        heads: Paths of its head and side heads, whose last layers are drawn anew for other classes.
        shapes: Shape of each tensor of the state dict.
        at_least: The share of parameters before the classifier that has to be found, 0..1.

    Returns:
        What becomes of them, and the name there of each tensor that is taken.

    Raises:
        SpecError: Fewer of the network's parameters are there than `at_least`.
    """
    classifiers = _classifiers(tensors, heads)
    best, most = (LAYOUTS["video-nas"], dict[str, str]()), (0, 0)
    for layout in _layouts(frozenset(shapes)):
        found = {name: key for name in tensors if (key := layout.their_name(name)) in shapes}
        found = {name: key for name, key in found.items() if trimmed(tensors[name]) == trimmed(shapes[key])}
        # A classifier is taken whole or not at all: a bias without its weight is of no use.
        for path in classifiers:
            if any(name.startswith(path) and name not in found for name in tensors):
                found = {name: key for name, key in found.items() if not name.startswith(path)}
        inside = sum(not name.startswith(classifiers) for name in found)
        if (inside, len(found)) > most:
            best, most = (layout, found), (inside, len(found))
    layout, found = best
    body = {name: shape for name, shape in tensors.items() if not name.startswith(classifiers) and _is_parameter(name)}
    share = sum(prod(body[name]) for name in found if name in body) / max(1, sum(map(prod, body.values())))
    if share < at_least:
        raise SpecError(
            f"recipe.init.at_least {at_least:g} of the network's parameters must be among the weights, but "
            f"{math.floor(1000 * share) / 10:g} % of them are"
        )
    folded = {key for biases in _cancelled(found, layout.name).values() for key in biases}
    unused = {key for key in shapes if not key.endswith("num_batches_tracked")} - {*found.values(), *folded}
    params = [name for name in tensors if _is_parameter(name)]
    loaded = Loaded(
        layout=layout.name if found else "",
        taken=len(found),
        share=round(share, 4),
        left=tuple(unknown(params, set(found))),
        unused=len(unused),
    )
    return loaded, found


def load_by_name(
    network: nn.Module, state: Mapping[str, Tensor], *, heads: Collection[str] = ("head",), at_least: float = 0.0
) -> Loaded:
    """Sets values of a network from those of another where names and shapes agree.

    Args:
        network: Ours.
        state: Of a network for clips, as a package of `LAYOUTS` names its tensors.
        heads: Paths of our head and side heads.
        at_least: As for `match_by_name`.

    Raises:
        SpecError: As `match_by_name`. Nothing is changed then.
    """
    import torch

    own = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    loaded, found = match_by_name(
        {name: tuple(value.shape) for name, value in own.items()}, heads, shapes, at_least=at_least
    )
    with torch.no_grad():
        for name, key in found.items():
            own[name].copy_(state[key].reshape(own[name].shape))
        for path, (_, value, out) in _cancelled(found, loaded.layout).items():
            if value in state and out in state:
                weight = own[f"{path}.out.weight"].flatten(1)
                own[f"{path}.norm.running_mean"] -= weight @ state[value].to(weight) + state[out].to(weight)
    return loaded


def check_by_name(
    spec: ArchSpec, shapes: Mapping[str, Shape], *, num_classes: int, planes: int = 3, at_least: float = 0.0
) -> Loaded:
    """Says what `load_by_name` would, without values; timm's networks are built on the meta device for that.

    Args:
        spec: The network.
        shapes: Shape of each tensor of the state dict.
        num_classes: Classes of our network.
        planes: Planes of its clips.
        at_least: As for `match_by_name`.

    Raises:
        SpecError: As `match_by_name`.
    """
    links = spec.canonical().links(num_classes=num_classes, planes=planes)
    heads = (links[-1].name, *(link.name for link in links if link.unit.aside))
    tensors: dict[str, Shape] = {}
    for name, unit in links:
        if not isinstance(unit, Unit):
            return match_by_name(_built(spec, num_classes, planes), heads, shapes, at_least=at_least)[0]
        tensors |= {join(name, inner): shape for inner, shape in unit.graph().tensors().items()}
    return match_by_name(tensors, heads, shapes, at_least=at_least)[0]


def _classifiers(tensors: Mapping[str, Shape], heads: Collection[str]) -> tuple[str, ...]:
    """The last layer with parameters of each head, as the beginning of its tensors' names."""
    last = [[name for name in tensors if name.startswith(f"{head}.") and _is_parameter(name)][-1:] for head in heads]
    return tuple(f"{name.rpartition('.')[0]}." for names in last for name in names)


def _cancelled(tensors: Collection[str], layout: str) -> dict[str, tuple[str, str, str]]:
    """Biases of a non-local block's keys, values and output, by the block's path, as a layout that has them calls them.

    Ours have none: that of the keys is the same for all that a query looks at, which softmax cancels; the other two are
    in the mean of the norm behind them, since the shares of the values add up to 1.
    """
    if not layout:
        return {}
    inside, end, their_name = ("key", "value", "out"), ".query.weight", LAYOUTS[layout].their_name
    paths = [name.removesuffix(end) for name in tensors if name.endswith(end)]
    needed = [f"{conv}.weight" for conv in inside] + ["norm.running_mean"]
    paths = [path for path in paths if all(f"{path}.{name}" in tensors for name in needed)]
    biases = {
        path: [their_name(f"{path}.{conv}.weight").removesuffix("weight") + "bias" for conv in inside] for path in paths
    }
    return {path: (key, value, out) for path, (key, value, out) in biases.items()}


def _built(spec: ArchSpec, num_classes: int, planes: int) -> dict[str, Shape]:
    import torch

    from search_spaces.modules import Network

    with torch.device("meta"):
        network = Network(spec.canonical().links(num_classes=num_classes, planes=planes))
    return {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


@lru_cache(maxsize=8)
def _layouts(keys: frozenset[str]) -> tuple[Layout, ...]:
    """Those that a state dict with these names may be of."""
    return tuple(layout for layout in LAYOUTS.values() if any(_marked(layout, key) for key in keys))


def _marked(layout: Layout, key: str) -> bool:
    return re.search(layout.mark, key) is not None


def _is_parameter(name: str) -> bool:
    return not name.endswith(STATISTICS)
