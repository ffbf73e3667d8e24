"""The mapper of a model: its columns and its primary key, and checks of the values that callers give for them."""

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
    """Return the mapper of ``model``. Raise ModelError if ``model`` is not a model."""
    if not isinstance(model, type):
        raise ModelError(f"{model!r} is not a class. The first argument is the model, as in Model.find(Device, 1)")
    try:
        mapper: Mapper[Any] | None = inspect(model)
    except NoInspectionAvailable:
        mapper = None
    if mapper is None:
        raise ModelError(f"{model.__qualname__} is not a model. Give it core.model.Base as its parent, and a __tablename__")
    return mapper


def key_names(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the names of the attributes of the primary key, in the order of its columns."""
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


M = TypeVar("M")


def check_names(model: type, names: Mapping[str, Any]) -> None:
    """Raise ModelError if ``model`` lacks an attribute that is in ``names``."""
    mapper = mapper_of(model)
    for name in names:
        if name not in mapper.all_orm_descriptors:
            known = list(mapper.column_attrs.keys())
            close = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Its columns are {', '.join(known)}"
            raise ModelError(f"{model.__qualname__} has no column {name!r}. {hint}")


def new_instance(model: type[M], values: Mapping[str, Any]) -> M:
    """Return a new instance of ``model`` with ``values``. Raise ModelError if ``model`` does not take them."""
    mapper_of(model)
    try:
        return model(**values)
    except TypeError as error:
        # A constructor may take more than columns, so the names are checked only after it has refused them.
        check_names(model, values)
        raise ModelError(f"{model.__qualname__} cannot be made of {', '.join(values) or 'nothing'}: {error}") from error


def checked_instance(model: type[M], row: object) -> M:
    """Return ``row``. Raise ModelError if it is not an instance of ``model``."""
    if not isinstance(row, model):
        raise ModelError(f"create_many({model.__qualname__}) takes dictionaries and instances of it, not {row!r}"[:300])
    return row


def check_key(model: type, key: Any) -> None:
    """Raise ModelError if ``key`` does not have as many values as the primary key of ``model``."""
    columns = [column.name for column in mapper_of(model).primary_key]
    given = len(key) if isinstance(key, tuple) else 1
    if given != len(columns):
        if len(columns) == 1:
            raise ModelError(f"the primary key of {model.__qualname__} is one value, {columns[0]}, not {key!r}")
        raise ModelError(f"the primary key of {model.__qualname__} is a tuple ({', '.join(columns)}), not {key!r}")


def hashable(value: Any) -> bool:
    """Return whether ``value`` can be a key of a dictionary."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def key_tuple(value: Any) -> tuple[Any, ...]:
    """Return the primary key ``value`` as a tuple, even if it has one column."""
    return value if isinstance(value, tuple) else (value,)


def sortable_key(key: Any) -> list[tuple[str, Any]]:
    """Return a value by which ``key`` can be sorted among primary keys of any types."""
    return [sortable(part) for part in key_tuple(key)]


def sortable(value: Any) -> tuple[str, Any]:
    """Return a value by which ``value`` can be sorted among values of any types."""
    return type(value).__name__, value if isinstance(value, int | float | str | bytes) else str(value)
