"""State dicts of image networks, from a file or by name from a hub; what they hold is a sum that can be checked."""

from __future__ import annotations

import hashlib
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.spec import SpecError, nearest

_WRAPPERS = ("state_dict", "model")  # keys under which training scripts keep the weights


def read_weights(source: str) -> dict[str, Tensor]:
    """Reads the state dict of an image network.

    Args:
        source: A file that torch.save or safetensors wrote, or `timm:NAME` or `torchvision:NAME` for the pretrained
            weights of that name, which are downloaded unless this machine has them.

    Raises:
        SpecError: There is no such file or name, it cannot be read or downloaded, or it does not hold named tensors.
    """
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


def checksum(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of names, types, shapes and values: equal for equal weights, whichever file they are in."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _read_file(path: Path) -> Any:
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
        raise ValueError("it is damaged, or holds pickled objects other than tensors, which are not loaded") from error


def _named_tensors(content: Any, source: str) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise SpecError(f"{source} must hold tensors by name, but holds {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise SpecError(f"{source} must hold tensors by name, but {name} is {type(value).__name__}")
    # DataParallel's prefix
    cut = len("module.") if all(name.startswith("module.") for name in content) else 0
    return {name[cut:]: value for name, value in content.items()}


def _from_timm(name: str) -> dict[str, Tensor]:
    import timm

    if not timm.is_model(name):
        raise SpecError(f"timm has no model {name}{nearest(name, timm.list_models())}")
    return dict(timm.create_model(name, pretrained=True).state_dict())


def _from_torchvision(name: str) -> dict[str, Tensor]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise SpecError(f"torchvision has no image model {name}{nearest(name, known)}")
    return dict(models.get_model(name, weights="DEFAULT").state_dict())


_HUBS: dict[str, Callable[[str], dict[str, Tensor]]] = {"timm": _from_timm, "torchvision": _from_torchvision}


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
