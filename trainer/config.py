"""What a training run is told: clip, data and recipe, as frozen values that are checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from trainer.data.kinds import PLANES, Input, clip_text, problem_of

Log = Literal["csv", "tensorboard"]
Sampling = Literal["dense", "uniform"]
Reversal = Literal["none", "eval", "always"]
ShortClips = Literal["skip", "loop"]
Schedule = Literal["anytime", "cosine", "onecycle", "steps"]
Source = Literal["cache", "pack", "decode"]
Precision = Literal["auto", "fp32", "bf16"]
Loss = Literal["cross_entropy", "bce", "lsep", "warp"]
ClassWeights = Literal["none", "balanced", "sqrt", "frequency", "sqrt_frequency"]
ZeroInit = bool | Literal["as_published"]
InitMode = Literal["replicate", "centre", "random", "identity"]

# Fields that came later. An identity leaves them out at their default, so that what was begun without them goes on.
_ADDED: Mapping[str, bool] = MappingProxyType({"added": True})

PLACES = ("root", "cache", "num_workers", "max_broken", "annotations", "exclude")
"""Fields of DataConfig that say where data lies, who loads it and when that is given up; its checksum has the rest."""

# More than any video or machine has: what lies beyond is a slip, and would end in hours or in a full memory.
MOST_FRAMES = 100_000
MOST_PIXELS = 16_384
MOST_FPS = 1_000_000
MOST_CLIPS = 10_000


class ConfigError(ValueError):
    """A value is outside what its field allows; the message is one line with rule, value, field and choices."""


class CheckpointError(ConfigError):
    """A checkpoint is of another version, or not of the run that is to go on from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What a network sees.

    Attributes:
        frames: Frames of one clip, T.
        height: Rows after cropping, in pixels.
        width: Columns after cropping, in pixels.
        stride: Distance between sampled frames, in frames of the video (dense sampling only).
    """

    frames: int = 16
    height: int = 112
    width: int = 112
    stride: int = 1

    def __post_init__(self) -> None:
        """Raises ConfigError unless all four are at least 1, and no more than a machine can hold."""
        for name, most in (("frames", MOST_FRAMES), ("height", MOST_PIXELS), ("width", MOST_PIXELS)):
            _within(f"clip.{name}", getattr(self, name), 1, most)
        _within("clip.stride", self.stride, 1, MOST_FRAMES)

    @property
    def span(self) -> int:
        """Frames of video that one densely sampled clip covers."""
        return (self.frames - 1) * self.stride + 1

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which videos, and how clips are taken from them.

    Attributes:
        name: What the data set is called in records.
        root: Folder that all videos lie below; with `source: pack`, a folder of `nas data pack`.
        cache: Folder for decoded uint8 clips; with `source: decode`, for the times of the frames.
        clip: The clip that a network sees.
        sampling: `dense` takes every `clip.stride`-th frame of a window, `uniform` one of each of T equal segments.
        short_side: Frames are resized to this short side when decoded, in pixels; at least the crop.
        max_frames: At most this many frames of a video are kept in the cache, evenly spaced; 0 keeps all.
        crop_scale: Range of the random crop's side as a share of the largest crop of the clip's aspect; `None` crops
            exactly `height x width` pixels at a random place.
        flip: Mirror training clips left to right half of the time; only where the label survives it.
        reversal: `eval` shows evaluation clips backwards, `always` training clips too.
        short: `skip` leaves out and reports a video with fewer frames than a clip spans, `loop` repeats it.
        eval_clips: Clips of each video whose class probabilities are averaged in evaluation.
        mean: Mean of each channel, of values in 0..1.
        std: Standard deviation of each channel.
        num_workers: Loader processes; 0 loads in the training process.
        source: `cache` decodes every video once into `cache`, `pack` reads what `nas data pack` made, `decode` decodes
            from the files what a clip needs, each time.
        fps: Frames a second that `clip.stride` counts in: a video of another rate is seen as if it had this one, by
            frames left out or shown twice. A video that does not say its rate stays as it is. 0 takes all as they are.
        max_broken: Share of the clips of an epoch, or of an evaluation, that may be of unreadable videos; above it,
            training stops.
        eval_crops: Crops of each evaluation clip: 1 takes the middle, 3 both ends of the longer side too.
        crop_ratio: Range of the random crop's aspect as a multiple of the clip's, drawn evenly in its logarithm; `None`
            keeps the clip's aspect. With `crop_scale` it makes a multi-scale crop.
        randaugment: Number and magnitude (0 to 30) of RandAugment's operations; `None` turns it off.
        colour: Brightness, contrast and saturation of training clips change by a factor of up to 1 ± this.
        erasing: Share of the training clips of which a random rectangle is filled with the mean colour.
        layout: How the videos lie below the root, such as `folders` or `cvdf`; `auto` looks.
        annotations: Folder of lists, or file of class names; empty looks into the root.
        definition: Which part of the data is meant, by a name or a list of classes; empty takes all.
        per_class: Largest number of videos of each class in each split; 0 takes all.
        exclude: File of paths that are left out; empty for none.
        share: Share of the training videos that a network learns from, drawn within each class by the seed of the
            training (`trainer.data.dataset`). Other splits are always whole.
        crop: Rows and columns of the crop, in pixels of the frame, which is then resized to the clip: the same view at
            another resolution. `None` crops the clip's own size; with `crop_scale`, it gives the aspect alone.
        input: `rgb`; `flow` of `nas data flow` or of folders that hold it; or `difference` of each frame to the next.
    """

    name: str = "folder"
    root: str = ""
    cache: str = "runs/cache"
    clip: Clip = field(default_factory=Clip)
    sampling: Sampling = "dense"
    short_side: int = 128
    max_frames: int = 0
    crop_scale: tuple[float, float] | None = None
    flip: bool = False
    reversal: Reversal = "none"
    short: ShortClips = "skip"
    eval_clips: int = 1
    mean: tuple[float, float, float] = (0.43216, 0.394666, 0.37645)
    std: tuple[float, float, float] = (0.22803, 0.22145, 0.216989)
    num_workers: int = 0
    source: Source = field(default="cache", metadata=_ADDED)
    fps: float = field(default=0.0, metadata=_ADDED)
    max_broken: float = field(default=0.05, metadata=_ADDED)
    eval_crops: int = field(default=1, metadata=_ADDED)
    crop_ratio: tuple[float, float] | None = field(default=None, metadata=_ADDED)
    randaugment: tuple[int, int] | None = field(default=None, metadata=_ADDED)
    colour: float = field(default=0.0, metadata=_ADDED)
    erasing: float = field(default=0.0, metadata=_ADDED)
    layout: str = field(default="auto", metadata=_ADDED)
    annotations: str = field(default="", metadata=_ADDED)
    definition: str = field(default="", metadata=_ADDED)
    per_class: int = field(default=0, metadata=_ADDED)
    exclude: str = field(default="", metadata=_ADDED)
    share: float = field(default=1.0, metadata=_ADDED)
    crop: tuple[int, int] | None = field(default=None, metadata=_ADDED)
    input: Input = field(default="rgb", metadata=_ADDED)

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        _one_of("data.sampling", self.sampling, ("dense", "uniform"))
        _one_of("data.reversal", self.reversal, ("none", "eval", "always"))
        _one_of("data.short", self.short, ("skip", "loop"))
        if self.crop is not None and min(self.crop) < 1:
            raise ConfigError(f"data.crop must be [rows, columns] of at least 1 pixel, but is {self.crop}")
        _within("data.short_side", self.short_side, min(self.box.height, self.box.width), MOST_PIXELS)
        _at_least("data.max_frames", self.max_frames, 0)
        _within("data.eval_clips", self.eval_clips, 1, MOST_CLIPS)
        _at_least("data.num_workers", self.num_workers, 0)
        _at_least("data.per_class", self.per_class, 0)
        if not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"data.mean must be finite in every channel, but is {self.mean}")
        if not all(0 < s < math.inf for s in self.std):
            raise ConfigError(f"data.std must be above 0 and finite in every channel, but is {self.std}")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ConfigError(
                f"data.crop_scale must be [low, high] with 0 < low <= high <= 1, but is {self.crop_scale}"
            )
        if not 0 < self.share <= 1:
            raise ConfigError(f"data.share must be above 0 and at most 1, but is {self.share}")
        _one_of("data.source", self.source, ("cache", "pack", "decode"))
        _within("data.fps", self.fps, 0, MOST_FPS)
        if self.eval_crops not in (1, 3):
            raise ConfigError(f"data.eval_crops must be 1 or 3, but is {self.eval_crops}")
        for name in ("max_broken", "colour", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"data.{name} must be in [0, 1], but is {getattr(self, name)}")
        if self.crop_ratio is not None and not 0 < self.crop_ratio[0] <= self.crop_ratio[1] < math.inf:
            raise ConfigError(f"data.crop_ratio must be [low, high] with 0 < low <= high, but is {self.crop_ratio}")
        if self.randaugment is not None and not (self.randaugment[0] >= 1 and 0 <= self.randaugment[1] <= 30):
            raise ConfigError(
                "data.randaugment must be [number of operations, magnitude] with at least one operation and a magnitude"
                f" of 0 to 30, but is {self.randaugment}"
            )
        kind, size = self.input, self.clip.frames
        problem = problem_of(kind, frames=size, colour=self.colour, randaugment=self.randaugment)
        if problem is not None:
            raise ConfigError(problem)

    @property
    def planes(self) -> int:
        """Planes of what a network sees."""
        return PLANES[self.input]

    @property
    def shape(self) -> str:
        """The clip as it is recorded beside costs."""
        return clip_text(self.input, str(self.clip))

    @property
    def box(self) -> Clip:
        """The clip as it is cut from the frames, before its pixels are resized."""
        return self.clip if self.crop is None else replace(self.clip, height=self.crop[0], width=self.crop[1])

    def identity(self) -> dict[str, Any]:
        """Plain values that are equal where the same clips are taken of the same videos, wherever those lie."""
        return {name: value for name, value in _identity(self).items() if name not in PLACES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Init:
    """Which 2D weights a network begins with. The trainer gets networks that are initialised; this says how they were.

    Attributes:
        weights: A file, or a name such as `timm:resnet50`; empty draws all weights at random.
        mode: How 2D kernels become 3D ones.
        checksum: Of the weights; empty where they were not read yet.
    """

    weights: str = ""
    mode: InitMode = "replicate"
    checksum: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        _one_of("recipe.init.mode", self.mode, ("replicate", "centre", "random", "identity"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A stretch of training on clips of its own; what is 0 is as everywhere else.

    The recipe's schedule begins anew with each phase: its warm-up, its milestones and its horizon are those of the
    phase. Evaluation always sees the clip of the data, so that accuracies of all phases are of one kind.

    Attributes:
        epochs: Epochs of the phase, which has to state them; the last one goes on where the schedule can be prolonged.
        frames: Frames of a training clip, at most those of the data's clip.
        stride: Distance between its frames, in frames of the video.
        size: Rows and columns of a training clip, in pixels.
        lr: Peak learning rate.
    """

    epochs: int = 0
    frames: int = 0
    stride: int = 0
    size: int = 0
    lr: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        _at_least("recipe.phases' epochs", self.epochs, 1)
        for name in ("frames", "stride", "size", "lr"):
            _at_least(f"recipe.phases' {name}", getattr(self, name), 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        batch_size: Clips a step.
        optimizer: Name of a timm optimiser, such as `adamw` or `sgd`.
        lr: Peak learning rate.
        weight_decay: Weight decay, not applied to norms and biases.
        schedule: `anytime` warms up and stays constant, so that training can go on at any horizon; `steps` does the
            same but for the drops at its milestones; `cosine` and `onecycle` end at zero after `epochs`, and cannot be
            prolonged.
        epochs: Horizon of `cosine` and `onecycle`; unused by `anytime` and `steps`, which go on with another one.
        warmup_epochs: Epochs of linear warm-up from zero.
        ema_decay: Decay per step of the averaged weights that are evaluated, warmed up; 0 turns it off.
        label_smoothing: Share of the target that is spread over all classes.
        mixup: Alpha of mixup; 0 turns it off.
        dropout: Share of features dropped before the classifier.
        clip_grad: Largest norm of the gradient; 0 does not clip.
        precision: `fp32`, `bf16` (autocast), or `auto`: bf16 where the device computes it natively.
        channels_last: Keep activations in channels-last order.
        eval_every: Epochs between evaluations on val; the last epoch of a run is always evaluated.
        aux_weight: Weight of the loss of each auxiliary classifier, for networks that return theirs in training. The
            default is that of the authors' code for Inception-v3 (the paper of Inception-v1 says 0.3).
        init: 2D weights to begin with.
        momentum: Momentum, of optimisers that have one; `None` is the optimiser's own.
        nesterov: Nesterov's momentum, of optimisers that have it; `None` is the optimiser's own (timm's `sgd` has it).
        steps: Milestones of schedule `steps`: epochs, also parts of one, after which the rate drops.
        step_factor: What the rate is multiplied by at each milestone.
        loss: `cross_entropy` for one label a video; `bce`, `lsep` and `warp` for several (see `trainer.losses`).
        bce_scale: Factor of the loss `bce`, which is a mean over clips and classes.
        class_weights: What the loss of a class is multiplied by, with N videos of it in training and N_mean in the mean
            class: `balanced` N_mean / N, `sqrt` its square root; `frequency` N / N_mean, `sqrt_frequency` its root.
        cutmix: Alpha of cutmix, one box for all frames of a clip; 0 turns it off. With mixup, each step takes either.
        frozen_bn: Batch normalisation keeps the running statistics that it begins with; its weights still learn.
        accumulate: Parts in which a batch goes through the network; gradients add up to those of the whole batch, but
            batch normalisation sees each part alone.
        checkpointing: Compute the activations inside of blocks again in the backward pass instead of keeping them: less
            memory, about a third more time, the same weights.
        compile: Compile the network with `torch.compile`; needs a C++ compiler.
        phases: Stretches of training on other clips, such as 8 frames first and 32 then.
        zero_init: Whether the last norm of every residual branch begins with a weight of 0, so that the branch adds
            nothing; `as_published` is as the network's authors have it.
    """

    batch_size: int = 16
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    schedule: Schedule = "anytime"
    epochs: int = 0
    warmup_epochs: float = 1.0
    ema_decay: float = 0.99
    label_smoothing: float = 0.0
    mixup: float = 0.0
    dropout: float = 0.0
    clip_grad: float = 0.0
    precision: Precision = "auto"
    channels_last: bool = True
    eval_every: int = 1
    aux_weight: float = field(default=0.4, metadata=_ADDED)
    init: Init = field(default_factory=Init, metadata=_ADDED)
    momentum: float | None = field(default=None, metadata=_ADDED)
    nesterov: bool | None = field(default=None, metadata=_ADDED)
    steps: tuple[float, ...] = field(default=(), metadata=_ADDED)
    step_factor: float = field(default=0.1, metadata=_ADDED)
    loss: Loss = field(default="cross_entropy", metadata=_ADDED)
    bce_scale: float = field(default=1.0, metadata=_ADDED)
    class_weights: ClassWeights = field(default="none", metadata=_ADDED)
    cutmix: float = field(default=0.0, metadata=_ADDED)
    frozen_bn: bool = field(default=False, metadata=_ADDED)
    accumulate: int = field(default=1, metadata=_ADDED)
    checkpointing: bool = field(default=False, metadata=_ADDED)
    compile: bool = field(default=False, metadata=_ADDED)
    phases: tuple[Phase, ...] = field(default=(), metadata=_ADDED)
    zero_init: ZeroInit = field(default="as_published", metadata=_ADDED)

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        _one_of("recipe.schedule", self.schedule, get_args(Schedule))
        _one_of("recipe.loss", self.loss, get_args(Loss))
        _one_of("recipe.class_weights", self.class_weights, get_args(ClassWeights))
        self._check_later_fields()
        _one_of("recipe.precision", self.precision, ("auto", "fp32", "bf16"))
        _at_least("recipe.batch_size", self.batch_size, 1)
        _at_least("recipe.eval_every", self.eval_every, 1)
        for name in ("warmup_epochs", "weight_decay", "mixup", "cutmix", "clip_grad", "aux_weight"):
            _at_least(f"recipe.{name}", getattr(self, name), 0)
        for name in ("lr", "bce_scale"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"recipe.{name} must be above 0{'' if value <= 0 else ' and finite'}, but is {value}")
        for name in ("ema_decay", "label_smoothing", "dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"recipe.{name} must be in [0, 1), but is {value}")
        if self.has_horizon and self.epochs < 1:
            raise ConfigError(f"recipe.epochs must be at least 1 with schedule {self.schedule}, but is {self.epochs}")

    @property
    def has_horizon(self) -> bool:
        """Whether the schedule ends at zero, so that training cannot be prolonged."""
        return self.schedule in ("cosine", "onecycle")

    def _check_later_fields(self) -> None:
        _at_least("recipe.accumulate", self.accumulate, 1)
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"recipe.accumulate must be at most recipe.batch_size = {self.batch_size}, but is {self.accumulate}"
            )
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ConfigError(f"recipe.momentum must be in [0, 1), but is {self.momentum}")
        if not 0 < self.step_factor <= 1:
            raise ConfigError(f"recipe.step_factor must be in (0, 1], but is {self.step_factor}")
        if not all(a < b < math.inf for a, b in zip((0.0, *self.steps), self.steps, strict=False)):
            raise ConfigError(f"recipe.steps must be ascending and above 0, and finite, but is {list(self.steps)}")
        if not isinstance(self.zero_init, bool) and self.zero_init != "as_published":
            raise ConfigError(f"recipe.zero_init must be true, false or as_published, but is {self.zero_init}")
        if bool(self.steps) != (self.schedule == "steps"):
            raise ConfigError(
                f"recipe.steps must be given with schedule steps and no other, but is {list(self.steps)} with "
                f"schedule {self.schedule}"
            )
        if self.loss in ("lsep", "warp"):
            for name in ("mixup", "cutmix", "label_smoothing"):
                if getattr(self, name):
                    raise ConfigError(
                        f"recipe.{name} must be 0 with the ranking loss {self.loss}, whose labels are 0 or 1, "
                        f"but is {getattr(self, name)}; bce takes it"
                    )
            if self.class_weights != "none":
                raise ConfigError(
                    f"recipe.class_weights must be none with the ranking loss {self.loss}, but is "
                    f"{self.class_weights}; bce takes them"
                )
        if self.compile and self.checkpointing:
            raise ConfigError(
                "recipe.checkpointing must be off with recipe.compile, which chooses itself what to compute again"
            )
        length = sum(phase.epochs for phase in self.phases)
        if self.phases and self.has_horizon and length != self.epochs:
            raise ConfigError(
                f"recipe.phases must have recipe.epochs = {self.epochs} epochs in all with schedule {self.schedule}, "
                f"but have {length}"
            )

    def identity(self) -> dict[str, Any]:
        """Plain values that are equal where recipes train alike.

        Initial weights go by their checksum once they have one: where they lie does not matter.
        """
        values = _identity(self)
        values.pop("init", None)
        if self.init.weights:
            values["init"] = {"weights": self.init.checksum or self.init.weights, "mode": self.init.mode}
        return values


def _identity(value: DataConfig | Recipe) -> dict[str, Any]:
    values = asdict(value)
    for f in fields(value):
        if "added" in f.metadata:
            usual = f.default if f.default_factory is MISSING else f.default_factory()
            if getattr(value, f.name) == usual:
                del values[f.name]
    return values


def _at_least(field: str, value: float, low: float) -> None:
    if not low <= value < math.inf:
        raise ConfigError(f"{field} must be {'' if value < low else 'finite and '}at least {low}, but is {value}")


def _within(field: str, value: float, low: float, high: float) -> None:
    _at_least(field, value, low)
    if value > high:
        raise ConfigError(f"{field} must be at most {high:,}, but is {value}")


def _one_of(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{field} must be one of {', '.join(choices)}, but is {value}")
