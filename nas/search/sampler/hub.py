"""Sampler classes of OptunaHub, or of a folder that is laid out like it. To load one is to run its code.

`optunahub`, an extra, is imported here alone.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from urllib.request import getproxies

from optuna.samplers import BaseSampler

from nas.errors import StudyError, one_line, unknown

_KEY = "search.sampler"
_OURS = ("path", "ref", "class")
_HOST = "github.com"
_WAIT = 3.0  # seconds for the hub to answer


def class_of(package: str, settings: Mapping[str, Any]) -> tuple[type[BaseSampler], dict[str, Any]]:
    """The sampler class of a package, and the settings that are the class's.

    Args:
        package: Such as `samplers/auto_sampler`; `samplers/` may be left out.
        settings: As stated: `path` is a folder of packages, `ref` a version of the hub, `class` tells several classes
            of a package apart.

    Raises:
        StudyError: optunahub is not installed, the hub or the folder cannot be read, or the package has no such class.
    """
    own = {name: settings[name] for name in _OURS if name in settings}
    for key, value in own.items():
        if not isinstance(value, str) or not value:
            raise StudyError(f"{_KEY}.{key} must be text, but is {value!r}")
    module = _local(package, Path(own["path"]).expanduser()) if "path" in own else _fetched(package, own.get("ref"))
    found = _classes(module)
    if not found:
        raise StudyError(f"{_KEY} hub:{package} must have a class of optuna.samplers.BaseSampler, but has none")
    name: str | None = own.get("class") or (next(iter(found)) if len(found) == 1 else None)
    if name is None:
        raise StudyError(f"{_KEY} hub:{package} has several samplers, so class must be one of {', '.join(found)}")
    if name not in found:
        raise StudyError(unknown(f"{_KEY}.class", name, found))
    return found[name], {key: value for key, value in settings.items() if key not in _OURS}


def _classes(module: ModuleType) -> dict[str, type[BaseSampler]]:
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    members = {name: getattr(module, name, None) for name in names}
    return {
        name: of
        for name, of in members.items()
        if inspect.isclass(of)
        and issubclass(of, BaseSampler)
        and not inspect.isabstract(of)
        and of.__module__.startswith(module.__name__)
    }


def _optunahub(package: str) -> Any:
    try:
        import optunahub
    except ImportError as error:
        raise StudyError(f"{_KEY} hub:{package} needs optunahub: pip install 'video-nas[hub]'") from error
    return optunahub


def _local(package: str, root: Path) -> ModuleType:
    hub = _optunahub(package)
    folder = root / package
    if not (folder / "__init__.py").is_file():
        beside = sorted(path.parent.name for path in root.glob("*/__init__.py"))[:8] if root.is_dir() else []
        raise StudyError(
            f"{_KEY}.path must be a folder with {package}/__init__.py, but {root} has none "
            f"(packages there: {', '.join(beside) or 'none'})"
        )
    try:
        return cast(ModuleType, hub.load_local_module(package, registry_root=str(root)))
    except (Exception, SystemExit) as error:
        raise StudyError(f"{_KEY}: {folder} cannot be loaded: {_told(error)}") from error


def _fetched(package: str, ref: str | None) -> ModuleType:
    hub = _optunahub(package)
    package = package if "/" in package else f"samplers/{package}"
    if not _cached(hub, package, ref or "main") and not _reachable():
        raise StudyError(
            f"{_KEY} hub:{package} cannot be had, since {_HOST} cannot be reached; a copy of the hub can be named as "
            f"{{hub: {package}, path: FOLDER}}"
        )
    asks = os.environ.get("GIT_TERMINAL_PROMPT")
    os.environ["GIT_TERMINAL_PROMPT"] = "0"  # a hub that asks for a password is no hub that can be read
    try:
        return cast(ModuleType, hub.load_module(package, **({"ref": ref} if ref else {})))
    except (Exception, SystemExit) as error:
        raise StudyError(f"{_KEY} hub:{package} cannot be loaded from {_HOST}: {_told(error)}") from error
    finally:
        if asks is None:
            del os.environ["GIT_TERMINAL_PROMPT"]
        else:
            os.environ["GIT_TERMINAL_PROMPT"] = asks


def _cached(hub: Any, package: str, ref: str) -> bool:
    try:
        home = Path(hub._conf.cache_home())
    except AttributeError:  # another version keeps its copies elsewhere
        return False
    return (home / _HOST / "optuna" / "optunahub-registry" / ref / "package" / package).is_dir()


def _reachable() -> bool:
    if "https" in getproxies():  # git asks it
        return True
    try:
        with socket.create_connection((_HOST, 443), timeout=_WAIT):
            return True
    except OSError:
        return False


def _told(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}", 200)
