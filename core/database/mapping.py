"""The mapper of a model: its columns, its primary key, and what callers give for them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable

from core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Mapper


def mapper_of(model: object) -> Mapper[Any]:
    """Give the mapper of ``model``. Raises ModelError where that is no model."""
    if not isinstance(model, type):
        raise ModelError(f"{model!r} is not a class; the first argument is the model, as in Model.find(Device, 1)")
    try:
        mapper: Mapper[Any] | None = inspect(model)
    except NoInspectionAvailable:
        mapper = None
    if mapper is None:
        raise ModelError(f"{model.__qualname__} is not a model; give it core.model.Base as its parent and a __tablename__")
    return mapper


def key_names(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Give the names of the attributes that are the primary key, in its order."""
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


M = TypeVar("M")


def check_names(model: type, names: Mapping[str, Any]) -> None:
    """Raise ModelError where ``model`` has not all attributes of ``names``."""
    mapper = mapper_of(model)
    for name in names:
        if name not in mapper.all_orm_descriptors:
            known = list(mapper.column_attrs.keys())
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise ModelError(f"{model.__qualname__} has no column {name!r}; {hint}")


def new_instance(model: type[M], values: Mapping[str, Any]) -> M:
    """Give a new instance. Raises ModelError."""
    mapper_of(model)
    try:
        return model(**values)
    except TypeError as error:
        # A constructor may take more than columns, so the names are looked at only once it has refused them.
        check_names(model, values)
        raise ModelError(f"{model.__qualname__} cannot be made of {', '.join(values) or 'nothing'}: {error}") from error


def instance_of(model: type[M], row: object) -> M:
    """Give ``row`` if it is an instance of ``model``. Raises ModelError."""
    if not isinstance(row, model):
        raise ModelError(f"create_many({model.__qualname__}) takes dictionaries and instances of it, not {row!r}"[:300])
    return row


def identity_of(model: type, key: Any) -> Any:
    """Give ``key`` if it has the shape of the primary key of ``model``. Raises ModelError."""
    columns = [column.name for column in mapper_of(model).primary_key]
    given = len(key) if isinstance(key, tuple) else 1
    if given != len(columns):
        if len(columns) == 1:
            raise ModelError(f"the primary key of {model.__qualname__} is one value, {columns[0]}, not {key!r}")
        raise ModelError(f"the primary key of {model.__qualname__} is a tuple ({', '.join(columns)}), not {key!r}")
    return key


def hashable(value: Any) -> bool:
    """Say whether ``value`` can be a key of a dictionary."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def key_tuple(value: Any) -> tuple[Any, ...]:
    """Return a primary key as a tuple, also where it has one column."""
    return value if isinstance(value, tuple) else (value,)


def sortable_key(key: Any) -> list[tuple[str, Any]]:
    """Return what primary keys of any types can be sorted by."""
    return [sortable(part) for part in key_tuple(key)]


def sortable(value: Any) -> tuple[str, Any]:
    """Return what values of any types can be sorted by."""
    return type(value).__name__, value if isinstance(value, int | float | str | bytes) else str(value)
