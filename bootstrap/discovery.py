"""Finds what the application has: its routers and controllers, its models, and its folder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from core.controller import Controller
from core.errors import RouteError, StartError, TopicError
from core.router import Router

if TYPE_CHECKING:
    from types import ModuleType


def discover(package: str = "app.routers") -> Router:
    """Import every module of ``package``, in order of their names, and give one router with the routes of all.

    Modules whose name begins with ``_`` are passed over. Raises StartError, with the module's own error as its cause
    where importing it failed, and RouteError or TopicError for routes that do not go together.
    """
    try:
        found = importlib.import_module(package)
    except ImportError as error:
        raise StartError(f"the package {package} cannot be imported: {error}") from error
    folder = Path(next(iter(found.__path__), package))
    names = sorted(module.name for module in pkgutil.iter_modules(found.__path__) if not module.name.startswith("_"))
    router = Router()
    for name in names:
        file = folder / f"{name}.py"
        try:
            module = importlib.import_module(f"{package}.{name}")
        except (RouteError, TopicError):
            raise
        except Exception as error:
            raise StartError(f"the router module {file} cannot be imported: {type(error).__name__}: {error}") from error
        theirs = getattr(module, "router", None)
        if not isinstance(theirs, Router):
            raise StartError(f"the router module {file} has no `router`; write: router = Router()")
        router.include(theirs)
    if not router.routes:
        raise StartError(f"there is no route in {folder}; write a module there with: router = Router(); router.on(...)")
    return router


def controllers(package: str = "app.controllers") -> list[type[Controller]]:
    """Import every module of ``package``, which need not be there, and give the controllers that they define.

    Raises StartError for a module that cannot be imported.
    """
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{package}.".startswith(f"{error.name}."):
            raise StartError(f"the package {package} cannot be imported: {error}") from error
        return []
    defined: list[type[Controller]] = []
    for name in sorted(module.name for module in pkgutil.iter_modules(found.__path__) if not module.name.startswith("_")):
        module = _module(f"{package}.{name}")
        defined += [
            value
            for _, value in inspect.getmembers(module, inspect.isclass)
            if issubclass(value, Controller) and value.__module__ == module.__name__
        ]
    return defined


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (RouteError, TopicError):
        raise
    except Exception as error:
        raise StartError(f"the module {name} cannot be imported: {type(error).__name__}: {error}") from error


def import_models(package: str = "app.models") -> None:
    """Import all modules of ``package``, so that their tables are known. Raises StartError."""
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__):
        try:
            importlib.import_module(f"{package}.{module.name}")
        except Exception as error:
            raise StartError(
                f"the model module {package}.{module.name} cannot be imported: {type(error).__name__}: {error}"
            ) from error


def project_folder(package: str = "app") -> Path:
    """Give the folder that holds ``package``, and beside it ``migrations/``."""
    return Path(next(iter(importlib.import_module(package).__path__))).parent
