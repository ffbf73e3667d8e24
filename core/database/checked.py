"""What callers give for a model: names, keys and instances, looked at before the database is."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar

from core.database.mapping import mapper_of
from core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
