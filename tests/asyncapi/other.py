"""A second model of the same name."""

from __future__ import annotations

from pydantic import BaseModel


class Reading(BaseModel):
    kwh: float
