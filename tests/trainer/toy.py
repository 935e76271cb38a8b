"""A separable problem of four classes, held in memory, with a network that learns it in a few epochs."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field

import torch
from torch import nn

from trainer.config import Clip, DataConfig
from trainer.data.dataset import Met
from trainer.fit import fit
from trainer.recipe import Recipe

CLIP = Clip(frames=4, height=8, width=8)
CONFIG = DataConfig(name="toy", root="toy", cache="toy", clip=CLIP, eval_clips=2)
WARM = {"warmup_epochs": 0.0, "lr": 0.01, "precision": "fp32", "batch_size": 8}


def recipe(**changes):
    return Recipe(**{**WARM, **changes})


@dataclass(frozen=True)
class Toy:
    """The opened data: each class brightens one quarter of the picture."""

    classes: tuple[str, ...] = ("a", "b", "c", "d")
    checksum: str = "toy"
    num_train: int = 24
    num_val: int = 12
    noise: float = 1.0
    multi_label: bool = False
    met: Met = field(default_factory=Met, compare=False)


@dataclass
class ToyBatches:
    """A source of batches; `hook(epoch, step)` runs before each of them."""

    hook: object = None
    scale: float = 1.0
    seen: list = field(default_factory=list)

    def num_batches(self, data, config, *, split, batch_size, parts=1):
        assert split == "train"
        return data.num_train // batch_size

    def train_batches(
        self, data, config, *, batch_size, seed, epoch, device, start_batch=0, part=(0, 1), balance="none"
    ):
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        order = torch.randperm(data.num_train, generator=generator)
        for step in range(data.num_train // batch_size):
            labels = order[step * batch_size : (step + 1) * batch_size] % len(data.classes)
            clips = self.scale * picture(labels, data, config, generator)
            if step < start_batch:
                continue
            if self.hook is not None:
                self.hook(epoch, step)
            self.seen.append((epoch, step))
            yield clips, labels

    def eval_batches(self, data, config, *, split, batch_size, device, part=(0, 1)):
        generator = torch.Generator().manual_seed(17)
        owners = torch.arange(data.num_val).repeat_interleave(config.eval_clips)
        for part in owners.split(batch_size):
            yield picture(part % len(data.classes), data, config, generator), part % len(data.classes), part


def picture(labels, data, config, generator):
    clip = config.clip
    clips = data.noise * torch.randn(len(labels), 3, clip.frames, clip.height, clip.width, generator=generator)
    rows = torch.arange(clip.height)[:, None] * 2 // clip.height
    columns = torch.arange(clip.width)[None, :] * 2 // clip.width
    quarter = 2 * rows + columns
    return clips + 2.0 * (quarter == labels[:, None, None]).float()[:, None, None]


def network(num_classes=4, *, dropout=0.2, width=8):
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv3d(3, width, (3, 3, 3), stride=(1, 2, 2), padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool3d((1, 2, 2)),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, num_classes),
        )


def train(folder, until_epoch, *, seed=0, batches=None, model=None, data=None, config=CONFIG, **options):
    """Runs `fit` on the toy; options that are not fit's own go to the recipe."""
    names = (
        "on_epoch",
        "should_stop",
        "checkpoint_every",
        "checkpoint_steps",
        "device",
        "devices",
        "keep_best",
        "patience",
        "logs",
        "network",
    )
    own = {k: options.pop(k) for k in names if k in options}
    return fit(
        network() if model is None else model,
        Toy() if data is None else data,
        config,
        recipe(**options),
        seed=seed,
        until_epoch=until_epoch,
        folder=folder,
        batches=ToyBatches() if batches is None else batches,
        **own,
    )


def lines(folder):
    """Lines of progress without the fields that hold times."""
    path = folder / "progress.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{k: v for k, v in r.items() if k not in ("seconds", "clips_per_s")} for r in records]


def tensors(folder, name="last.pt"):
    """All tensors of a checkpoint by path."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dict(_flat(torch.load(folder / name, weights_only=True)))


def same_run(left, right):
    """Asserts that two folders hold the same lines and, bit for bit, the same state."""
    assert lines(left) == lines(right)
    ours, theirs = tensors(left), tensors(right)
    assert ours.keys() == theirs.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not different, different


def _flat(value, path=""):
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}/{index}")
