"""State dicts from a file, or by name from a hub; what they hold is a sum that can be checked."""

from __future__ import annotations

import hashlib
import pickle
import re
import socket
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from search_spaces.errors import SpecError, nearest

if TYPE_CHECKING:
    from torch import Tensor

_PATIENCE = 5  # seconds until a hub that does not answer counts as away
_WRAPPERS = ("state_dict", "model_state", "model")  # keys under which training scripts keep the weights


def read_weights(source: str) -> dict[str, Tensor]:
    """Reads the state dict of a network.

    Args:
        source: A file that torch.save or safetensors wrote, or `timm:NAME` or `torchvision:NAME` for the pretrained
            weights of that name, which are downloaded unless this machine has them.

    Raises:
        SpecError: There is no such file or name, it cannot be read or downloaded, or it does not hold named tensors.
    """
    import torch

    hub, colon, name = source.partition(":")
    if colon and hub in _HUBS:
        try:
            with torch.random.fork_rng(devices=[]):  # the model is built first, and draws values that nobody wants
                return _HUBS[hub](name)
        except SpecError:
            raise
        except Exception as error:  # the hubs raise whatever their clients raise
            raise SpecError(f"the weights {source} cannot be had from their hub: {_line(error)}") from error
    path = Path(source)
    if not path.exists():
        raise SpecError(f"there is no file {source} with weights (names on a hub begin with timm: or torchvision:)")
    return read_tensors(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file by name; no code in it runs.

    Args:
        path: A file that torch.save or safetensors wrote; of one that a training script kept, the weights within.

    Raises:
        SpecError: It is no regular file, is damaged, holds code or compressed parts, or does not hold named tensors.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no regular file")
        content = _read_file(path)
    except Exception as error:  # damaged files raise anything, from EOFError to KeyError
        raise SpecError(f"{path} must hold weights that torch.save or safetensors wrote, but {_line(error)}") from error
    return _named_tensors(content, str(path))


def check_source(source: str) -> None:
    """Makes sure that weights can be there, without torch and without a look into them.

    Args:
        source: As for `read_weights`.

    Raises:
        SpecError: There is no such file, or the hub's package has no such model.
    """
    hub, colon, name = source.partition(":")
    if not colon or hub not in _HUBS:
        if not Path(source).is_file():
            raise SpecError(f"there is no file {source} with weights (names on a hub begin with timm: or torchvision:)")
        return
    known, texts = _models(hub)
    stem = name.partition(".")[0]
    # Old names of models stand in quotes; what is called otherwise, only the package itself can know.
    if known and stem not in known and f'"{stem}"' not in texts and f"'{stem}'" not in texts:
        raise SpecError(f"{hub} has no model {name}{nearest(name, known)}")


@cache
def _models(hub: str) -> tuple[tuple[str, ...], str]:
    """The names of the functions that a package registers as models, and its source; neither where it is missing."""
    spec = find_spec(hub)
    if spec is None or not spec.submodule_search_locations:
        return (), ""
    files = sorted(Path(spec.submodule_search_locations[0], "models").rglob("*.py"))
    texts = "\n".join(file.read_text("utf-8", errors="replace") for file in files)
    return tuple(
        re.findall(r"^@register_model\b[^\n]*\n(?:@[^\n]*\n|[ )][^\n]*\n)*def (\w+)", texts, re.MULTILINE)
    ), texts


def checksum(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of names, types, shapes and values: equal for equal weights, whichever file they are in."""
    import torch

    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _read_file(path: Path) -> Any:
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch.save never compresses, nor marks its entries; a few bytes may unpack to more than a machine holds.
            if any(part.compress_size != part.file_size or part.external_attr for part in archive.infolist()):
                raise zipfile.BadZipFile("its table of contents is not one that torch.save writes")
            bad = archive.testzip()  # torch writes checksums but does not look at them
        if bad is not None:
            raise zipfile.BadZipFile(f"the checksum of {bad} is wrong")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch on strange pickles, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Not torch's own words, which say how to run such code.
        raise ValueError(
            "it is damaged, or holds pickled objects other than tensors, which are not loaded (docs/weights.md says "
            "how to keep the tensors of a checkpoint alone)"
        ) from error


def _named_tensors(content: Any, source: str) -> dict[str, Tensor]:
    import torch

    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise SpecError(f"{source} must hold tensors by name, but holds {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not name.isprintable():
            raise SpecError(f"{source} must hold tensors by name, but one name is {ascii(name)[:50]}")
        if not isinstance(value, torch.Tensor):
            raise SpecError(f"{source} must hold tensors by name, but {name} is {type(value).__name__}")
        odd = value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex()
        if odd or value.is_conj() or value.is_neg():
            raise SpecError(f"{source} must hold tensors of plain numbers, but {name} is none")
    # DataParallel's prefix
    cut = len("module.") if all(name.startswith("module.") for name in content) else 0
    return {name[cut:]: value for name, value in content.items()}


def _from_timm(name: str) -> dict[str, Tensor]:
    import timm

    if not timm.is_model(name):
        raise SpecError(f"timm has no model {name}{nearest(name, timm.list_models())}")
    with _hub_as_it_is():
        return dict(timm.create_model(name, pretrained=True).state_dict())


@contextmanager
def _hub_as_it_is() -> Iterator[None]:
    """Lets the hub's client know where the hub cannot be reached, which it would find out by a minute of retries.

    What this machine has of it is used all the same.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    """Whether a server answers at all; of what lies behind a proxy nothing is known, so it is taken to."""
    place = urlsplit(address)
    if getproxies():
        return True
    try:
        socket.create_connection((place.hostname or "", place.port or 443), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _from_torchvision(name: str) -> dict[str, Tensor]:
    from torchvision import models

    known = [*models.list_models(module=models), *models.list_models(module=models.video)]
    if name not in known:
        raise SpecError(f"torchvision has no model of images or videos {name}{nearest(name, known)}")
    from torch import hub

    address = models.get_model_weights(name).DEFAULT.url
    kept = Path(hub.get_dir(), "checkpoints", Path(urlsplit(address).path).name)
    if not kept.exists() and not _reachable(address):  # torchvision's own client waits without end
        raise SpecError(f"the weights torchvision:{name} cannot be had: their hub cannot be reached")
    return dict(models.get_model(name, weights="DEFAULT").state_dict())


_HUBS: dict[str, Callable[[str], dict[str, Tensor]]] = {"timm": _from_timm, "torchvision": _from_torchvision}


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
