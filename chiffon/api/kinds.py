"""The kinds of problem: one table from what is raised to what HTTP says (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chiffon.domain import errors
from chiffon.ledger.failures import RefusedData

RETRY_AFTER = 2
"""Seconds after which a caller may try again."""


@dataclass(frozen=True)
class Kind:
    """A kind of problem. ``name`` is the end of its ``type``, which never changes.

    ``advice``: what to do; "" for a status that says all there is to say. ``retry_after``: seconds.
    """

    name: str
    status: int
    title: str
    advice: str
    retry_after: int | None = None

    @property
    def uri(self) -> str:
        """The ``type``: a path that this API serves, too."""
        return f"/problems/{self.name}" if self.advice else "about:blank"


NOT_JSON = Kind("not-json", 400, "The body is not JSON", "Send JSON text (RFC 8259) in UTF-8.")
UNAUTHORIZED = Kind(
    "unauthorized", 401, "A key is needed", "Send one of CHIFFON_API_KEYS as `Authorization: Bearer <key>`."
)
KEYS_REQUIRED = Kind(
    "keys-required",
    403,
    "Without keys only this machine is served",
    "Set CHIFFON_API_KEYS, or call http://127.0.0.1 or http://localhost on the machine itself.",
)
NOT_FOUND = Kind("not-found", 404, "There is no such route", "GET /openapi.json lists the routes; /docs shows them.")
TASK_NOT_FOUND = Kind(
    "task-not-found", 404, "There is no such task", "Ids are those that POST /dispatch answered; old tasks are removed."
)
AGENT_NOT_FOUND = Kind("agent-not-found", 404, "There is no such agent", "GET /agents lists them.")
METHOD_NOT_ALLOWED = Kind(
    "method-not-allowed", 405, "The route does not take this method", "The Allow header says which it takes."
)
TASK_EXISTS = Kind(
    "task-exists", 409, "The task id is taken", "Choose another task_id, or leave it out; repeat with equal payload."
)
WRONG_STATE = Kind(
    "wrong-state", 409, "The task's state does not allow it", "GET /tasks/{task_id}/events shows its state and history."
)
BODY_TOO_LARGE = Kind(
    "body-too-large", 413, "The body is too large", "Send less (large data by URL), or raise CHIFFON_MAX_BODY."
)
UNSUPPORTED_MEDIA_TYPE = Kind(
    "unsupported-media-type", 415, "The body's type is not supported", "Send `Content-Type: application/json`."
)
INVALID_INPUT = Kind(
    "invalid-input", 422, "The request does not fit", "`errors` names each place: in the body, the query or a header."
)
INVALID_PARAMETERS = Kind(
    "invalid-parameters", 422, "The parameters do not fit the work type", "GET /work-types has the schema of each."
)
UNKNOWN_WORK_TYPE = Kind(
    "unknown-work-type", 422, "There is no such work type", "GET /work-types lists what is known here."
)
IDEMPOTENCY_KEY_REUSED = Kind(
    "idempotency-key-reused",
    422,
    "The request_id was used for other work",
    "Use a new request_id (or Idempotency-Key) for new work; the same one only to repeat the same dispatch.",
)
INTERNAL_ERROR = Kind("internal-error", 500, "Something went wrong here", "The API's log says what, under the request.")
LEDGER_UNAVAILABLE = Kind(
    "ledger-unavailable",
    503,
    "The ledger does not answer",
    "Try again: repeating a dispatch with its request_id is safe. Check Postgres and CHIFFON_DATABASE_URL if it lasts.",
    RETRY_AFTER,
)
LEDGER_READ_ONLY = replace(
    LEDGER_UNAVAILABLE,
    name="ledger-read-only",
    title="The ledger takes no writes",
    advice="Postgres is a standby, or read-only: nothing was accepted. Check where CHIFFON_DATABASE_URL leads.",
)
OUTCOME_UNKNOWN = replace(
    LEDGER_UNAVAILABLE,
    name="outcome-unknown",
    title="The ledger went away before it answered",
    advice="It may have accepted. Repeat with the same request_id: what was accepted is not done twice.",
)
SCHEMA_BEHIND = Kind(
    "schema-behind", 503, "The ledger's schema is behind", "Run `chiffon db upgrade`, then try again.", 10
)
BROKER_UNAVAILABLE = Kind(
    "broker-unavailable",
    503,
    "The broker does not answer",
    "Accepted work is safe in the ledger. Check RabbitMQ and CHIFFON_BROKER_URL if it lasts.",
    RETRY_AFTER,
)
TOO_MANY_STREAMS = Kind(
    "too-many-streams",
    503,
    "As many streams are open here as may be",
    "Try again in a moment, or raise CHIFFON_STREAMS, and gunicorn's threads with it.",
    RETRY_AFTER,
)
BUSY = Kind("busy", 503, "Somebody else is at it", "Try again in a moment.", RETRY_AFTER)

KINDS = {kind.name: kind for kind in list(globals().values()) if isinstance(kind, Kind)}
"""Every kind, by name."""

OF_THE_LEDGER = (LEDGER_UNAVAILABLE, LEDGER_READ_ONLY, SCHEMA_BEHIND)
"""What any route that asks the ledger may answer."""

OF_THE_BROKER = (BROKER_UNAVAILABLE, BUSY)
"""What a route that cannot do without the broker may answer."""

_OF_ERRORS: dict[type[BaseException], Kind] = {
    errors.InvalidInput: INVALID_INPUT,
    errors.NotJson: NOT_JSON,
    errors.InvalidParameters: INVALID_PARAMETERS,
    errors.UnknownWorkType: UNKNOWN_WORK_TYPE,
    RefusedData: INVALID_INPUT,
    errors.IdempotencyKeyReused: IDEMPOTENCY_KEY_REUSED,
    errors.TaskExists: TASK_EXISTS,
    errors.TaskNotFound: TASK_NOT_FOUND,
    errors.AgentNotFound: AGENT_NOT_FOUND,
    errors.WrongState: WRONG_STATE,
    errors.LedgerUnavailable: LEDGER_UNAVAILABLE,
    errors.LedgerReadOnly: LEDGER_READ_ONLY,
    errors.OutcomeUnknown: OUTCOME_UNKNOWN,
    errors.SchemaBehind: SCHEMA_BEHIND,
    errors.BrokerUnavailable: BROKER_UNAVAILABLE,
    errors.Busy: BUSY,
}


def kind_of(error: BaseException) -> Kind:
    """The kind of problem that an error is; what the table does not have is `internal-error`."""
    return next((_OF_ERRORS[step] for step in type(error).__mro__ if step in _OF_ERRORS), INTERNAL_ERROR)
