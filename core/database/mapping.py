"""The mapper of a model, and its primary key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable

from core.errors import ModelError

if TYPE_CHECKING:
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
