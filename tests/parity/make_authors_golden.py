"""Makes golden outputs of networks in their authors' own code, none of which is kept here.

    PYTHONPATH=. python -m tests.parity.make_authors_golden FOLDER [NAME ...]

FOLDER holds the repositories of `SOURCES` as FOLDER/owner/name, each at the commit stated there. The Python needs torch
and torchvision. mmaction2 wants mmcv-lite 2.2.0, mmengine 0.10.7 and addict beside them, SlowFast wants fvcore, iopath,
yacs, simplejson and pytorchvideo 0.1.5, TF slim wants tensorflow 2.21, tf_keras 2.17, tf_slim 1.1 and
TF_USE_LEGACY_KERAS=1 in the environment. Each network of `NETWORKS` is filled by the formula of its names and run in
evaluation mode; golden/NAME.json gets its logits, its clip's shape, a checksum of its names and what it was made from.

What is changed in the authors' networks: pools of a fixed size are those of the whole map, so that small clips do, and
softmax is left out. What has no part in a network (downloads, detection, logging across machines) is replaced by empty
names, TIN's CUDA kernel by what it computes, and TRN, which draws subsets of frames, sees those that ours has in
evaluation.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from tests.parity.formula import record

NUM_CLASSES = 11
# Repository: commit, licence.
SOURCES = {
    "piergiaj/pytorch-i3d": ("05783d11f9632b25fe3d50395a9c9bb51f848d6d", "Apache 2.0"),
    "facebookresearch/VMZ": ("4cc542d58c1c560571e1e962426e858e00de28d2", "Apache 2.0"),
    "facebookresearch/SlowFast": ("287ec0076846560f44a9327e931a5a2360240533", "Apache 2.0"),
    "qijiezhao/pseudo-3d-pytorch": ("09bba23a218d6a3019b31b4218b2159930294357", "MIT"),
    "open-mmlab/mmaction2": ("4d6c93474730cad2f25e51109adcf96824efc7a3", "Apache 2.0"),
    "mit-han-lab/temporal-shift-module": ("1f6a834b02120441d99fa706b7a13ccc5293c6fa", "MIT"),
    "deepcs233/TIN": ("801494aeadf453c1fb215a05980cf05644512c2c", "none stated"),
    "zhoubolei/TRN-pytorch": ("060509c4a25bb83d9dfa7c3444e850a49b8bed88", "BSD 2-Clause"),
    "kenshohara/3D-ResNets-PyTorch": ("540a0ea1abaee379fa3651d4d5afbd2d667a1f49", "MIT"),
    # A copy of research/slim in tensorflow/models.
    "tl-yang/adanet-gui": ("493108307b77774a82dec5d037c327d2d57a2e5f", "Apache 2.0"),
}


class Golden(NamedTuple):
    """A network in its authors' code and the clips that it is tried on.

    Attributes:
        source: Its repository.
        file: Where the network is in it.
        make: From the folder of the repository to the network.
        shape: Of the clips (N, C, T, H, W).
        pack: From clips to what the network takes.
        after: From what it gives to logits (N, classes).
    """

    source: str
    file: str
    make: Callable[[Path], nn.Module]
    shape: tuple[int, ...]
    pack: Callable[[Tensor], Any] = lambda clips: clips
    after: Callable[[Tensor], Tensor] = lambda logits: logits


def load(folder: Path, name: str, *packages: str) -> Any:
    """A module of a folder; `packages` are imported without what their own `__init__` does."""
    sys.path.insert(0, str(folder))
    for package in packages:
        empty(package).__path__ = [str(folder / package.replace(".", "/"))]
    return importlib.import_module(name)


def empty(name: str, **names: Any) -> types.ModuleType:
    """Puts a module of these names in the place of another."""
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(names)
    return module


def i3d(folder: Path) -> nn.Module:
    network = load(folder, "pytorch_i3d").InceptionI3d(num_classes=NUM_CLASSES)
    network.avg_pool = nn.AdaptiveAvgPool3d(1)
    return network


def p3d(folder: Path) -> nn.Module:
    network = load(folder, "p3d_model").P3D63(num_classes=NUM_CLASSES)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    return network


def vmz(module: str, name: str) -> Callable[[Path], nn.Module]:
    def make(folder: Path) -> nn.Module:
        found = load(folder / "pt", f"vmz.models.{module}", "vmz", "vmz.models")
        return getattr(found, name)(num_classes=NUM_CLASSES)

    return make


def resnet3d(depth: int, **settings: Any) -> Callable[[Path], nn.Module]:
    def make(folder: Path) -> nn.Module:
        return load(folder, "models.resnet").generate_model(depth, n_classes=NUM_CLASSES, **settings)

    return make


def mmaction2(module: str, name: str, features: int, **settings: Any) -> Callable[[Path], nn.Module]:
    """One of mmaction2's backbones, and the average and linear layer of its heads."""

    def make(folder: Path) -> nn.Module:
        found = load(
            folder, f"mmaction.models.backbones.{module}", "mmaction", "mmaction.models", "mmaction.models.backbones"
        )
        network = nn.Sequential()
        network.add_module("backbone", getattr(found, name)(**settings))
        if name != "C3D":
            network.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten()))
        network.add_module("fc_cls", nn.Linear(features, NUM_CLASSES))
        return network

    return make


def slowfast(config: str, name: str, frames: int, crop: int) -> Callable[[Path], nn.Module]:
    def make(folder: Path) -> nn.Module:
        empty("detectron2")
        empty("detectron2.layers", ROIAlign=None)
        names = ("cat_all_gather", "get_local_process_group", "get_local_rank", "get_local_size", "get_world_size")
        empty("pytorchvideo.layers.distributed", init_distributed_training=None, **dict.fromkeys(names))
        settings = load(folder, "slowfast.config.defaults").get_cfg()
        settings.merge_from_file(str(folder / f"configs/Kinetics/{config}.yaml"))
        sizes = {"DATA.NUM_FRAMES": frames, "DATA.TRAIN_CROP_SIZE": crop, "MODEL.NUM_CLASSES": NUM_CLASSES}
        settings.merge_from_list([part for pair in sizes.items() for part in pair])
        network = getattr(load(folder, "slowfast.models.video_model_builder", "slowfast.models"), name)(settings)
        network.head.act = nn.Identity()
        return network

    return make


def paths(clips: Tensor) -> list[Tensor]:
    """Every fourth frame for the slow pathway, as the data loader of SlowFast takes them, and all."""
    frames = clips.shape[2]
    return [clips.index_select(2, torch.linspace(0, frames - 1, frames // 4).long()), clips]


def segments(frames: int, **settings: Any) -> Callable[[Path], nn.Module]:
    """TSN of the code of TSM, TIN and TRN, on torchvision's ResNet-50 without downloaded weights."""

    def make(folder: Path) -> nn.Module:
        plain = torchvision.models.resnet50
        torchvision.models.resnet50 = lambda pretrained: plain()
        nn.init.normal, nn.init.constant = nn.init.normal_, nn.init.constant_  # their former names
        np.random.choice = chosen  # type: ignore[assignment]
        empty("cuda_shift")
        empty("cuda_shift.rtc_wrap", ShiftFeatureFunc=lambda: moved)
        module = load(folder, "models" if (folder / "TRNmodule.py").exists() else "ops.models")
        network = module.TSN(NUM_CLASSES, frames, "RGB", base_model="resnet50", partial_bn=False, **settings)
        if "consensus_type" not in settings:
            network.consensus = Mean()  # as TIN's, which is of a form that torch does not run any more
        return network

    return make


class Mean(nn.Module):
    """Logits of frames (N, T, K) to those of clips (N, 1, K)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


_TORCH_NAMES = {
    "weights": "weight",
    "biases": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class Slim(nn.Module):
    """A network of TensorFlow's graphs, whose variables are here as parameters by torch's names and order of axes."""

    def __init__(self, shape: tuple[int, ...], make: Callable[[Any], Any]) -> None:
        """Makes it.

        Args:
            shape: Of clips (N, C, T, H, W).
            make: From TensorFlow's clips (N, T, H, W, C) to its logits.
        """
        import tensorflow.compat.v1 as tf

        super().__init__()
        n, c, t, h, w = shape
        self._clips = tf.placeholder(tf.float32, (n, t, h, w, c))
        self._logits = make(self._clips)
        self._session = tf.Session()
        self._variables: dict[str, Any] = {}
        for variable in tf.global_variables():
            *path, last = (part for part in variable.op.name.split("/") if part != "InceptionV1")
            last = _TORCH_NAMES[last]
            owner: nn.Module = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner._modules[part]  # type: ignore[assignment]
            sizes = variable.shape.as_list()
            owner.register_buffer(last, torch.empty([*sizes[:-3:-1], *sizes[:-2]] if len(sizes) == 5 else sizes))
            self._variables[".".join((*path, last))] = variable

    def forward(self, clips: Tensor) -> Tensor:
        for name, value in self.state_dict().items():
            value = value.permute(2, 3, 4, 1, 0) if value.dim() == 5 else value
            self._variables[name].load(value.numpy(), self._session)
        feed = {self._clips: clips.permute(0, 2, 3, 4, 1).numpy()}
        return torch.from_numpy(self._session.run(self._logits, feed))


def s3d(shape: tuple[int, ...], gating: str) -> Callable[[Path], nn.Module]:
    """TF slim's S3D, with gates from a layer on; it was written for tf.contrib, which tf_slim is now."""

    def make(folder: Path) -> nn.Module:
        for name in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
            layers = importlib.import_module(f"tf_keras.src.legacy_tf_layers{name}")
            sys.modules[f"tf_keras.legacy_tf_layers{name}"] = layers
        import tensorflow.compat.v1 as tf
        import tf_slim

        tf.disable_eager_execution()
        tf.contrib = types.SimpleNamespace(framework=tf_slim, layers=tf_slim)
        sys.modules["tensorflow"] = tf
        module = load(folder, "research.slim.nets.s3dg", "research", "research.slim", "research.slim.nets")

        def logits(clips: Any) -> Any:
            with tf_slim.arg_scope(module.s3dg_arg_scope()):
                return module.s3dg(clips, num_classes=NUM_CLASSES, gating_startat=gating, is_training=False)[0]

        return Slim(shape, logits)

    return make


def frames_in_a_row(clips: Tensor) -> Tensor:
    """Clips (N, C, T, H, W) as (N, T*C, H, W)."""
    return clips.transpose(1, 2).flatten(1, 2)


def chosen(every: int, num: int, replace: bool) -> list[int]:
    """The places of `timm_heads.Relation` in the list of all subsets."""
    return [(2 * j + 1) * every // (2 * num) for j in range(num)]


def moved(data: Tensor, shift: Tensor) -> Tensor:
    """What TIN's kernel computes (shift_kernel_cuda.cu): groups of planes moved by whole frames, zeros where none came.

    Args:
        data: (N, T, C, H*W).
        shift: (N, groups), in frames.
    """
    out = torch.zeros_like(data)
    frames, size = data.shape[1], data.shape[2] // shift.shape[1]
    for n, groups in enumerate(shift.tolist()):
        for group, step in enumerate(groups):
            planes = slice(group * size, (group + 1) * size)
            for t in range(max(0, -step), min(frames, frames - step)):
                out[n, t + step, planes] = data[n, t, planes]
    return out


I3D, VMZ, SLOWFAST, P3D, MMACTION, TSM, TIN, TRN, KENSHOHARA, SLIM = SOURCES
INFLATED = {"inflate": ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0)), "conv1_kernel": (5, 7, 7)}
MODELS, BACKBONES, BUILDER = "ops/models.py", "mmaction/models/backbones", "slowfast/models/video_model_builder.py"
SMALL = (2, 3, 8, 48, 64)
EVEN = (2, 3, 16, 48, 80)
SQUARE = (2, 3, 16, 64, 64)  # slim's gates take rows for columns, so that other maps fail

NETWORKS = {
    "i3d_piergiaj": Golden(I3D, "pytorch_i3d.py", i3d, EVEN, after=lambda x: x.mean(2)),
    "i3d_piergiaj_odd": Golden(I3D, "pytorch_i3d.py", i3d, (2, 3, 15, 51, 77), after=lambda x: x.mean(2)),
    "s3d_slim": Golden(SLIM, "research/slim/nets/s3dg.py", s3d(EVEN, "none"), EVEN),
    "s3d_g_slim": Golden(SLIM, "research/slim/nets/s3dg.py", s3d(SQUARE, "Conv2d_2c_3x3"), SQUARE),
    "p3d_63_qijiezhao": Golden(P3D, "p3d_model.py", p3d, (2, 3, 16, 48, 64)),
    "r2plus1d_34_vmz": Golden(VMZ, "pt/vmz/models/r2plus1d.py", vmz("r2plus1d", "r2plus1d_34"), (2, 3, 4, 32, 48)),
    "ir_csn_152_vmz": Golden(VMZ, "pt/vmz/models/csn.py", vmz("csn", "ir_csn_152"), SMALL),
    "ip_csn_152_vmz": Golden(VMZ, "pt/vmz/models/csn.py", vmz("csn", "ip_csn_152"), SMALL),
    "c3d_mmaction2": Golden(MMACTION, f"{BACKBONES}/c3d.py", mmaction2("c3d", "C3D", 4096), (1, 3, 16, 96, 96)),
    "csn_r50_mmaction2": Golden(
        MMACTION,
        f"{BACKBONES}/resnet3d_csn.py",
        mmaction2(
            "resnet3d_csn", "ResNet3dCSN", 2048, depth=50, pretrained=None, with_pool2=False, bottleneck_mode="ir"
        ),
        SMALL,
    ),
    "i3d_r50_mmaction2": Golden(
        MMACTION,
        f"{BACKBONES}/resnet3d.py",
        mmaction2("resnet3d", "ResNet3d", 2048, depth=50, pretrained=None, **INFLATED),
        SMALL,
    ),
    "slowfast_8x8_r50_slowfast": Golden(
        SLOWFAST, BUILDER, slowfast("SLOWFAST_8x8_R50", "SlowFast", 16, 64), (2, 3, 16, 64, 64), paths
    ),
    "slowfast_8x8_r101_slowfast": Golden(
        SLOWFAST, BUILDER, slowfast("c2/SLOWFAST_8x8_R101_50_50", "SlowFast", 16, 64), (2, 3, 16, 64, 64), paths
    ),
    "i3d_nln_r50_slowfast": Golden(
        SLOWFAST, BUILDER, slowfast("I3D_NLN_8x8_R50", "ResNet", 8, 64), (2, 3, 8, 64, 64), lambda clips: [clips]
    ),
    "x3d_s_slowfast": Golden(
        SLOWFAST, BUILDER, slowfast("X3D_S", "X3D", 5, 64), (2, 3, 5, 64, 64), lambda clips: [clips]
    ),
    "tsm_r50_tsm": Golden(TSM, MODELS, segments(8, is_shift=True), SMALL, frames_in_a_row),
    "tsm_r50_block_tsm": Golden(TSM, MODELS, segments(8, is_shift=True, shift_place="block"), SMALL, frames_in_a_row),
    "tin_r50_tin": Golden(TIN, MODELS, segments(8, tin=True, shift_div=4), SMALL, frames_in_a_row),
    "trn_r50_trn": Golden(TRN, "models.py", segments(8, consensus_type="TRNmultiscale"), SMALL, frames_in_a_row),
    "trn_single_r50_trn": Golden(TRN, "models.py", segments(8, consensus_type="TRN"), SMALL, frames_in_a_row),
    "r3d_18_kenshohara": Golden(
        KENSHOHARA, "models/resnet.py", resnet3d(18, no_max_pool=True, shortcut_type="A"), (2, 3, 8, 32, 48)
    ),
    "r3d_50_kenshohara": Golden(
        KENSHOHARA, "models/resnet.py", resnet3d(50, no_max_pool=True, shortcut_type="B"), (2, 3, 4, 32, 48)
    ),
}


def main(folder: str, names: list[str]) -> None:
    if len(names) != 1:
        # Repositories have modules of the same names, so each network has a process of its own.
        for name in names or NETWORKS:
            subprocess.run([sys.executable, "-m", "tests.parity.make_authors_golden", folder, name], check=True)
        return
    golden = NETWORKS[names[0]]
    network = golden.make(Path(folder).resolve() / golden.source)
    commit, licence = SOURCES[golden.source]
    made_from = f"{golden.source} {commit} {golden.file} ({licence}), torch {torch.__version__}"
    record(names[0], network, golden.shape, made_from, lambda clips: golden.after(network(golden.pack(clips))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
