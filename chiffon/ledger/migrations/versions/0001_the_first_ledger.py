"""The first ledger"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("incarnation", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("backend_pid", sa.Integer(), nullable=True),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("queues", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("work_types", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "last_heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("draining_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("incarnation", name=op.f("pk_agents")),
    )
    op.create_index("ix_agents_agent_id", "agents", ["agent_id", sa.literal_column("incarnation DESC")], unique=False)
    op.create_index(
        "ix_agents_living", "agents", ["incarnation"], unique=False, postgresql_where=sa.text("stopped_at IS NULL")
    )
    op.create_table(
        "chord_parts",
        sa.Column("group_id", sa.String(length=255), nullable=False),
        sa.Column("task_id", sa.String(length=255), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("group_id", "task_id", name=op.f("pk_chord_parts")),
    )
    op.create_table(
        "chords",
        sa.Column("group_id", sa.String(length=255), nullable=False),
        sa.Column("size", sa.Integer(), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_chords")),
    )
    op.create_index("ix_chords_created_at", "chords", ["created_at"], unique=False)
    op.create_table(
        "executions",
        sa.Column("task_id", sa.String(length=255), nullable=False),
        sa.Column("execution", sa.Integer(), nullable=False),
        sa.Column("incarnation", sa.BigInteger(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column(
            "claimed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "(outcome IS NULL) = (finished_at IS NULL)", name=op.f("ck_executions_an_outcome_has_a_time")
        ),
        sa.PrimaryKeyConstraint("task_id", "execution", name=op.f("pk_executions")),
    )
    op.create_table(
        "request_keys",
        sa.Column("request_id", sa.String(length=200), nullable=False),
        sa.Column("task_id", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_request_keys")),
    )
    op.create_index("ix_request_keys_expires_at", "request_keys", ["expires_at"], unique=False)
    op.create_table(
        "result_groups",
        sa.Column("group_id", sa.String(length=255), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("date_done", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_result_groups")),
    )
    op.create_index("ix_result_groups_date_done", "result_groups", ["date_done"], unique=False)
    op.create_table(
        "results",
        sa.Column("task_id", sa.String(length=255), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("children", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("meta", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("date_done", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_results")),
    )
    op.create_index("ix_results_date_done", "results", ["date_done"], unique=False)
    op.create_table(
        "task_history",
        sa.Column("task_id", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("execution", sa.Integer(), nullable=True),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("task_id", "number", name=op.f("pk_task_history")),
    )
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=200), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("work_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("arguments", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("canvas", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("timeout", sa.Float(), nullable=True),
        sa.Column("soft_timeout", sa.Float(), nullable=True),
        sa.Column("max_retries", sa.Integer(), nullable=True),
        sa.Column("execution", sa.Integer(), server_default="0", nullable=False),
        sa.Column("incarnation", sa.BigInteger(), nullable=True),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("claim_token", sa.UUID(as_uuid=False), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("agent_deaths", sa.Integer(), server_default="0", nullable=False),
        sa.Column("give_backs", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ring_no", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_ring_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("follows", sa.String(length=255), nullable=True),
        sa.Column("dead_letter_owed", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("debt_leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("history_no", sa.Integer(), server_default="1", nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'running') = (incarnation IS NOT NULL AND claim_token IS NOT NULL)",
            name=op.f("ck_tasks_running_has_a_holder"),
        ),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'completed', 'dead_lettered', 'expired', 'failed', 'timed_out')) = (finished_at IS NOT NULL)",
            name=op.f("ck_tasks_an_end_has_a_time"),
        ),
        sa.CheckConstraint("jsonb_typeof(arguments) = 'array'", name=op.f("ck_tasks_arguments_are_an_array")),
        sa.CheckConstraint("jsonb_typeof(parameters) = 'object'", name=op.f("ck_tasks_parameters_are_an_object")),
        sa.CheckConstraint("next_ring_at IS NULL OR status = 'pending'", name=op.f("ck_tasks_only_pending_is_rung")),
        sa.CheckConstraint(
            "status <> 'pending' OR next_ring_at IS NOT NULL OR follows IS NOT NULL",
            name=op.f("ck_tasks_pending_is_rung_or_follows"),
        ),
        sa.CheckConstraint(
            "status IN ('cancelled', 'completed', 'dead_lettered', 'expired', 'failed', 'pending', 'queued', 'retrying', 'running', 'scheduled', 'timed_out')",
            name=op.f("ck_tasks_status_is_known"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('scheduled', 'retrying') OR run_at IS NOT NULL",
            name=op.f("ck_tasks_waiting_knows_its_time"),
        ),
        sa.CheckConstraint("task_id <> '' AND request_id <> ''", name=op.f("ck_tasks_ids_are_not_empty")),
        sa.CheckConstraint("trace_id ~ '^[0-9a-f]{32}$'", name=op.f("ck_tasks_trace_id_is_32_hex_digits")),
        sa.CheckConstraint("priority BETWEEN 1 AND 5", name=op.f("ck_tasks_priority_is_1_to_5")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    op.create_index(
        "ix_tasks_due",
        "tasks",
        ["run_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('scheduled', 'retrying')"),
    )
    op.create_index(
        "ix_tasks_expiry",
        "tasks",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL AND status IN ('scheduled', 'pending', 'queued', 'retrying')"),
    )
    op.create_index(
        "ix_tasks_follows", "tasks", ["follows"], unique=False, postgresql_where=sa.text("follows IS NOT NULL")
    )
    op.create_index(
        "ix_tasks_held", "tasks", ["incarnation"], unique=False, postgresql_where=sa.text("status = 'running'")
    )
    op.create_index(
        "ix_tasks_labels",
        "tasks",
        ["labels"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
    )
    op.create_index(
        "ix_tasks_newest",
        "tasks",
        [sa.literal_column("created_at DESC"), sa.literal_column("task_id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_tasks_owed", "tasks", ["finished_at"], unique=False, postgresql_where=sa.text("dead_letter_owed")
    )
    op.create_index(
        "ix_tasks_queued",
        "tasks",
        ["queue", "priority", "queued_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index("ix_tasks_request_id", "tasks", ["request_id"], unique=False)
    op.create_index(
        "ix_tasks_ring", "tasks", ["next_ring_at"], unique=False, postgresql_where=sa.text("status = 'pending'")
    )
    op.create_index("ix_tasks_trace_id", "tasks", ["trace_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_tasks_trace_id", table_name="tasks")
    op.drop_index("ix_tasks_ring", table_name="tasks", postgresql_where=sa.text("status = 'pending'"))
    op.drop_index("ix_tasks_request_id", table_name="tasks")
    op.drop_index("ix_tasks_queued", table_name="tasks", postgresql_where=sa.text("status = 'queued'"))
    op.drop_index("ix_tasks_owed", table_name="tasks", postgresql_where=sa.text("dead_letter_owed"))
    op.drop_index("ix_tasks_newest", table_name="tasks")
    op.drop_index(
        "ix_tasks_labels", table_name="tasks", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}
    )
    op.drop_index("ix_tasks_held", table_name="tasks", postgresql_where=sa.text("status = 'running'"))
    op.drop_index("ix_tasks_follows", table_name="tasks", postgresql_where=sa.text("follows IS NOT NULL"))
    op.drop_index(
        "ix_tasks_expiry",
        table_name="tasks",
        postgresql_where=sa.text("expires_at IS NOT NULL AND status IN ('scheduled', 'pending', 'queued', 'retrying')"),
    )
    op.drop_index("ix_tasks_due", table_name="tasks", postgresql_where=sa.text("status IN ('scheduled', 'retrying')"))
    op.drop_table("tasks")
    op.drop_table("task_history")
    op.drop_index("ix_results_date_done", table_name="results")
    op.drop_table("results")
    op.drop_index("ix_result_groups_date_done", table_name="result_groups")
    op.drop_table("result_groups")
    op.drop_index("ix_request_keys_expires_at", table_name="request_keys")
    op.drop_table("request_keys")
    op.drop_table("executions")
    op.drop_index("ix_chords_created_at", table_name="chords")
    op.drop_table("chords")
    op.drop_table("chord_parts")
    op.drop_index("ix_agents_living", table_name="agents", postgresql_where=sa.text("stopped_at IS NULL"))
    op.drop_index("ix_agents_agent_id", table_name="agents")
    op.drop_table("agents")
