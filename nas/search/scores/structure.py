"""Scores of a network by its structure alone: synflow, entropy, temporal; and networks drawn for a score.

Norms are identities in all of them, as in the papers' own code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from search_spaces.catalogue import build
from search_spaces.spec import ArchSpec

Seen = Callable[[nn.Module, Tensor], None]


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Draws follow from the seed in this block, and torch's generator is afterwards where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def drawn(spec: ArchSpec, *, num_classes: int, planes: int) -> nn.Module:
    """A network with initial weights by torch's generator; no residual branch begins at zero, where nothing is seen."""
    return build(spec, num_classes=num_classes, planes=planes, zero_init=False)


def without_norms(network: nn.Module) -> nn.Module:
    """The network with every norm an identity, the activation in it included; the network itself is changed.

    A new network's batch norms in evaluation mode are that anyway, but for weights; other norms would take away what
    is measured, the scale of features.
    """
    for module in network.modules():
        own = isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm)
        if own or ("norm" in type(module).__name__.lower() and not list(module.children())):
            module.forward = _same
    return network


def without_activations(network: nn.Module) -> nn.Module:
    """The network with every activation that is a module of its own an identity; the network itself is changed."""
    for module in network.modules():
        if type(module).__name__.lower().removesuffix("me") in _ACTIVATIONS:
            module.forward = _same
    return network


_ACTIVATIONS = ("relu", "relu6", "silu", "swish", "hardswish", "gelu", "leakyrelu", "elu", "mish")


def classifies(layer: nn.Module, num_classes: int) -> bool:
    """Whether a layer counts as a classifier, of which a network may have several: linear, one output a class."""
    return isinstance(layer, nn.Linear) and layer.out_features == num_classes


def weighted(network: nn.Module) -> list[nn.Module]:
    """Convolutions and linear layers."""
    return [module for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)]


def weight_of(layer: nn.Module) -> Tensor:
    """Of a convolution or a linear layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def watch(network: nn.Module, seen: Seen) -> None:
    """Calls a function with each convolution or linear layer and its output, in the order in which they are run."""

    def hook(module: nn.Module, inputs: object, out: Tensor) -> None:
        seen(module, out)

    for layer in weighted(network):
        layer.register_forward_hook(hook)


def _same(x: Tensor) -> Tensor:
    return x.clone()  # what follows may work in place, and whoever gave it needs it as it was


_CLIPS = 2  # that an entropy is of
_LEAST = 1e-3  # of the distance between the shapes of a kernel and its input


def synflow(network: nn.Module, clip: tuple[int, ...]) -> float:
    """log10 of the sum over parameters of |w dR/dw|, R being the sum of the outputs for a clip of ones and weights |w|.

    It counts the paths from the input to the output, each weighed by the product of its weights. Tanaka et al. 2020,
    "Pruning neural networks without any data by iteratively conserving synaptic flow" (arXiv 2006.05467), as a score
    of networks in Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS" (arXiv 2101.08134).

    Args:
        network: With initial weights; it is changed.
        clip: (C, T, H, W).
    """
    network = without_norms(network).double().eval()
    params = [param for param in network.parameters() if param.requires_grad]
    with torch.no_grad():
        for param in params:
            param.abs_()
    ones = torch.ones(1, *clip, dtype=torch.float64)
    with torch.enable_grad():
        grads = torch.autograd.grad(network(ones).sum(), params, allow_unused=True)
    flows = [param.detach() * grad for param, grad in zip(params, grads, strict=True) if grad is not None]
    total = sum(float(flow.abs().sum()) for flow in flows)
    return math.log10(total) if total > 0 else math.nan


@torch.no_grad()
def entropy(network: nn.Module, clip: tuple[int, ...], *, num_classes: int) -> float:
    """Entropy of the features of a network whose weights and input are standard normal, up to constants.

    The largest of ln(standard deviation) + ln(planes) over the outputs of its layers, the classifier's left out. A
    layer adds half the logarithm of its fan-in. Each has a factor to its fan-in for how well its kernel fits its
    input: -ln(1 - cos) of the angle between (T, H, W) and the kernel, since time and space hold unequal information
    where their extents differ. After the entropy of MAE-DET (Sun et al. 2022, arXiv 2111.13336) and the
    spatio-temporal refinement of E3D (Wang et al. 2023, "Maximizing Spatio-Temporal Entropy of Deep 3D CNNs", arXiv
    2303.02693), which add up the layers of one chain and weigh its stages; here features are computed, so that
    branches and shortcuts count as what they do.

    Args:
        network: It is changed; its weights are drawn by torch's generator.
        clip: (C, T, H, W).
        num_classes: Outputs of its classifiers.
    """
    network = without_norms(network).double().eval()
    for layer in weighted(network):
        weight_of(layer).normal_()
        if isinstance(layer.bias, Tensor):
            layer.bias.zero_()
        layer.register_forward_pre_hook(_scale_by_fit)
    found: list[float] = []

    def seen(layer: nn.Module, out: Tensor) -> None:
        planes = len(weight_of(layer))
        found.append(-math.inf if classifies(layer, num_classes) else float(out.std().log()) + math.log(planes))

    watch(network, seen)
    network(torch.randn(_CLIPS, *clip, dtype=torch.float64))
    best = max(found[:-1], default=math.nan)  # the last one classifies, whatever layer it is
    return best if math.isfinite(best) else math.nan


def _scale_by_fit(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Multiplies the weights of a convolution over space and time once by the root of how its kernel fits its input."""
    if not isinstance(layer, _ConvNd) or len(layer.kernel_size) < 2 or getattr(layer, "fitted", False):
        return
    extent, reach = inputs[0].shape[2:], layer.kernel_size
    if len(reach) == 2:  # over images, which are the frames of the clips
        extent, reach = torch.Size([len(inputs[0]) // _CLIPS, *extent]), (1, *reach)
    size, kernel = torch.tensor(extent, dtype=torch.float64), torch.tensor(reach, dtype=torch.float64)
    distance = 1.0 - float(torch.dot(size, kernel) / (size.norm() * kernel.norm()))
    layer.weight.mul_(math.sqrt(-math.log(max(distance, _LEAST))))
    layer.fitted = True  # type: ignore[assignment]


@torch.no_grad()
def temporal(network: nn.Module, clip: tuple[int, ...], *, num_classes: int) -> float:
    """Mean over multiply-accumulates of ln(n) / ln(T), n being the effective number of frames that their result sees.

    Where every layer averages its inputs, the share p_t of frame t in a feature is the share of the paths to it that
    begin there; n = exp(-sum of p_t ln p_t) is 1 for a feature of one frame, T for one to which all contribute
    alike. So it is 0 for a network that looks at each frame apart before its classifier, and grows with how early
    time is seen (more of the work is done on features that know of motion) and how far (kernels, dilations, strides,
    shifts). The effective receptive field is that of Luo et al. 2016 (arXiv 1701.04128), of frames instead of pixels.

    Activations are identities, but for the gates of squeeze-and-excitation. The shares are exact: the network is run
    on T clips of one frame each and an empty one, whose differences are the frames' contributions. Products of
    matrices are not counted as work.

    Args:
        network: It is changed; nothing in the score depends on how it was initialised.
        clip: (C, T, H, W), of two frames or more.
        num_classes: Outputs of its classifiers, which are left out.
    """
    network = without_activations(without_norms(network)).eval()
    for layer in weighted(network):
        weight_of(layer).fill_(1.0 / weight_of(layer)[0].numel())
    for name, param in network.named_parameters():
        if param.dim() == 1:
            param.fill_(0.0 if name.endswith("bias") else 1.0)  # others are factors of layers, such as LayerScale's
    frames = clip[1]
    clips = torch.zeros(frames + 1, *clip)
    for frame in range(frames):
        clips[frame, :, frame] = 1.0
    work: list[float] = []
    logs: list[float] = []

    def seen(layer: nn.Module, out: Tensor) -> None:
        parts = out.reshape(frames + 1, -1)
        parts = (parts[:frames] - parts[frames]).abs()
        total = parts.sum(0)
        known = total > 0
        own = 0.0 if classifies(layer, num_classes) else float(out.numel()) * weight_of(layer)[0].numel()
        work.append(own)
        logs.append(float(torch.special.entr(parts[:, known] / total[known]).sum(0).mean()) if known.any() else 0.0)

    watch(network, seen)
    network(clips)
    whole = sum(work[:-1])
    mean = sum(share * log for share, log in zip(work[:-1], logs[:-1], strict=True)) / whole if whole else math.nan
    return mean / math.log(frames)
