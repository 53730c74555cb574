"""The ledger's tables; Flask-SQLAlchemy and the migrations share this metadata."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from chiffon.domain.ids import MAX_REQUEST_ID, MAX_TASK_ID
from chiffon.domain.states import ENDS, State

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Moment = DateTime(timezone=True)
NOW = text("clock_timestamp()")


def _words(states: frozenset[State] | type[State]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


tasks = Table(
    "tasks",
    metadata,
    Column("task_id", String(MAX_TASK_ID), primary_key=True),
    Column("request_id", String(MAX_REQUEST_ID), nullable=False),
    Column("trace_id", String(32), nullable=False),
    Column("work_type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("queue", Text, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("arguments", JSONB, nullable=False),
    Column("canvas", JSONB, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("origin", Text, nullable=False),
    # Limits, in seconds; NULL is the work type's own.
    Column("timeout", Float),
    Column("soft_timeout", Float),
    Column("max_retries", Integer),
    # The fencing token: only the holder of the newest execution can settle. It never starts again.
    Column("execution", Integer, nullable=False, server_default="0"),
    Column("incarnation", BigInteger),
    Column("agent_id", Text),
    Column("claim_token", UUID(as_uuid=False)),
    # Real runs, and how each kind of them ended; counted apart, for each has a limit of its own.
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("retries", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("agent_deaths", Integer, nullable=False, server_default="0"),
    Column("give_backs", Integer, nullable=False, server_default="0"),
    # The lease of the newest ring, and when the next is due; NULL: nothing to ring for.
    Column("ring_no", Integer, nullable=False, server_default="0"),
    Column("next_ring_at", Moment),
    Column("run_at", Moment),
    Column("expires_at", Moment),
    Column("cancel_requested_at", Moment),
    # The task whose end this one takes (two messages, one request_id).
    Column("follows", String(MAX_TASK_ID)),
    # A dead letter is owed until its message is known to be in dlx_queue.
    Column("dead_letter_owed", Boolean, nullable=False, server_default="false"),
    Column("debt_leased_until", Moment),
    Column("progress", JSONB),
    Column("error", JSONB),
    Column("history_no", Integer, nullable=False, server_default="1"),
    Column("created_at", Moment, nullable=False, server_default=NOW),
    Column("queued_at", Moment),
    Column("claimed_at", Moment),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    CheckConstraint(f"status IN ({_words(State)})", name="status_is_known"),
    CheckConstraint("priority BETWEEN 1 AND 5", name="priority_is_1_to_5"),
    CheckConstraint("trace_id ~ '^[0-9a-f]{32}$'", name="trace_id_is_32_hex_digits"),
    CheckConstraint("task_id <> '' AND request_id <> ''", name="ids_are_not_empty"),
    CheckConstraint("jsonb_typeof(parameters) = 'object'", name="parameters_are_an_object"),
    CheckConstraint("jsonb_typeof(arguments) = 'array'", name="arguments_are_an_array"),
    # A running task names who runs it, and no other task does.
    CheckConstraint(
        "(status = 'running') = (incarnation IS NOT NULL AND claim_token IS NOT NULL)", name="running_has_a_holder"
    ),
    CheckConstraint(f"(status IN ({_words(ENDS)})) = (finished_at IS NOT NULL)", name="an_end_has_a_time"),
    CheckConstraint("status NOT IN ('scheduled', 'retrying') OR run_at IS NOT NULL", name="waiting_knows_its_time"),
    CheckConstraint("next_ring_at IS NULL OR status = 'pending'", name="only_pending_is_rung"),
    # Nothing pending is forgotten: it is rung, or it waits for the task whose end it takes.
    CheckConstraint(
        "status <> 'pending' OR next_ring_at IS NOT NULL OR follows IS NOT NULL", name="pending_is_rung_or_follows"
    ),
)
# Each partial index serves one sweep, and is as small as the work that waits for it.
Index("ix_tasks_ring", tasks.c.next_ring_at, postgresql_where=text("status = 'pending'"))
Index("ix_tasks_due", tasks.c.run_at, postgresql_where=text("status IN ('scheduled', 'retrying')"))
Index(
    "ix_tasks_expiry",
    tasks.c.expires_at,
    postgresql_where=text("expires_at IS NOT NULL AND status IN ('scheduled', 'pending', 'queued', 'retrying')"),
)
Index("ix_tasks_queued", tasks.c.queue, tasks.c.priority, tasks.c.queued_at, postgresql_where=text("status = 'queued'"))
Index("ix_tasks_held", tasks.c.incarnation, postgresql_where=text("status = 'running'"))
Index("ix_tasks_follows", tasks.c.follows, postgresql_where=text("follows IS NOT NULL"))
Index("ix_tasks_owed", tasks.c.finished_at, postgresql_where=text("dead_letter_owed"))
# Successes are too many for an index of their own, and as many as anybody wants to see are soon found without.
Index(
    "ix_tasks_ends_to_look_at",
    tasks.c.status,
    tasks.c.created_at.desc(),
    tasks.c.task_id.desc(),
    postgresql_where=text(f"status IN ({_words(ENDS - {State.COMPLETED})})"),
)
Index("ix_tasks_newest", tasks.c.created_at.desc(), tasks.c.task_id.desc())
Index("ix_tasks_request_id", tasks.c.request_id)
Index("ix_tasks_trace_id", tasks.c.trace_id)
# Every step of a task writes to every index that the task is in.
Index(
    "ix_tasks_labelled",
    tasks.c.labels,
    postgresql_using="gin",
    postgresql_ops={"labels": "jsonb_path_ops"},
    postgresql_where=text("labels <> '{}'"),
)

executions = Table(
    "executions",
    metadata,
    Column("task_id", String(MAX_TASK_ID), nullable=False),
    Column("execution", Integer, nullable=False),
    Column("incarnation", BigInteger, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("claimed_at", Moment, nullable=False, server_default=NOW),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("outcome", Text),
    Column("error", JSONB),
    PrimaryKeyConstraint("task_id", "execution"),
    CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="an_outcome_has_a_time"),
)

# No foreign key to tasks: any Celery application may keep its results here.
results = Table(
    "results",
    metadata,
    Column("task_id", String(MAX_TASK_ID), primary_key=True),
    Column("status", Text, nullable=False),
    Column("result", JSONB),
    Column("traceback", Text),
    Column("children", JSONB),
    Column("meta", JSONB),
    Column("date_done", Moment, nullable=False, server_default=NOW),
)
Index("ix_results_date_done", results.c.date_done)

agents = Table(
    "agents",
    metadata,
    Column("incarnation", BigInteger, Identity(always=True), primary_key=True),
    Column("agent_id", Text, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("backend_pid", Integer),
    Column("slots", Integer, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    Column("work_types", ARRAY(Text), nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Moment, nullable=False, server_default=NOW),
    Column("last_heartbeat_at", Moment, nullable=False, server_default=NOW),
    Column("draining_at", Moment),
    Column("stopped_at", Moment),
)
Index("ix_agents_agent_id", agents.c.agent_id, agents.c.incarnation.desc())
Index("ix_agents_living", agents.c.incarnation, postgresql_where=text("stopped_at IS NULL"))

request_keys = Table(
    "request_keys",
    metadata,
    Column("request_id", String(MAX_REQUEST_ID), primary_key=True),
    Column("task_id", String(MAX_TASK_ID), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    # NULL while the task is in flight; every end sets it.
    Column("expires_at", Moment),
)
Index("ix_request_keys_expires_at", request_keys.c.expires_at)

task_history = Table(
    "task_history",
    metadata,
    Column("task_id", String(MAX_TASK_ID), nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", Moment, nullable=False, server_default=NOW),
    Column("status", Text, nullable=False),
    Column("execution", Integer),
    Column("agent_id", Text),
    Column("detail", Text),
    PrimaryKeyConstraint("task_id", "number"),
)

# What Celery's canvas keeps for any application: restored groups, and the set of finished parts of each chord.
result_groups = Table(
    "result_groups",
    metadata,
    Column("group_id", String(MAX_TASK_ID), primary_key=True),
    Column("result", JSONB, nullable=False),
    Column("date_done", Moment, nullable=False, server_default=NOW),
)
Index("ix_result_groups_date_done", result_groups.c.date_done)

chords = Table(
    "chords",
    metadata,
    Column("group_id", String(MAX_TASK_ID), primary_key=True),
    Column("size", Integer),
    Column("released_at", Moment),
    Column("created_at", Moment, nullable=False, server_default=NOW),
)
Index("ix_chords_created_at", chords.c.created_at)

chord_parts = Table(
    "chord_parts",
    metadata,
    Column("group_id", String(MAX_TASK_ID), nullable=False),
    Column("task_id", String(MAX_TASK_ID), nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("group_id", "task_id"),
)
