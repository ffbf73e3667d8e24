"""One page of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """One page of rows.

    - ``items``: the rows of this page.
    - ``total``: the number of rows on all pages.
    - ``page``: the number of this page. The first page is 1.
    - ``per_page``: the number of rows that a page has, except for the last one.
    """

    items: list[M]
    total: int
    page: int
    per_page: int

    @property
    def total_pages(self) -> int:
        """The number of pages."""
        return -(-self.total // self.per_page)
