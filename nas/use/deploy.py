"""A trained network as a file for other programs: ONNX, an exported program of torch, or plain source.

What a file computes is held against the network before the file gets its name: on the videos of val where they are at
hand, else on noise.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from pprint import pformat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import NasError
from nas.study.views import usual_views
from nas.train.network import TrainedNetwork
from nas.use.multi_view import Progress, score
from nas.use.onnx_network import FORMAT, KEY, MOST_BYTES, Called, Form, Run, bytes_of, line_of, session_of
from trainer.config import ConfigError, DataConfig
from trainer.data.augment import normalisation
from trainer.data.clips import VideoData
from trainer.files import part_of

_CLOSE, _CLOSE_HALF = 1e-4, 2e-2  # what probabilities may differ by
_NOISE = 4  # clips, where there are no videos


class Shipped(nn.Module):
    """A trained network as its file computes it.

    Args:
        network: The network; `form.half` changes a copy of it.
        form: How it is deployed.
    """

    def __init__(self, network: TrainedNetwork, form: Form) -> None:
        super().__init__()
        self.model = network.model.half() if form.half else network.model
        self.half_precision, self.bytes = form.half, form.uint8
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1, 1) for values in normalisation(network.data))
        self.factor: Tensor
        self.shift: Tensor
        self.register_buffer("factor", 1 / (255 * std), persistent=form.uint8)
        self.register_buffer("shift", -mean / std, persistent=form.uint8)

    def forward(self, clip: Tensor) -> Tensor:
        """Maps clips to logits (N, K), float32."""
        if self.bytes:
            clip = clip.permute(0, 4, 1, 2, 3).float() * self.factor + self.shift
        logits: Tensor = self.model(clip.half() if self.half_precision else clip)
        return logits.float() if self.half_precision else logits


def facts_of(network: TrainedNetwork, form: Form) -> dict[str, Any]:
    """What a file says of itself: classes, how clips are taken from a video, what its input is."""
    mean, std = normalisation(network.data)
    data = {**asdict(network.data), "root": "", "cache": "", "annotations": "", "exclude": "", "definition": ""}
    kept = ("digest", "multi_label", "seed", "epochs", "checksum")
    return {
        "format": FORMAT,
        "made_by": f"video-nas {version('video-nas')}, torch {torch.__version__}",
        "network": network.spec.describe(),
        "classes": list(network.class_names),
        "input": "uint8 (N, T, H, W, C), frames as decoded" if form.uint8 else "float32 (N, C, T, H, W), normalised",
        "output": "logits (N, K) of a sigmoid" if network.multi_label else "logits (N, K) of a softmax",
        "mean": list(mean),
        "std": list(std),
        "form": asdict(form),
        "data": data,
        "views": asdict(network.views),
        "record": {key: network.record[key] for key in kept if key in network.record},
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How a file compares with its network.

    Attributes:
        videos: Videos of val that both saw; 0 if it was noise.
        clips: Clips of noise that both saw.
        difference: The largest difference of a probability.
        equal: Videos or clips with the same most probable class.
    """

    videos: int
    clips: int
    difference: float
    equal: int


def deploy(
    network: TrainedNetwork,
    file: Path,
    kind: str,
    form: Form,
    *,
    data: tuple[VideoData, DataConfig] | None,
    progress: Progress = lambda done, total: None,
) -> Agreement:
    """Writes a network as a file that other programs run, and makes sure that it computes the same.

    Args:
        network: On the CPU, in evaluation mode.
        file: Where to; it is there only once it has been checked. `source` writes `<file>.pt` beside it.
        kind: `onnx`, `pt2` or `source`.
        form: How.
        data: Videos with a split val to check it on, and how clips are taken from them; noise where there are none.
        progress: Hears (videos done, videos in all).

    Raises:
        NasError: A package is missing, the network cannot be written in this form, or its file computes something else.
        ConfigError: The form does not go together with the network.
    """
    if form.uint8 and network.data.input == "difference":
        raise ConfigError("--uint8 takes frames, but the network sees their differences; leave it out")
    if form.half and kind == "source":
        raise ConfigError("--half must go with --onnx or --pt2, but not with --source; leave it out")
    facts = facts_of(network, form)
    expected = _outputs(network, Form(), network, data, progress)
    shipped = Shipped(network, form).eval()
    frames, clip = network.data.clip.frames, network.data.clip
    shape = (frames, clip.height, clip.width, network.data.planes)
    many = form.batch or 2
    example = torch.zeros(many, *shape, dtype=torch.uint8) if form.uint8 else torch.zeros(many, shape[3], *shape[:3])
    part = part_of(file)
    extra = part_of(file.with_suffix(".pt"))
    try:
        with _quiet(), torch.no_grad():
            run = _WRITERS[kind](shipped, example, form, facts, part, extra)
        try:
            found = _outputs(run, form, network, data, lambda done, total: None)
        except (RuntimeError, NotImplementedError) as error:  # such as float16 that the CPU cannot compute
            raise NasError(f"the {kind} file cannot be run here, so it was not kept: {line_of(error)}") from error
        agreement = _compared(expected, found, videos=data is not None)
        if not agreement.difference <= (_CLOSE_HALF if form.half else _CLOSE):  # NaN is no agreement
            raise NasError(
                f"the {kind} file must compute what the network does, but a probability differs by "
                f"{agreement.difference:.2g}; nothing was written"
            )
        if kind == "source":
            file.unlink(missing_ok=True)  # never beside weights of another network
            extra.replace(file.with_suffix(".pt"))
        part.replace(file)
        return agreement
    finally:
        part.unlink(missing_ok=True)
        extra.unlink(missing_ok=True)


def _outputs(
    run: Run, form: Form, network: TrainedNetwork, data: tuple[VideoData, DataConfig] | None, progress: Progress
) -> NDArray[np.float64]:
    """Probabilities (videos or clips, K) by whatever maps clips to logits."""
    if data is not None:
        opened, config = data
        found = score(
            Called(run, form, network.data),
            opened,
            config,
            usual_views(config),
            "val",
            classes=network.class_names,
            batch_size=form.batch or 4,
            several=network.multi_label,
            progress=progress,
        )
        return np.asarray(found.probabilities, dtype=np.float64)
    generator, clip = torch.Generator().manual_seed(0), network.data.clip
    clips = torch.randn(_NOISE, network.data.planes, clip.frames, clip.height, clip.width, generator=generator)
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1, 1) for values in normalisation(network.data))
    clips = (bytes_of(clips, mean, std).float() / 255 - mean) / std  # such as frames can give
    with torch.inference_mode():
        logits = torch.cat([Called(run, form, network.data)(one[None]) for one in clips]).float()
    return np.asarray((logits.sigmoid() if network.multi_label else logits.softmax(1)).double())


def _compared(expected: NDArray[np.float64], found: NDArray[np.float64], *, videos: bool) -> Agreement:
    same = int((expected.argmax(1) == found.argmax(1)).sum())
    return Agreement(
        videos=len(expected) if videos else 0,
        clips=0 if videos else len(expected),
        difference=float(np.abs(expected - found).max()),
        equal=same,
    )


def _exported(module: nn.Module, example: Tensor, form: Form) -> torch.export.ExportedProgram:
    shapes = None if form.batch else ({0: torch.export.Dim("batch", min=1)},)
    try:
        exported = torch.export.export(module, (example,), dynamic_shapes=shapes)
        _forget_places(exported.graph_module)
        return exported
    except Exception as error:  # of what the network is made of
        raise NasError(f"torch cannot export the network: {line_of(error)}; try --batch 1") from error


def _forget_places(graph: torch.fx.GraphModule) -> None:
    """Takes out where each line of code lies on this machine."""
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
                node.meta.pop(key, None)


def _write_onnx(
    module: nn.Module, example: Tensor, form: Form, facts: Mapping[str, Any], part: Path, extra: Path
) -> Run:
    try:
        import onnx
        import onnxruntime  # noqa: F401  # looked for before the export, which takes longer
    except ImportError as error:
        raise NasError(f"--onnx needs {error.name}: pip install 'video-nas[deploy]'") from error
    model = _onnx_of(module, example, form)
    if model.ByteSize() > MOST_BYTES:
        size = model.ByteSize() / 2**30
        raise NasError(f"an ONNX file holds at most 2 GiB, but this one is {size:.1f} GiB; try --pt2")
    onnx.helper.set_model_props(model, {KEY: json.dumps(facts)})
    part.write_bytes(model.SerializeToString())
    return session_of(part.read_bytes())


def _onnx_of(module: nn.Module, example: Tensor, form: Form) -> Any:
    exported = _exported(module, example, form)
    try:
        program = torch.onnx.export(exported, dynamo=True, input_names=["clip"], output_names=["logits"], verbose=False)
        assert program is not None
        model = program.model_proto
        for node in model.graph.node:
            del node.metadata_props[:]
        return model
    except Exception as error:
        raise NasError(f"the network cannot be written as ONNX: {line_of(error)}; try --pt2") from error


def onnx_bytes(model: nn.Module, shape: tuple[int, int, int, int], batch: int) -> bytes:
    """A network as ONNX for a number of clips (C, T, H, W) at once, unchecked; to be timed.

    Raises:
        NasError: A package is missing, or it cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise NasError(f"--engine onnxruntime needs {error.name}: pip install 'video-nas[deploy]'") from error
    with _quiet(), torch.no_grad():
        content: bytes = _onnx_of(model.eval(), torch.zeros(batch, *shape), Form(batch=batch)).SerializeToString()
    return content


def _write_pt2(
    module: nn.Module, example: Tensor, form: Form, facts: Mapping[str, Any], part: Path, extra: Path
) -> Run:
    exported = _exported(module, example, form)
    content = io.BytesIO()
    torch.export.save(exported, content, extra_files={f"{KEY}.json": json.dumps(facts)})
    part.write_bytes(content.getvalue())
    loaded = torch.export.load(io.BytesIO(part.read_bytes())).module()  # written a moment ago, so it may be loaded
    return lambda clips: loaded(clips)


def _write_source(
    module: nn.Module, example: Tensor, form: Form, facts: Mapping[str, Any], part: Path, extra: Path
) -> Run:
    graph = _exported(module, example, form).module()
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    for node in reversed(list(graph.graph.nodes)):
        # Checks of the input's shape, and counts of batches, which nothing needs in evaluation.
        if node.op in ("call_module", "get_attr") and not node.users:
            graph.graph.erase_node(node)
        elif node.op == "call_function" and "_assert_tensor_metadata" in str(node.target):
            graph.graph.erase_node(node)  # of the device that it was exported on
        elif node.op == "output":
            node.args = (node.args[0][0],)  # the logits alone, not a tuple of them
    graph.recompile()
    body = re.sub(r";  .* = None$", "", graph.code, flags=re.MULTILINE)
    body = body[body.index("def forward") :]
    body = re.sub(r"\bgetattr\(", "_part(", body)
    body = re.sub(r"device\(type='cpu'\)", "clip.device", body)
    body = re.sub(r";  clip = None$", "", body, flags=re.MULTILINE)
    used = dict.fromkeys(str(node.target) for node in graph.graph.nodes if node.op == "get_attr")
    state: dict[str, Tensor] = {name: attrgetter(name)(graph) for name in used}
    text = _SOURCE.format(
        facts=pformat(dict(facts), width=110, sort_dicts=False),
        network=str(facts["network"]).replace("\\", "/").replace('"', "'"),
        input=facts["input"],
        tensors="".join(f"    {name!r}: ({tuple(value.shape)}, {value.dtype}),\n" for name, value in state.items()),
        forward="".join(f"    {line}\n" if line.strip() else "\n" for line in body.strip().splitlines()),
    )
    part.write_text(text, encoding="utf-8")
    content = io.BytesIO()
    torch.save({name: value.detach().clone() for name, value in state.items()}, content)
    extra.write_bytes(content.getvalue())
    names: dict[str, Any] = {"__name__": "deployed"}
    exec(compile(text, part.name, "exec"), names)  # what was written a moment ago
    network = names["load"](extra)
    return lambda clips: network(clips)


_SOURCE = '''"""{network}

Input: {input}. Needs torch alone; the weights lie beside this file.

    network = load("FILE.pt")
    logits = network(clips)
"""

import torch
from torch import device, inf, nan  # noqa: F401

FACTS = {facts}

TENSORS = {{
{tensors}}}


def _part(module, name):
    return getattr(module, name)


class Network(torch.nn.Module):
    """The layers, with the names of their tensors; in evaluation alone."""

    def __init__(self):
        super().__init__()
        for path, (shape, kind) in TENSORS.items():
            *parents, name = path.split(".")
            module = self
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, torch.nn.Module())
                module = module._modules[parent]
            module.register_buffer(name, torch.empty(shape, dtype=kind))

{forward}

def load(weights):
    """Builds the network with the weights of a file."""
    network = Network()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()
'''

_WRITERS = {"onnx": _write_onnx, "pt2": _write_pt2, "source": _write_source}
KINDS = tuple(_WRITERS)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
