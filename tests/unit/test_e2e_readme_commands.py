"""The reader of the README: does what a page says in order, and notices when it is not so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.readme_commands import NotTrue, Reader, parse

PAGE = """\
A page.

```bash
export GREETING=hello
make test  # not here: it would run this again
```

```python title="work/greet.py"
print("from a file")
```

1. In a list:

   ```console
   $ echo "$GREETING, \\
   > you"
   hello, ...
   $ python3 work/greet.py
   from a file
   ```

```json
{"for": "the eye"}
```
"""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Somebody in front of an empty folder."""
    clone = tmp_path / "clone"
    clone.mkdir()
    found = Reader(clone, tmp_path)
    yield found
    found.kill()


def test_a_page_has_blocks() -> None:
    assert [(block.language, block.line) for block in parse(PAGE)] == [
        ("bash", 3),
        ("python", 8),
        ("console", 14),
        ("json", 22),
    ]


def test_prompts_are_not_typed_and_tests_are_left_out() -> None:
    bash, _, console, _ = parse(PAGE)

    assert bash.script == "export GREETING=hello"
    assert console.script == 'echo "$GREETING, \\\nyou"\npython3 work/greet.py'
    assert console.shown == ["hello, ...", "from a file"]


def test_a_true_page_is_followed(reader: Reader) -> None:
    reader.follow(parse(PAGE))

    assert [block.line for block in reader.typed] == [3, 14]


@pytest.mark.parametrize(
    "block",
    [
        "bash\nfalse\ntrue",
        "bash\nls no-such-file",
        "console\n$ echo good day\nhello",
        "console\n$ echo one\n$ echo two\ntwo\none",
        "bash\nexit 0",
        'bash background until="never"\ntrue',
    ],
)
def test_what_does_not_hold_is_noticed(reader: Reader, block: str) -> None:
    with pytest.raises(NotTrue, match=r"README.md, line 1"):
        reader.follow(parse(f"```{block}\n```\n"))


def test_what_goes_on_is_left_running_and_ends_by_ctrl_c(reader: Reader, tmp_path: Path) -> None:
    page = """\
```bash background until="up"
trap 'touch stopped; exit' INT
touch up
while true; do read -t 1 < <(:) || true; done
```

```bash background until="I am here"
echo I am here; tail -f /dev/null
```

```bash
test -e up
```
"""
    reader.follow(parse(page))
    assert not (tmp_path / "clone" / "stopped").exists()

    reader.close()

    assert (tmp_path / "clone" / "stopped").exists()
