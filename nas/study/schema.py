"""The keys of a study file, each with its type, default, range and meaning.

Hydra needs mutable classes with loose types; `nas.study.study` makes frozen values of them once. The keys of data and
recipe are those of the frozen classes of `trainer.config` and `trainer.recipe`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, get_origin

from nas.study.fidelity import FIDELITIES
from nas.study.metric import CHOICES
from nas.study.plain import kinds_of, schema_of
from nas.study.views import Views
from trainer.config import DataConfig
from trainer.recipe import Recipe
from trainer.settings import declared, setting

SCHEDULERS = ("asha", "freeze_thaw", "hyperband", "iepoch", "none")
STEP_COSTS = ("epochs", "macs")
OrderBy = Literal["hypervolume", "fronts"]
DESIGNS = ("ofat", "leave_out", "factorial", "fractional", "path", "control")
MATCHES = ("none", "macs")
MOST = 10**9  # of anything that is counted; more is a slip, and would be waited for without end


if TYPE_CHECKING:  # made of the frozen classes when this is imported
    DataSchema: TypeAlias = Any
    RecipeSchema: TypeAlias = Any
    ViewsSchema: TypeAlias = Any
else:
    _CLASSES = setting(
        0, "Classes, so that costs are known without the data; 0 asks the data.", at_least=0, at_most=MOST
    )
    DataSchema = schema_of(DataConfig, after={"cache": ("num_classes", int, _CLASSES)})
    RecipeSchema, ViewsSchema = map(schema_of, (Recipe, Views))


@dataclass
class SpaceSchema:
    """`space`: the domains of the search, and the combinations that are never tried."""

    family: str = setting(
        "resnet",
        "The family, where there is one: `resnet`, `inception_v1`, `inception_v3`, `slowfast`, `x3d`, `timm`, `c3d`.",
    )
    domains: dict[str, Any] = setting(
        {}, "Domain to a list of values, or to `{values: […], per: network}` (or `stage`, `block`)."
    )
    forbid: list[Any] = setting(
        [],
        "Rules: domain to a value or a list. Forbidden is a network in which some block has all of a rule's values.",
    )
    families: dict[str, Any] = setting(
        {}, "Instead of the three above: family to its `domains` and `forbid`, for a search over several."
    )


@dataclass
class SearchSchema:
    """`search`: sampler, rungs and budget."""

    sampler: Any = setting(
        "pool",
        "`pool` (a model of errors, exact costs and rungs over a pool that is renewed); `random`; `tpe` (multivariate),"
        " `nsga2`, `gp`: these three are Optuna's. Or any class by name, alone or as a mapping with settings:"
        " `optuna:CmaEsSampler`, `hub:PACKAGE`, `nni:TPE`, `{optuna: TPESampler, multivariate: true, group: true}`; see"
        " [samplers by name](search.md#samplers-by-name).",
    )
    scheduler: str = setting(
        "asha",
        "Who trains on: `asha` (the best of each rung), `freeze_thaw` (the model of the sampler `pool` decides who"
        " starts and who trains on), `hyperband`, `iepoch` (all to the first rung, then the best in full), `none` (all"
        " in full).",
        choices=SCHEDULERS,
    )
    step_cost: str = setting(
        "epochs",
        "By what `freeze_thaw` divides what a step may gain: the `epochs` that its network still takes to the last"
        " rung, or those times the `macs` of training.",
        choices=STEP_COSTS,
    )
    trials: int = setting(27, "Networks to start in all, over all restarts.", at_least=1, at_most=MOST)
    initial: int = setting(
        9, "How many are spread evenly over log MACs before the sampler proposes.", at_least=0, at_most=MOST
    )
    fidelity: str = setting(
        "epochs",
        "What a rung has more of: `epochs`, `data`, `frames` or `size`; see [fidelities](search.md#fidelities).",
        choices=FIDELITIES,
    )
    rungs: list[Any] = setting(
        [1, 3, 9],
        "Ascending: epochs; or shares of the training videos up to 1, frames up to `data.clip.frames`, rows up to"
        " `data.clip.height`.",
    )
    epochs: int = setting(0, "Epochs of the training at each rung, where these are not epochs themselves.")
    max_epochs: int = setting(
        0,
        "Epochs to train in all, over all restarts; 0 is what halving takes for `search.trials` networks, for `asha`,"
        " `hyperband`, `iepoch` and `none` no limit.",
        at_least=0,
        at_most=MOST,
    )
    patience: int = setting(
        0,
        "A search by the sampler `pool` ends after this number of steps in a row that were each expected to add less"
        " than 0.5 % of the hypervolume; 0 goes on to the end of the budget.",
        at_least=0,
        at_most=MOST,
    )
    eta: int = setting(3, "One in eta goes on.", at_least=2, at_most=MOST)
    order: str = setting(
        "hypervolume",
        "What ranks a rung: `hypervolume` (what a network adds to it) or `fronts` (with an epsilon-net inside).",
        choices=get_args(OrderBy),
    )
    strata: int = setting(
        1,
        "Classes of equal width in log MACs that take turns in promotion; 1 turns it off.",
        at_least=1,
        at_most=1_000,
    )
    objectives: list[str] = setting(
        ["error", "macs"],
        "One to three [objectives](search.md#objectives), the first an accuracy: `error` (by `search.accuracy`), or"
        " `top1`, `top5`, `balanced`, `map`; then any of these, `motion_gap`, `macs`, `params`, `activation_bytes`.",
    )
    pool: int = setting(
        4000, "A larger space is represented by this number of networks, drawn at random.", at_least=1, at_most=MOST
    )
    start_with: list[Any] = setting(
        [],
        "Networks that are tried first: published ones by name (`nas presets` lists them), or settings such as"
        " `{family: resnet, kind: 2d}`.",
    )
    workers: int = setting(
        0, "Processes that train; 0 trains in the driver. `--workers` goes first.", at_least=0, at_most=MOST
    )
    accuracy: str = setting(
        "auto",
        "What networks are chosen by: `top1`; `balanced`, the mean over classes of top-1, for data with frequent and"
        " rare classes; `top5`; `map`, for several labels per video; `auto` is `map` with several labels, else `top1`.",
        choices=CHOICES,
    )
    features: list[str] = setting(
        [],
        "Scores of untrained networks that the model of the sampler `pool` sees: `params`, `synflow`, `naswot`, `zico`,"
        " `entropy`, `temporal`, and after `nas supernet` also `supernet`, `supernet_darts`; see"
        " [features](search.md#features).",
    )
    repeats: int = setting(
        0,
        "Further trainings, each with another seed, that the scheduler `freeze_thaw` may give a network of the front,"
        " where that is expected to be worth more than any other step; see [repeats](search.md#repeats). They count"
        " among `search.trials`.",
        at_least=0,
        at_most=100,
    )
    logs: list[str] = setting(
        [],
        "Results of the search for other programs, in a folder beside the database: `csv`, `tensorboard`, `mlflow`,"
        " `wandb`.",
    )


@dataclass
class PromoteSchema:
    """`promote`: full training. `recipe` lays over the search's recipe."""

    epochs: int = setting(30, "Epochs of full training.", at_least=1, at_most=MOST)
    seeds: int = setting(1, "Trainings of each network. `--seeds` goes first.", at_least=1, at_most=MOST)
    recipe: dict[str, Any] = setting({}, "Keys of `recipe`, laid over the search's.")
    test: ViewsSchema = field(default_factory=ViewsSchema)
    devices: int = setting(
        1,
        "Processes that train one network together, one a GPU; 0 takes all visible GPUs. Without a GPU, that number of"
        " processes on the CPU. `--devices` goes first. See [recipes](recipes.md).",
        at_least=0,
        at_most=MOST,
    )
    checkpoint_steps: int = setting(
        0,
        "Steps between checkpoints within an epoch; 0 writes one at the end of each epoch only.",
        at_least=0,
        at_most=MOST,
    )
    keep_best: bool = setting(
        False,
        "Also keep `training/best.pt`, the weights of the epoch that is best on val. What is tested are the last ones.",
    )
    patience: int = setting(
        0,
        "Epochs in a row that are not better on val than one before, after which training ends; the weights of the best"
        " epoch are tested then. 0 trains for all epochs.",
        at_least=0,
        at_most=MOST,
    )
    logs: list[str] = setting([], "Beside `progress.jsonl`: `csv`, `tensorboard`, `mlflow`, `wandb`.")


@dataclass
class AblationSchema:
    """`ablation`: which decisions are compared, and when an answer counts. `recipe` lays over the search's recipe."""

    base: Any = setting(
        "", "What is changed: a preset, a digest of the study, a `.json` file, or settings with `preset` or `family`."
    )
    to: Any = setting("", "Where a path ends, written as the base is.")
    design: str = setting(
        "ofat", "`ofat`, `leave_out`, `factorial`, `fractional`, `path` or `control`.", choices=DESIGNS
    )
    factors: dict[str, Any] = setting(
        {},
        "What is varied: from a domain, a path in the spec, `network`, `recipe.KEY` or `data.KEY` to its levels. With"
        " `ofat`, none stands for the domains of the space.",
    )
    against: dict[str, Any] = setting(
        {},
        "With `ofat`: from a factor to the level that its other levels, and the base's own, are compared with;"
        " `{kind: 2d}`.",
    )
    orders: int = setting(1, "Orders in which a path makes its changes.", at_least=1)
    fraction: int = setting(2, "Of a fractional factorial, one in this many combinations; a power of 2.", at_least=2)
    match: str = setting(
        "none",
        "`macs` gives every arm the width at which it costs what the base costs, within 2 %.",
        choices=MATCHES,
    )
    control: bool = setting(True, "Train the base again with other seeds, as a level that must not differ.")
    seeds: int = setting(5, "Pairs of trainings at most; pair i has seed `seed` + i.", at_least=2)
    min_seeds: int = setting(3, "Pairs before the first look, where there are several.", at_least=2)
    looks: int = setting(1, "How often is looked whether the answer is in; the error is spread over them.", at_least=1)
    epochs: int = setting(0, "Of each training; those of the last rung where it is 0.", at_least=0)
    recipe: dict[str, Any] = setting(
        {}, "Keys laid over `recipe`; a `schedule` that ends does so after `ablation.epochs`."
    )
    margin: float = setting(0.01, "Differences within it do not matter; 0.01 is one point of top-1.", above=0, below=1)
    confidence: float = setting(0.95, "Confidence of the intervals.", above=0, below=1)
    precision: float = setting(0.0, "Half-width of the intervals at which training ends; 0 for never.", at_least=0)
    motion: bool = setting(
        False,
        "Also measure every trained network on reversed, shuffled, frozen and single frames"
        " ([motion-tests.md](motion-tests.md)).",
    )
    claims: list[Any] = setting(
        [],
        "Published comparisons for `nas verdict`: `claim`, `document`, `arm`, `than`, `expect`, `stated` (in points).",
    )


@dataclass
class StudySchema:
    """A whole study file."""

    name: str = setting("", "Letters, digits, `.`, `_`, `-`; names `runs/<name>/`. Empty: the file's name.")
    question: str = setting("", "What is asked. This and the next four are recorded and not interpreted.")
    hypothesis: str = setting("", "What is expected.")
    baseline: str = setting("", "What the result is held against.")
    decision_rule: str = setting("", "Which outcome would settle it; written before the search.")
    budget: str = setting("", "Networks and epochs in words.")
    # Further trainings take the seeds after it, and a database holds none from 2**63 on.
    seed: int = setting(0, "Seeds the pool, the sampler and every training of the search.", at_least=0, at_most=10**18)
    data: DataSchema = field(default_factory=DataSchema)
    space: SpaceSchema = field(default_factory=SpaceSchema)
    constraints: list[str] = setting(
        [],
        "`macs <= 5G`, `params <= 30M`, `activation_bytes <= 2G`: of one clip, exact; units k, M, G, T."
        " `accuracy >= 0.8`, or another [objective](search.md#objectives) that is measured: what a network must have to"
        " be on the front, a share of 1.",
    )
    recipe: RecipeSchema = field(default_factory=RecipeSchema)
    search: SearchSchema = field(default_factory=SearchSchema)
    promote: PromoteSchema = field(default_factory=PromoteSchema)
    ablation: AblationSchema = field(default_factory=AblationSchema)
    variants: dict[str, Any] = setting({}, "Name to settings that `data=NAME` lays over the file.")


_WORDS = {str: "text", int: "integer", float: "number", bool: "true/false", list: "list", dict: "map"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key of a study file.

    Attributes:
        name: With dots, such as `recipe.lr`.
        kind: Its type in words, with the range of its values.
        default: As YAML has it.
        text: What it means, in Markdown.
    """

    name: str
    kind: str
    default: str
    text: str

    @property
    def row(self) -> str:
        """The row of a table in Markdown."""
        return f"| `{self.name}` | {self.kind} | `{self.default}` | {self.text} |"


def keys_of(schema: Any = None, prefix: str = "") -> Iterator[Key]:
    """Yields all keys in the order of the schema.

    Args:
        schema: An object of a class of this module; by default that of a whole study.
        prefix: What its keys are named after, such as `recipe.`.
    """
    schema = StudySchema() if schema is None else schema
    of: Any = type(schema)
    kinds, marks = kinds_of(of), declared(of)
    for one in fields(schema):
        usual = getattr(schema, one.name)
        if is_dataclass(usual):
            yield from keys_of(usual, f"{prefix}{one.name}.")
            continue
        mark = marks[one.name]
        rule = f", {mark.rule}" if mark.has_range else ""
        yield Key(
            name=f"{prefix}{one.name}",
            kind=_words(kinds[one.name], usual) + rule,
            default=_yaml(usual),
            text=mark.text,
        )


def _words(kind: Any, usual: Any) -> str:
    if get_origin(kind) is UnionType:
        return f"{' or '.join(_WORDS[part] for part in get_args(kind) if part is not NoneType)} or null"
    return _WORDS[type(usual) if kind is Any else get_origin(kind) or kind]


def _yaml(value: Any) -> str:
    """A default as somebody would write it: texts without quotes where they need none."""
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, float) and "e" in str(value) and "." not in str(value):
        return str(value).replace("e", ".0e")  # YAML 1.1 takes 1e-08 for a text
    return value if isinstance(value, str) and value else json.dumps(value)
