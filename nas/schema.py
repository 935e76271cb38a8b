"""The schema of a study file: plain dataclasses that OmegaConf checks keys and types against.

They are mutable and loose because Hydra needs them so; `nas.config` converts them once into frozen values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ClipSchema:
    """`data.clip`: what a network sees."""

    frames: int = 16
    height: int = 112
    width: int = 112
    stride: int = 1


@dataclass
class DataSchema:
    """`data`: which videos, and how clips are taken from them."""

    name: str = "folder"
    root: str = ""
    cache: str = "runs/cache"
    num_classes: int = 0
    clip: ClipSchema = field(default_factory=ClipSchema)
    sampling: str = "dense"
    short_side: int = 128
    max_frames: int = 0
    crop_scale: list[float] = field(default_factory=list)
    flip: bool = False
    reversal: str = "none"
    short: str = "skip"
    eval_clips: int = 1
    mean: list[float] = field(default_factory=lambda: [0.43216, 0.394666, 0.37645])
    std: list[float] = field(default_factory=lambda: [0.22803, 0.22145, 0.216989])
    num_workers: int = 0
    source: str = "cache"
    fps: float = 0.0
    max_broken: float = 0.05
    eval_crops: int = 1
    crop_ratio: list[float] = field(default_factory=list)
    randaugment: list[int] = field(default_factory=list)
    colour: float = 0.0
    erasing: float = 0.0
    layout: str = "auto"
    annotations: str = ""
    definition: str = ""
    per_class: int = 0
    exclude: str = ""
    share: float = 1.0
    crop: list[int] = field(default_factory=list)
    input: str = "rgb"


@dataclass
class SpaceSchema:
    """`space`: the domains of the search, and the combinations that are never tried."""

    family: str = "resnet"
    domains: dict[str, Any] = field(default_factory=dict)
    forbid: list[Any] = field(default_factory=list)
    families: dict[str, Any] = field(default_factory=dict)


@dataclass
class InitSchema:
    """`recipe.init`: 2D weights that networks begin with."""

    weights: str = ""
    mode: str = "replicate"
    checksum: str = ""


@dataclass
class PhaseSchema:
    """One of `recipe.phases`: a stretch of training on other clips; what is 0 is as everywhere else."""

    epochs: int = 0
    frames: int = 0
    stride: int = 0
    size: int = 0
    lr: float = 0.0


@dataclass
class RecipeSchema:
    """`recipe`: how a network is trained in the search."""

    batch_size: int = 16
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    schedule: str = "anytime"
    epochs: int = 0
    warmup_epochs: float = 1.0
    ema_decay: float = 0.99
    label_smoothing: float = 0.0
    mixup: float = 0.0
    dropout: float = 0.0
    clip_grad: float = 0.0
    precision: str = "auto"
    channels_last: bool = True
    eval_every: int = 1
    aux_weight: float = 0.4
    init: InitSchema = field(default_factory=InitSchema)
    momentum: float | None = None
    nesterov: bool | None = None
    steps: list[float] = field(default_factory=list)
    step_factor: float = 0.1
    loss: str = "cross_entropy"
    bce_scale: float = 1.0
    class_weights: str = "none"
    cutmix: float = 0.0
    frozen_bn: bool = False
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False
    phases: list[PhaseSchema] = field(default_factory=list)


@dataclass
class SearchSchema:
    """`search`: sampler, rungs and budget."""

    sampler: str = "tpe"
    trials: int = 27
    initial: int = 9
    fidelity: str = "epochs"
    rungs: list[Any] = field(default_factory=lambda: [1, 3, 9])
    epochs: int = 0
    eta: int = 3
    order: str = "hypervolume"
    strata: int = 1
    objectives: list[str] = field(default_factory=lambda: ["error", "macs"])
    pool: int = 4000
    start_with: list[str] = field(default_factory=list)
    workers: int = 0


@dataclass
class ViewsSchema:
    """`promote.test`: how often and where a promoted network looks at a video in its test."""

    clips: int = 10
    crops: int = 1
    short_sides: list[int] = field(default_factory=list)
    full: bool = False


@dataclass
class PromoteSchema:
    """`promote`: full training. `recipe` lays over the search's recipe."""

    epochs: int = 30
    seeds: int = 1
    recipe: dict[str, Any] = field(default_factory=dict)
    test: ViewsSchema = field(default_factory=ViewsSchema)
    devices: int = 1
    checkpoint_steps: int = 0
    keep_best: bool = False
    logs: list[str] = field(default_factory=list)


@dataclass
class AblationSchema:
    """`ablation`: which decisions are compared, and when an answer counts. `recipe` lays over the search's recipe."""

    base: Any = ""
    to: Any = ""
    design: str = "ofat"
    factors: dict[str, Any] = field(default_factory=dict)
    against: dict[str, Any] = field(default_factory=dict)
    orders: int = 1
    fraction: int = 2
    match: str = "none"
    control: bool = True
    seeds: int = 5
    min_seeds: int = 3
    looks: int = 1
    epochs: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    margin: float = 0.01
    confidence: float = 0.95
    precision: float = 0.0
    motion: bool = False
    claims: list[Any] = field(default_factory=list)


@dataclass
class StudySchema:
    """A whole study file."""

    name: str = ""
    question: str = ""
    hypothesis: str = ""
    baseline: str = ""
    decision_rule: str = ""
    budget: str = ""
    seed: int = 0
    data: DataSchema = field(default_factory=DataSchema)
    space: SpaceSchema = field(default_factory=SpaceSchema)
    constraints: list[str] = field(default_factory=list)
    recipe: RecipeSchema = field(default_factory=RecipeSchema)
    search: SearchSchema = field(default_factory=SearchSchema)
    promote: PromoteSchema = field(default_factory=PromoteSchema)
    ablation: AblationSchema = field(default_factory=AblationSchema)
    variants: dict[str, Any] = field(default_factory=dict)
