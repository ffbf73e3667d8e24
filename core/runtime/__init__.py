"""What belongs to one application in this process, and its clock."""

from __future__ import annotations

from core.runtime.runtime import Part, Runtime, current

__all__ = ["Part", "Runtime", "current"]
