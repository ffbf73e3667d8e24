"""A block that is wrong is found, wherever the fault is, and so is a comment that says nothing known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.documentation.blocks import PageError, blocks_of
from tests.support.documentation.run import run

PAGE = """
<!-- test: then await client.send("right/1", {"value": 21.5}) -->
```python
from core.router import Router

router = Router()

@router.on("right/<int:n>")
async def right(context):
    return context["payload"]["value"]
```

```python
router.onn("wrong", right)
```

<!-- test: given from core.codecs import register -->
<!-- test: then await client.send("wrong/1", {"value": 21.5}) -->
```python
@router.on("wrong/<int:n>")
async def wrong(context):
    return context["paylod"]["value"]
```

<!-- test: then
sent = await client.send("right/1", {"value": 21.5})
assert sent == 0, f"{sent} was sent"
-->
~~~py
answer = 42
~~~

```python
right({})
```

```
no_python(
```

- in a list:

  <!-- test: in a handler -->
  ```python
  assert (await right(context | {"payload": {"value": answer}})) == 42
  ```

```python
def test_that_fails():
    assert 1 == 2
```
"""
FAULTS = {
    3: "",
    13: "AttributeError: 'Router' object has no attribute 'onn'",
    19: "KeyError: 'paylod'",
    29: "AssertionError: 21.5 was sent",
    33: "coroutine 'right' was never awaited",
    44: "",
    48: "1 failed",
}


def test_a_wrong_block_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert [block.line for block in blocks_of(page)] == list(FAULTS)
    said = run(page, tmp_path)
    assert {line: text if text in said[line] else said[line] for line, text in FAULTS.items()} == FAULTS
    assert [line for line, text in said.items() if not text] == [3, 44]
    assert f'{page}", line 22, in wrong' in said[19]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<!-- test: skip -->\n```python\n```\n", "page.md:1: 'skip' is not known"),
        ("<!-- test: as a script -->\n<!-- test: in a handler -->\n```python\n```\n", "page.md:2: 'in a handler'"),
        ("\n<!-- test: in a handler -->\n\ntext\n", "page.md:2: no Python block follows"),
        ("<!-- test: in a handler -->\n```sh\n```\n", "page.md:1: no Python block follows"),
        ("<!-- test: in a handler -->\n", "page.md:1: no Python block follows"),
        ("<!-- test: given\nx = 1\n", "page.md:1: the comment does not end"),
        ("```python\nx = 1\n", "page.md:1: the block does not end"),
    ],
)
def test_a_page_that_cannot_be_read_says_where(tmp_path: Path, text: str, what: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(PageError) as raised:
        blocks_of(page)
    assert str(raised.value).startswith(what)
