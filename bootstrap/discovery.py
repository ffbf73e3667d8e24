"""What an application consists of: its routers, its controllers, its models, and its folder."""

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
    """Import every module of ``package`` in the order of their names, and return one router with all their routes.

    Modules whose name begins with ``_`` are left out. Raise StartError if a module cannot be imported (its cause is the
    module's own error), if a module has no router, or if there is no route at all. Raise RouteError or TopicError for routes
    that do not fit together.
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
            raise StartError(f"the router module {file} has no `router`; add: router = Router()")
        router.include(theirs)
    if not router.routes:
        raise StartError(f"there is no route in {folder}; add a module there with `router = Router()` and `router.on(...)`")
    return router


def controllers() -> list[type[Controller]]:
    """Import every module of ``app.controllers``, and return the controllers that they define.

    An application without that package has no controllers. Raise StartError if a module cannot be imported.
    """
    package = "app.controllers"
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{package}.".startswith(f"{error.name}."):
            raise StartError(f"the package {package} cannot be imported: {error}") from error
        return []
    defined: list[type[Controller]] = []
    for name in sorted(module.name for module in pkgutil.iter_modules(found.__path__) if not module.name.startswith("_")):
        module = _import(f"{package}.{name}")
        defined += [
            value
            for _, value in inspect.getmembers(module, inspect.isclass)
            if issubclass(value, Controller) and value.__module__ == module.__name__
        ]
    return defined


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (RouteError, TopicError):
        raise
    except Exception as error:
        raise StartError(f"the module {name} cannot be imported: {type(error).__name__}: {error}") from error


def import_models() -> None:
    """Import all modules of ``app.models``, so that their tables are known. Raise StartError if one cannot be imported."""
    for module in pkgutil.iter_modules(importlib.import_module("app.models").__path__):
        name = f"app.models.{module.name}"
        try:
            importlib.import_module(name)
        except Exception as error:
            raise StartError(f"the model module {name} cannot be imported: {type(error).__name__}: {error}") from error


def project_folder() -> Path:
    """Return the folder that holds ``app/`` and ``migrations/``."""
    return Path(next(iter(importlib.import_module("app").__path__))).parent
