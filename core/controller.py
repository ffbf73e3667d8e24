"""Controllers: classes whose methods handle messages."""

from __future__ import annotations

import logging
from inspect import getattr_static
from types import FunctionType
from typing import Any

from core.errors import RouteError


class ControllerType(type):
    """Lets a method that is read from the class say which class that was.

    ``Sub.handle`` is plainly ``Parent.handle`` where ``Sub`` inherits it, and a route given ``Sub.handle`` would then run
    on a ``Parent``. So a public method comes as a function of its own for each class, which knows that class.
    """

    def __getattribute__(cls, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("_") or type(value) is not FunctionType or type(getattr_static(cls, name)) is not FunctionType:
            return value
        if value.__dict__.get("__controller__") is cls:
            return value
        if name in type.__getattribute__(cls, "__dict__"):
            value.__controller__ = cls  # type: ignore[attr-defined]
            return value
        copy = FunctionType(value.__code__, value.__globals__, name, value.__defaults__, value.__closure__)
        copy.__kwdefaults__ = value.__kwdefaults__
        copy.__dict__.update(value.__dict__)
        copy.__doc__ = value.__doc__
        copy.__module__ = cls.__module__
        copy.__qualname__ = f"{cls.__qualname__}.{name}"
        copy.__controller__ = cls  # type: ignore[attr-defined]
        return copy


class Controller(metaclass=ControllerType):
    """The parent of your controllers.

    A method that handles messages takes one argument, the context (see ``core.context.Context``). It is given to a route
    through its class, ``router.on("devices/<device_id>/data", SensorController.handle)``: one instance is made for each
    class and process, without arguments.
    """

    logger: logging.Logger

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.logger = logging.getLogger(f"{cls.__module__}.{cls.__qualname__}")


_instances: dict[type[Controller], Controller] = {}


def instance(controller: type[Controller]) -> Controller:
    """Give this process's one instance of ``controller``. Raises RouteError where it cannot be made without arguments."""
    made = _instances.get(controller)
    if made is None:
        try:
            made = _instances[controller] = controller()
        except TypeError as error:
            raise RouteError(
                f"{controller.__qualname__} cannot be made without arguments ({error}); make it yourself and give the "
                "route a method of your instance"
            ) from error
    return made
