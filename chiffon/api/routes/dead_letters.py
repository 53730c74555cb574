"""Dead letters: look, replay, discard."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint

from chiffon.api import cursors, kinds
from chiffon.api.answers import Letter, LetterList, LettersHandled
from chiffon.api.contract import Operation, Reply, operation
from chiffon.api.inputs import LetterChoice, LetterQuery, LetterReplay
from chiffon.api.parts import parts
from chiffon.bus.postmortem import DeadLetter
from chiffon.dispatch.dead_letters import Chosen, Handled, count, discard_letters, look, replay_letters
from chiffon.dispatch.identify import task_of, work_type_of
from chiffon.domain.errors import LetterGone
from chiffon.domain.values import canonical

blueprint = APIBlueprint(
    "dead_letters", __name__, tag={"name": "Dead letters", "description": "What could not be done, in dlx_queue."}
)

_PROBLEMS = (*kinds.OF_THE_LEDGER, *kinds.OF_THE_BROKER)


@blueprint.get("/dead-letters")
@operation(
    Operation(
        query=LetterQuery,
        gives={200: (LetterList, "The letters.")},
        problems=_PROBLEMS,
    )
)
def listing(query: LetterQuery) -> Reply:
    """Look at the dead letters without taking any."""
    chosen = Chosen(**query.model_dump(exclude={"limit", "cursor"}))
    after = cursors.read_letter(query.cursor) if query.cursor is not None else None
    try:
        page = look(parts().ledger, parts().settings, chosen, limit=query.limit, after=after)
    except LetterGone:
        raise cursors.gone() from None
    return Reply(
        LetterList(
            items=[_shown(letter) for letter in page.letters],
            next_cursor=cursors.written_letter(page.next_after) if page.next_after else None,
        )
    )


@blueprint.post("/dead-letters/replay")
@operation(
    Operation(
        body=LetterReplay,
        gives={202: (LettersHandled, "What became of them.")},
        problems=_PROBLEMS,
    )
)
def replaying(body: LetterReplay) -> Reply:
    """Have the work of dead letters done again.

    A letter of a task of the ledger makes the task `pending` again; any other is published again, as it was or as
    `body` mends it. Each letter goes only after that is safe.
    """
    here, chosen = parts(), _chosen(body)
    if body.dry_run:
        return _counted(chosen)
    mended = canonical(body.body).encode() if body.body is not None else None
    return _told(replay_letters(here.ledger, here.settings, here.ringer, chosen, body=mended))


@blueprint.post("/dead-letters/discard")
@operation(
    Operation(
        body=LetterChoice,
        gives={202: (LettersHandled, "What became of them.")},
        problems=_PROBLEMS,
    )
)
def discarding(body: LetterChoice) -> Reply:
    """Let dead letters go. A task of the ledger stays as it is: only its letter goes."""
    chosen = _chosen(body)
    return _counted(chosen) if body.dry_run else _told(discard_letters(parts().ledger, parts().settings, chosen))


def _chosen(body: LetterChoice) -> Chosen:
    if body.filter is not None:
        return Chosen(**body.filter.model_dump())
    return Chosen(ids=frozenset(body.ids) if body.ids is not None else None)


def _counted(chosen: Chosen) -> Reply:
    return _told(count(parts().ledger, parts().settings, chosen), dry_run=True)


def _told(handled: Handled, *, dry_run: bool = False) -> Reply:
    members = {name: getattr(handled, name) for name in Handled.__dataclass_fields__}
    return Reply(LettersHandled.model_validate({**members, "dry_run": dry_run}), 202)


def _shown(letter: DeadLetter) -> Letter:
    try:
        body, encoding = letter.body.decode(), "text"
    except UnicodeDecodeError:
        body, encoding = base64.b64encode(letter.body).decode(), "base64"
    return Letter(
        id=letter.id,
        queue=_presentable(letter.queue),
        reason=_presentable(letter.reason),
        task_id=task_of(letter),
        work_type=_presentable(work_type_of(letter)),
        doorbell=letter.doorbell,
        copies=letter.copies,
        headers=_presentable(letter.headers),
        properties=_presentable(letter.properties),
        body=body,
        body_encoding=encoding,
        first_death_at=letter.first_death_at,
        died_at=letter.died_at,
    )


def _presentable(value: Any) -> Any:
    """AMQP's field values as JSON has them: what JSON has no word for as text."""
    if isinstance(value, Mapping):
        return {_text(str(name)): _presentable(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_presentable(member) for member in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, datetime):
        return f"{value.isoformat()}Z"  # AMQP's timestamps are UTC
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode(errors="replace")
    return _text(str(value))


def _text(text: str) -> str:
    """``text`` with a question mark for each lone surrogate, which py-amqp lets through."""
    return text.encode(errors="replace").decode()
