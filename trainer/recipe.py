"""The recipe of a training, as frozen values that are checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from trainer.config import Balance, ConfigError, check_fields, identity_of
from trainer.settings import setting

Schedule = Literal["anytime", "cosine", "onecycle", "steps"]
Precision = Literal["auto", "fp32", "bf16"]
Loss = Literal["cross_entropy", "bce", "lsep", "warp"]
ClassWeights = Literal["none", "balanced", "sqrt", "frequency", "sqrt_frequency"]
ZeroInit = bool | Literal["as_published"]
InitMode = Literal["replicate", "centre", "random", "identity"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Init:
    """Which weights a network begins with. The trainer gets networks that are initialised; this says how they were.

    `checksum` is empty where the weights were not read yet.
    """

    weights: str = setting(
        "",
        "What every network begins with: a file, the folder of a promoted network, `timm:NAME` or `torchvision:NAME`."
        " Weights of images are inflated; those of clips are taken where name and shape agree; see"
        " [weights](weights.md). Empty: drawn.",
    )
    mode: InitMode = setting("replicate", "How 2D kernels get time: `replicate`, `centre`, `identity`, `random`.")
    checksum: str = setting(
        "", "Which weights it has to be. Recorded in any case, and held to: other weights are another study."
    )
    at_least: float = setting(
        0.0,
        "Share of the parameters before the classifier that weights of clips have to give; a network that takes less is"
        " refused.",
        at_least=0,
        at_most=1,
        added=True,
    )

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        check_fields(self, "recipe.init.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A stretch of training on clips of its own; what is 0 is as everywhere else.

    The recipe's schedule begins anew with each phase: its warm-up, its milestones and its horizon are those of the
    phase. Evaluation always sees the clip of the data, so that accuracies of all phases are of one kind.
    """

    epochs: int = setting(
        0,
        "Epochs of the phase, which has to state them; the last one goes on where the schedule can be prolonged.",
        at_least=1,
    )
    frames: int = setting(0, "Frames of a training clip, at most those of the data's clip.", at_least=0)
    stride: int = setting(0, "Distance between its frames, in frames of the video.", at_least=0)
    size: int = setting(0, "Rows and columns of a training clip, in pixels.", at_least=0)
    lr: float = setting(0.0, "Peak learning rate.", at_least=0)

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        check_fields(self, "recipe.phases' ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a network is trained."""

    batch_size: int = setting(16, "Clips per step.", at_least=1)
    optimizer: str = setting("adamw", "Any optimiser of timm by name, such as `adamw` or `sgd`.")
    lr: float = setting(1e-3, "Peak learning rate.", above=0)
    weight_decay: float = setting(0.05, "Weight decay; not applied to norms and biases.", at_least=0)
    schedule: Schedule = setting(
        "anytime",
        "`anytime`: warm-up, then constant, so that training can go on at any horizon. `steps`: the same with drops at"
        " `recipe.steps`. `cosine` and `onecycle` end at zero after `recipe.epochs` and cannot be prolonged.",
    )
    epochs: int = setting(
        0,
        "Horizon of `cosine` and `onecycle`. In a promotion, `promote.epochs` unless `promote.recipe` says otherwise.",
    )
    warmup_epochs: float = setting(
        1.0, "Epochs of linear warm-up from zero; `onecycle` has its own rise of 30 %.", at_least=0
    )
    ema_decay: float = setting(
        0.99,
        "Decay a step of the averaged weights, which are the ones evaluated, warmed up; 0 turns averaging off.",
        at_least=0,
        below=1,
    )
    label_smoothing: float = setting(0.0, "Share of the target that is spread over all classes.", at_least=0, below=1)
    mixup: float = setting(0.0, "Alpha of mixup; 0 is off.", at_least=0)
    dropout: float = setting(0.0, "Share of features dropped before the classifier.", at_least=0, below=1)
    clip_grad: float = setting(0.0, "Largest norm of the gradient; 0 does not clip.", at_least=0)
    precision: Precision = setting(
        "auto", "`fp32`, `bf16` (autocast), or `auto`: bf16 where the hardware computes it natively."
    )
    channels_last: bool = setting(True, "Channels-last memory order of activations; a matter of speed.")
    eval_every: int = setting(
        1,
        "Epochs between evaluations on val; rungs and the last epoch of a run are always evaluated.",
        at_least=1,
    )
    aux_weight: float = setting(
        0.4,
        "Weight of the loss of each auxiliary classifier, in networks that have them. It is in the training loss, not"
        " in val's. The default is that of the authors' code for Inception-v3 (the paper of Inception-v1 says 0.3).",
        at_least=0,
        added=True,
    )
    init: Init = setting(Init(), "Weights to begin with.", added=True)
    momentum: float | None = setting(
        None,
        "Momentum, of optimisers that have one; null is the optimiser's own (0.9 for timm's `sgd`).",
        at_least=0,
        below=1,
        added=True,
    )
    nesterov: bool | None = setting(
        None, "Nesterov's momentum; null is the optimiser's own (timm's `sgd` has it).", added=True
    )
    steps: tuple[float, ...] = setting(
        (), "Milestones of schedule `steps` in epochs, such as `[10, 20]`; also parts of epochs.", added=True
    )
    step_factor: float = setting(
        0.1, "What the rate is multiplied by at each milestone.", above=0, at_most=1, added=True
    )
    loss: Loss = setting(
        "cross_entropy",
        "`cross_entropy` for one label per video. For several labels `bce`, `lsep` (Li et al. 2017) or `warp` (Weston"
        " et al. 2011).",
        added=True,
    )
    bce_scale: float = setting(
        1.0,
        "Factor of `bce`, which is a mean over clips and classes; 160 for hundreds of classes.",
        above=0,
        added=True,
    )
    class_weights: ClassWeights = setting(
        "none",
        "What the loss of a class is multiplied by. With N videos of it in training and N̄ in the mean one: `balanced`"
        " N̄/N, `sqrt` its root; `frequency` N/N̄, `sqrt_frequency` its root.",
        added=True,
    )
    balance: Balance = setting(
        "none",
        "How often the videos of a class are drawn in training: `none`, each once an epoch; `even`, all classes equally"
        " often; `sqrt`, by the root of their videos. An epoch has as many clips in any case.",
        added=True,
    )
    cutmix: float = setting(
        0.0,
        "Alpha of cutmix, one box for all frames of a clip; 0 is off. With mixup, each step takes either.",
        at_least=0,
        added=True,
    )
    frozen_bn: bool = setting(
        False,
        "Batch norm keeps the running statistics that it begins with, those of `recipe.init`; its weights still learn.",
        added=True,
    )
    accumulate: int = setting(
        1,
        "Parts in which a batch goes through the network. Gradients are those of the whole batch; batch norm sees each"
        " part alone.",
        at_least=1,
        added=True,
    )
    checkpointing: bool = setting(
        False,
        "Compute activations inside of blocks again instead of keeping them: less memory, about a third more time, the"
        " same weights.",
        added=True,
    )
    compile: bool = setting(False, "`torch.compile`; needs a C++ compiler.", added=True)
    phases: tuple[Phase, ...] = setting(
        (),
        "Stretches of training on other clips, with a schedule each, such as 8 frames first and 32 then: maps of"
        " `epochs`, `frames`, `stride`, `size` and `lr`; see [recipes](recipes.md).",
        added=True,
    )
    zero_init: ZeroInit = setting(
        "as_published",
        "Whether the last norm of every residual branch begins with a weight of 0 (Goyal et al. 2017): `true`,"
        " `false`, or as the network's authors have it.",
        added=True,
    )

    freeze: str = setting(
        "none",
        "Layers that do not learn, statistics of their norms included: `none`, `backbone` (all but the classifier), or"
        " `until:LAYER`, those before a layer or stage, such as `until:stages.2`.",
        added=True,
    )
    freeze_epochs: int = setting(0, "Epochs after which they learn, too; 0 is never.", at_least=0, added=True)
    layer_decay: float = setting(
        1.0,
        "What the learning rate of a layer is of that of the layer behind it, from the classifier on; 1 is off.",
        above=0,
        at_most=1,
        added=True,
    )
    head_lr: float = setting(1.0, "Factor of the classifier's learning rate.", above=0, added=True)

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        check_fields(self, "recipe.")
        self._check_together()
        if self.has_horizon and self.epochs < 1:
            raise ConfigError(f"recipe.epochs must be at least 1 with schedule {self.schedule}, but is {self.epochs}")

    @property
    def has_horizon(self) -> bool:
        """Whether the schedule ends at zero, so that training cannot be prolonged."""
        return self.schedule in ("cosine", "onecycle")

    def _check_together(self) -> None:
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"recipe.accumulate must be at most recipe.batch_size = {self.batch_size}, but is {self.accumulate}"
            )
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
        if self.balance != "none" and self.class_weights in ("balanced", "sqrt"):
            raise ConfigError(
                f"recipe.class_weights must be none with recipe.balance {self.balance}, which evens classes out, "
                f"but is {self.class_weights}"
            )
        if self.freeze not in ("none", "backbone") and not self.freeze.removeprefix("until:").strip("."):
            raise ConfigError(
                f"recipe.freeze must name a layer after until:, such as until:stages.2, but is {self.freeze}"
            )
        if self.freeze not in ("none", "backbone") and not self.freeze.startswith("until:"):
            raise ConfigError(
                f"recipe.freeze must be none, backbone or until:LAYER, such as until:stages.2, but is {self.freeze}"
            )
        if self.freeze_epochs and self.freeze == "none":
            raise ConfigError(f"recipe.freeze_epochs must be 0 with recipe.freeze none, but is {self.freeze_epochs}")
        if self.compile and self.checkpointing:
            raise ConfigError(
                "recipe.checkpointing must be false with recipe.compile, which chooses itself what to compute again, "
                "but is true"
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
        values = identity_of(self)
        values.pop("init", None)
        if self.init.weights:
            values["init"] = {"weights": self.init.checksum or self.init.weights, "mode": self.init.mode}
        return values
