"""Controllers: classes whose methods handle messages."""

from __future__ import annotations

import logging
from inspect import getattr_static
from types import FunctionType, MethodType
from typing import Any

from core.errors import RouteError
from core.runtime import Part, current


class Method:
    """A method of a controller that knows the class it was read from.

    Where ``Sub`` inherits ``handle``, Python reads ``Sub.handle`` as ``Parent.handle``, and a route that is given
    ``Sub.handle`` would run on a ``Parent``. So each class returns a function of its own, which carries that class.
    """

    def __init__(self, name: str, function: FunctionType, home: type | None) -> None:
        self._name = name
        self._function = function
        # The controller that defines the function. None where a class that is not a controller does.
        self._home = home
        self._read: dict[type, FunctionType] = {}

    def __get__(self, instance: object | None, owner: type) -> Any:
        """Return the method bound to ``instance``, or the function that belongs to ``owner``."""
        if instance is not None:
            return MethodType(self._function, instance)
        found = self._read.get(owner)
        if found is None:
            found = self._read[owner] = self._function if owner is self._home else self._copy()
            found.__controller__ = owner  # type: ignore[attr-defined]
            if owner is not self._home:
                found.__module__ = owner.__module__
                found.__qualname__ = f"{owner.__qualname__}.{self._name}"
        return found

    def _copy(self) -> FunctionType:
        function = self._function
        copy = FunctionType(function.__code__, function.__globals__, self._name, function.__defaults__, function.__closure__)
        copy.__kwdefaults__ = function.__kwdefaults__
        copy.__dict__.update(function.__dict__)
        copy.__doc__ = function.__doc__
        return copy


class Controller:
    """The parent of your controllers.

    A method that handles messages takes one argument, the context (see ``core.context.Context``). Give it to a route
    through its class: ``router.on("devices/<device_id>/data", SensorController.handle)``. Each application makes one
    instance of each class, without arguments.
    """

    logger: logging.Logger

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.logger = logging.getLogger(f"{cls.__module__}.{cls.__qualname__}")
        for name in dir(cls):
            found = getattr_static(cls, name)
            if isinstance(found, FunctionType) and not name.startswith("_"):
                # What a class that is no controller defines belongs to others too.
                setattr(cls, name, Method(name, found, cls if name in vars(cls) else None))


INSTANCES: Part[dict[type[Controller], Controller]] = Part(dict)
"""The instances of an application's controllers."""


def instance(controller: type[Controller]) -> Controller:
    """Return the application's one instance of ``controller``.

    Raise RouteError where it cannot be made without arguments.
    """
    instances = current()[INSTANCES]
    made = instances.get(controller)
    if made is None:
        try:
            made = instances[controller] = controller()
        except TypeError as error:
            raise RouteError(
                f"{controller.__qualname__} cannot be made without arguments ({error}). Make an instance yourself, and give "
                "the route a method of it"
            ) from error
    return made
