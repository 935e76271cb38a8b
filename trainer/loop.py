"""The training loop of one process: from wherever the folder stands to the end of an epoch.

Layers that draw for each clip do so where they compute, such as dropout, and each process draws other numbers. What is
drawn once for a batch, such as a random dilation, is drawn on the CPU. Where the network computes elsewhere, all
processes therefore draw alike on the CPU, which is as one process does.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoint import Partial, RunFolder, check_network
from trainer.config import CheckpointError, ConfigError, DataConfig, Log
from trainer.data.dataset import with_share
from trainer.evaluate import Batches, evaluate
from trainer.failures import NonFiniteLoss, Stopped, named
from trainer.learner import Learner, Losses
from trainer.logs import Logs, row_of
from trainer.losses import class_weights, cuts, mixup_shares
from trainer.metrics import EpochResult, Metrics, from_line, to_line
from trainer.optim import lr_at
from trainer.phases import check_phases, data_at
from trainer.processes import ALONE, Team
from trainer.ready import check_loss
from trainer.recipe import Recipe


def seed_generators(seed: int, epoch: int, device: torch.device, *, rank: int = 0, step: int = 0) -> None:
    """Seeds torch's generators for an epoch.

    Args:
        seed: Of the run.
        epoch: From 1.
        device: Where the network computes.
        rank: Number of the process among those that train together.
        step: Steps of the epoch that are done.
    """
    torch.manual_seed(_seed_of(seed, epoch, rank, step))
    if device.type != "cpu":
        torch.default_generator.manual_seed(_seed_of(seed, epoch, 0, step))


def states_of(device: torch.device) -> list[Tensor]:
    """The states of the generators, of the CPU and where there is one of the GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def go_on(partial: Partial, seed: int, epoch: int, device: torch.device, *, rank: int = 0) -> None:
    """Goes on with the generators as they were, or with others where there were fewer processes or another device.

    Args:
        partial: Where the run stands within the epoch.
        seed: Of the run.
        epoch: From 1.
        device: Where the network computes.
        rank: Number of the process.
    """
    kept = partial.generators
    if len(kept[0]) != len(states_of(device)):
        seed_generators(seed, epoch, device, rank=rank, step=partial.step)
        return
    if rank < len(kept):
        torch.set_rng_state(kept[rank][0])
    else:
        seed_generators(seed, epoch, device, rank=rank, step=partial.step)
    if device.type == "cuda":
        torch.set_rng_state(kept[0][0])
        if rank < len(kept):
            torch.cuda.set_rng_state(kept[rank][1], device)


def _seed_of(seed: int, epoch: int, rank: int, step: int) -> int:
    """Seeds of neighbouring runs and epochs have nothing in common, unlike seed + epoch."""
    text = f"{seed}/{epoch}" + (f"/{rank}/{step}" if rank or step else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


FREE = frozenset({"eval_every", "checkpointing"})
"""Fields of a recipe that may change between two calls on one folder: what does not reach the weights."""
_NETWORK = "network"


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """What `fit` gives back.

    Attributes:
        epochs: Epochs 1 to `until_epoch`, or to the one in which patience ended; also those of earlier calls.
        resumed_from: Epoch of the checkpoint that this call went on from; 0 if it began anew.
        damaged: A line for every checkpoint that could not be read and was passed over.
        resumed_step: Steps of the epoch after `resumed_from` that were done; 0 unless the call before ended within it.
        best_epoch: Epoch of `best.pt`; `None` unless it was asked for, or if the weights of the best epoch are gone.
    """

    epochs: tuple[EpochResult, ...]
    resumed_from: int
    damaged: tuple[str, ...]
    resumed_step: int = 0
    best_epoch: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunPlan:
    """What a run was asked for; see `trainer.fit.fit`."""

    model: nn.Module
    data: Any
    data_config: DataConfig
    recipe: Recipe
    seed: int
    until_epoch: int
    folder: Path
    device: torch.device
    batches: Batches
    checkpoint_every: int = 1
    checkpoint_steps: int = 0
    keep_best: bool = False
    best_by: str = ""
    patience: int = 0
    logs: tuple[Log, ...] = ()
    network: str = ""


@dataclass(slots=True)
class _RunState:
    """A run under way: what was planned, who does it, and how far it is."""

    plan: RunPlan
    team: Team
    files: RunFolder
    learner: Learner
    identity: Mapping[str, str]
    num_steps: int
    stop: Callable[[], bool]
    lines: list[str] = field(default_factory=list)
    saved: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes the folder."""
        return self.team.rank == 0


def run(
    plan: RunPlan,
    *,
    team: Team = ALONE,
    on_epoch: Callable[[EpochResult], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> FitResult:
    """Does what `fit` promises, in this process, as one of a team that all do this.

    Args:
        plan: The same in all processes, but for the device.
        team: Whose part this process does.
        on_epoch: Called by the first process.
        should_stop: Asked before each step.

    Raises:
        ConfigError, TrainingFailed, Stopped: As `fit`.
    """
    plan = replace(plan, data=with_share(plan.data, plan.data_config.share, plan.seed))
    files, device, recipe, config = RunFolder(plan.folder), plan.device, plan.recipe, plan.data_config
    leads = team.rank == 0
    with files.locked() if leads else nullcontext(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        num_steps = plan.batches.num_batches(
            plan.data, config, split="train", batch_size=recipe.batch_size, parts=team.size
        )
        if num_steps < 1:
            raise ConfigError(f"the training split must fill one batch, but {config.root} gives none")
        check_phases(config, recipe)
        weights = _weights(plan)
        identity = _identity(plan)
        with named("the set-up"):
            learner = Learner(plan.model, recipe, device, team=team, weights=weights)  # joins the team
        kept, damaged = files.restore() if leads else (None, ())
        team.gathered(None)  # the others read what the first has put in order
        if not leads:
            kept = files.newest()
        if kept is not None:
            _check_same(identity, kept.run, files.last, unused=() if recipe.has_horizon else ("recipe.epochs",))
            check_network(learner.raw, kept.model, files.last)
            learner.load(kept)
        this = _RunState(
            plan=plan,
            team=team,
            files=files,
            learner=learner,
            identity=identity,
            num_steps=num_steps,
            stop=should_stop if should_stop is not None else lambda: False,
            lines=[] if kept is None else list(kept.lines),
        )
        start = this.saved = len(this.lines)
        partial = None if kept is None else kept.partial
        best = held = None
        keep_best = plan.keep_best or plan.patience > 0
        if keep_best and leads:
            line, harm = files.best_line()
            damaged += harm
            best = held = None if line is None else from_line(line)
            for done in map(from_line, this.lines):  # one of them may be better, but its weights are gone
                best = done if _better(done, best, plan.best_by) else best
            if best is not None and best is not held and best.epoch == start and partial is None:
                held = best
                files.write_best(learner.weights_only(start, identity, this.lines[-1]))
        logged = [] if not plan.logs else [row_of(from_line(line)) for line in this.lines]
        title = plan.folder.parent.name
        with Logs(plan.folder, plan.logs if leads else (), logged, title=title, settings=identity) as logs:
            for epoch in range(start + 1, plan.until_epoch + 1):
                if plan.patience and _unimproved(this.lines, plan.best_by) >= plan.patience:
                    break
                result = _epoch(this, epoch, partial if epoch == start + 1 else None)
                this.lines.append(to_line(result))
                if leads:
                    files.append(this.lines[-1])
                    if keep_best and _better(result, best, plan.best_by):
                        best = held = result
                        files.write_best(learner.weights_only(epoch, identity, this.lines[-1]))
                    if epoch % plan.checkpoint_every == 0 or epoch == plan.until_epoch:
                        files.write(learner.checkpoint(epoch, identity, this.lines))
                        this.saved = epoch
                    logs.add(row_of(result))
                    if on_epoch is not None:
                        on_epoch(result)
            if leads and this.saved < len(this.lines):
                files.write(learner.checkpoint(len(this.lines), identity, this.lines))
    return FitResult(
        epochs=tuple(from_line(line) for line in this.lines[: plan.until_epoch]),
        resumed_from=start,
        damaged=damaged,
        resumed_step=0 if partial is None or start >= plan.until_epoch else partial.step,
        best_epoch=None if held is None else held.epoch,
    )


def _epoch(this: _RunState, epoch: int, partial: Partial | None) -> EpochResult:
    """Trains an epoch, or the rest of it, and evaluates."""
    plan, learner = this.plan, this.learner
    recipe, device = plan.recipe, plan.device
    began = time.perf_counter() - (0.0 if partial is None else partial.seconds)
    with named(f"epoch {epoch}"):
        seed_generators(plan.seed, epoch, device, rank=this.team.rank)
        first = 0 if partial is None else partial.step
        losses = Losses(epoch, team=this.team)
        if partial is not None:
            losses.num_steps, losses.num_clips, losses.total = partial.step, partial.num_clips, partial.total
            go_on(partial, plan.seed, epoch, device, rank=this.team.rank)
        source = plan.batches.train_batches(
            plan.data,
            data_at(plan.data_config, recipe, epoch),
            batch_size=recipe.batch_size,
            seed=plan.seed,
            epoch=epoch,
            device=device,
            start_batch=first,
            part=this.team.part,
            balance=recipe.balance,
        )
        mixing = zip(
            mixup_shares(recipe, seed=plan.seed, epoch=epoch), cuts(recipe, seed=plan.seed, epoch=epoch), strict=True
        )
        for _ in range(first):
            next(mixing)
        learner.training(epoch)
        for step, (clips, labels) in enumerate(source, start=first):
            if this.stop():
                raise Stopped(this.saved)
            share, cut = next(mixing)
            loss = learner.step(
                clips,
                labels,
                lr=lr_at(recipe, epoch=epoch, step=step, num_steps=this.num_steps),
                share=share,
                cut=cut,
                num_classes=len(plan.data.classes),
                done=(epoch - 1) * this.num_steps + step + 1,
            )
            losses.add(loss, len(labels))
            done = step + 1
            if plan.checkpoint_steps and done % plan.checkpoint_steps == 0 and done < this.num_steps:
                _write_partial(this, epoch, losses, began)
        train_loss = losses.mean()
    trained = time.perf_counter() - began
    val: Metrics | None = None
    if epoch % recipe.eval_every == 0 or epoch == plan.until_epoch:
        val = evaluate(
            learner.evaluated, plan.data, plan.data_config, recipe, "val", device, batches=plan.batches, team=this.team
        ).metrics
        if not math.isfinite(val.loss):
            raise NonFiniteLoss(epoch=epoch, step=0, value=val.loss)
    return EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        lr=lr_at(recipe, epoch=epoch, step=losses.num_steps - 1, num_steps=this.num_steps),
        seconds=time.perf_counter() - began,
        steps=losses.num_steps,
        clips_per_s=losses.num_clips / trained,
        val=val,
    )


def _write_partial(this: _RunState, epoch: int, losses: Losses, began: float) -> None:
    losses.read()
    generators = this.team.gathered(states_of(this.plan.device))
    if this.leads:
        partial = Partial(
            step=losses.num_steps,
            num_clips=losses.num_clips,
            total=losses.total,
            seconds=time.perf_counter() - began,
            generators=generators,
        )
        this.files.write(this.learner.checkpoint(epoch - 1, this.identity, this.lines, partial))


def _better(result: EpochResult, best: EpochResult | None, by: str) -> bool:
    """Whether an epoch is more accurate on val; where two are alike, the one with the smaller loss is."""
    if result.val is None:
        return False
    if best is None or best.val is None:
        return True
    return (result.val.by(by), -result.val.loss) > (best.val.by(by), -best.val.loss)


def _unimproved(lines: Sequence[str], by: str) -> int:
    """Epochs from the one that was most accurate on val to the last one that was evaluated; 0 before the first."""
    best: EpochResult | None = None
    last = 0
    for result in map(from_line, lines):
        last = last if result.val is None else result.epoch
        best = result if _better(result, best, by) else best
    return 0 if best is None else last - best.epoch


def _weights(plan: RunPlan) -> Tensor | None:
    """Of the classes, by the number of training videos of each.

    Raises:
        ConfigError: The loss takes one label per video, and the data has several.
    """
    recipe, data = plan.recipe, plan.data
    check_loss(data, recipe)
    if recipe.class_weights == "none":
        return None
    counts = torch.zeros(len(data.classes), dtype=torch.long)
    for entry in data.split("train").entries:
        counts[list(entry.labels or (entry.label,))] += 1
    return class_weights(counts, recipe.class_weights)


def _identity(plan: RunPlan) -> dict[str, str]:
    """What must not change for a run to go on, by name. The number of processes may."""
    fields = {f"recipe.{name}": value for name, value in plan.recipe.identity().items() if name not in FREE}
    fields |= {f"data.{name}": value for name, value in plan.data_config.identity().items()}
    fields |= {"seed": plan.seed, "data checksum": plan.data.checksum, "classes": tuple(plan.data.classes)}
    fields |= {_NETWORK: plan.network} if plan.network else {}
    return {name: str(value) for name, value in fields.items()}


def _check_same(now: Mapping[str, str], kept: Mapping[str, str], path: Path, *, unused: Sequence[str]) -> None:
    if _NETWORK not in now or _NETWORK not in kept:  # earlier versions did not write it down
        unused = (*unused, _NETWORK)
    for name in {**now, **kept}:
        if name not in unused and now.get(name) != kept.get(name):
            raise CheckpointError(
                f"a run must go on as it began, but {name} is {now.get(name)} and was {kept.get(name)} in "
                f"{path}; use another folder"
            )
