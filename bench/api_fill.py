"""A control plane's database of many jobs, silos and numbers, made within a minute or two.

The first of everything is made by the control plane's own code; the others are copies of it, made by
PostgreSQL itself. What parties would have sent is made up, and as skewed as in life: one silo takes part in
every second job, and one job has a tenth of all numbers.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Table, text

from backend.bootstrap import start
from backend.db import Database, upgrade
from backend.db.base import Base
from backend.db.models import Dataset, Job, JobSilo, Metric, Silo
from backend.settings import Settings
from bench.api_world import make_first, make_spec, silo_name
from bench.tables import say
from splitlearn.spec import JobSpec

PARTIES = 3
"""Silos of a job."""
NAMES = ("loss", "seconds", "compute_seconds", "valid_tokens", "label_tokens")
"""Numbers of a step."""
EACH_JOB = {"rounds": 3, "artifacts": 3, "events": 20, "job_log_lines": 20, "audit_rows": 10}
_PAUSED_EVERY = 100
"""One job of so many is paused; all others have ended."""
_LARGEST_SHARE = 10

_JOB = "md5('job-' || n)::uuid"
_STATE = (
    f"CASE WHEN n % {_PAUSED_EVERY} = 0 THEN 'paused' WHEN n % 20 = 1 THEN 'failed' "
    "WHEN n % 20 = 2 THEN 'cancelled' ELSE 'completed' END"
)
_CREATED = "now() - make_interval(mins => (:jobs - n) * 30)"
_NUMBER = "CASE WHEN p = 0 AND n % 2 = 0 THEN 1 ELSE (n + p * 7) % (:silos - 1) + 2 END"
_SILO_OF = f"md5('silo-' || {_NUMBER})::uuid"


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is."""

    jobs: int
    silos: int
    metric_rows: int


@dataclass(frozen=True, slots=True, repr=False)
class Filled:
    """What callers need to know.

    Attributes:
        size: How much there is.
        password: Of the user ``admin``.
        secret: Part of every silo's token.
        largest: The job with a tenth of all numbers.
        jobs: Some others.
        parts: Some (job, number of a silo in it).
    """

    size: Size
    password: str
    secret: str
    largest: str
    jobs: tuple[str, ...]
    parts: tuple[tuple[str, int], ...]

    def token(self, silo: int) -> str:
        """Return a silo's token."""
        return f"tkp_{self.secret}-{silo}"


def fill(settings: Settings, size: Size, *, secret: str) -> Filled:
    """Make the database.

    Args:
        settings: Of the control plane: PostgreSQL, an empty database, and a user who may do all in it.
        size: How much.
        secret: Part of every silo's token.
    """
    database = Database(settings.resolved_database_url)
    upgrade(database)
    database.dispose()
    server, first = start(settings)
    assert first is not None, "the database was empty"
    make_first(server)
    engine = server.database.engine
    with engine.begin() as connection:
        # References are not looked up, for they are right: that would take longer than all the rest.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        for table, count in _copy(connection, size, secret):
            say(f"  {count:,} {table}")
        say(f"  {_fill_metrics(connection, size):,} metrics")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        some = connection.execute(text(_SOME_PARTS), {"first": silo_name(0)}).all()
        largest = str(connection.execute(text("SELECT md5('job-1')::uuid")).scalar_one())
    server.database.dispose()
    parts = tuple((str(job), int(silo)) for job, silo in some)
    return Filled(size, first.password, secret, largest, tuple(job for job, _ in parts), parts)


_SOME_PARTS = (
    "SELECT job_id, substr(silos.name, 6)::int FROM job_silos JOIN silos ON silos.id = silo_id "
    "WHERE job_id <> md5('job-1')::uuid AND silos.name <> :first ORDER BY md5(job_id::text) LIMIT 500"
)


def _copy(connection: Connection, size: Size, secret: str) -> Iterator[tuple[str, int]]:
    """Fill all tables but the numbers'; yield each one's name and how many rows were added."""
    spec = JobSpec.parse(make_spec(list(range(PARTIES)))).canonical_bytes()
    values = {"jobs": size.jobs, "silos": size.silos, "secret": f"tkp_{secret}-", "spec": spec}
    silo = {"id": "md5('silo-' || n)::uuid", "name": "'silo-' || to_char(n, 'FM0000')"}
    silos, jobs = "generate_series(1, :silos) n", "generate_series(1, :jobs) n"
    statements = (
        ("silos", _copies(Silo, silo, silos)),
        (
            "datasets",
            _copies(Dataset, {"id": "gen_random_uuid()", "silo_id": silo["id"]}, silos),
        ),
        ("party_sessions", _SESSIONS),
        ("jobs", _copies(Job, _job(size), jobs)),
        (
            "job_silos",
            _copies(
                JobSilo,
                {"job_id": _JOB, "silo_id": _SILO_OF, "position": "p", "approval": "'approved'"},
                f"{jobs}, generate_series(0, {PARTIES - 1}) p",
            ),
        ),
        *_MADE_UP.items(),
    )
    for table, statement in statements:
        yield table, connection.execute(text(statement), values).rowcount
    connection.execute(text("UPDATE projects SET last_event_number = (SELECT max(number) FROM events)"))
    connection.execute(text("UPDATE audit_head SET number = (SELECT max(id) FROM audit_rows)"))


def _job(size: Size) -> dict[str, str]:
    return {
        "id": _JOB,
        "name": "'job-' || n % 200",
        "spec_bytes": "CAST(:spec AS bytea)",  # which names as many silos as take part
        "state": _STATE,
        "desired": f"CASE WHEN n % {_PAUSED_EVERY} = 0 THEN 'pause' ELSE 'run' END",
        "reason_code": _STATE,
        "created_at": _CREATED,
        "updated_at": _CREATED,
        "state_since": _CREATED,
        "last_metric_number": str(size.metric_rows),
        "last_log_number": str(EACH_JOB["job_log_lines"]),
    }


def _copies(table: type[Base], changed: Mapping[str, str], series: str) -> str:
    """Return the statement that copies a table's only row once for each of a series."""
    target = table.__table__
    assert isinstance(target, Table)
    names = [column.name for column in target.columns]
    values = [changed.get(name, f"t.{name}") for name in names]
    return (
        f"INSERT INTO {target.name} ({', '.join(names)}) "  # noqa: S608 - names of our own models
        f"SELECT {', '.join(values)} FROM (SELECT * FROM {target.name} LIMIT 1) t, {series}"
    )


_SESSIONS = """
INSERT INTO party_sessions (id, silo_id, digest, boot_id, epoch, created_at, expires_at, last_seen_at)
SELECT gen_random_uuid(), id, sha256((:secret || substr(name, 6)::int)::bytea), 'bench', 1, now(),
       now() + interval '1 day', now()
FROM silos WHERE name <> 'silo-0000'
"""
_EVERY = "SELECT row_number() OVER (ORDER BY jobs.id) AS j, jobs.* FROM jobs"
_MADE_UP = {
    "rounds": f"""
        INSERT INTO rounds (job_id, replica, number, epoch, state, started_at, committed_at)
        SELECT id, 0, k, 1, 'committed', created_at, created_at
        FROM jobs, generate_series(1, {EACH_JOB["rounds"]}) k
        """,  # noqa: S608 - a number of ours
    "leases": """
        INSERT INTO leases (job_id, replica, worker_id, epoch, expires_at, released_at, worker_epoch, round,
                            step)
        SELECT jobs.id, 0, workers.id, 1, created_at, created_at, 1, 3, 60 FROM jobs, workers
        """,
    "artifacts": f"""
        INSERT INTO artifacts (id, project_id, job_id, kind, name, digest, num_bytes, created_at, expires_at)
        SELECT gen_random_uuid(), project_id, id, CASE WHEN k = 3 THEN 'result' ELSE 'checkpoint' END,
               'artifact-' || k, sha256((id || '-' || k)::bytea), 1000, created_at,
               CASE WHEN k = 3 THEN now() + interval '90 days' END
        FROM jobs, generate_series(1, {EACH_JOB["artifacts"]}) k
        """,  # noqa: S608
    "events": f"""
        INSERT INTO events (project_id, number, job_id, kind, body, happened_at)
        SELECT project_id, 1000 + (j - 1) * {EACH_JOB["events"]} + k, id, 'round_committed', '{{"round": 1}}',
               created_at
        FROM ({_EVERY}) jobs, generate_series(1, {EACH_JOB["events"]}) k
        """,  # noqa: S608
    "job_log_lines": f"""
        INSERT INTO job_log_lines (job_id, party, at, event, number, level, received_at)
        SELECT id, 'silo:silo-0001', created_at + make_interval(secs => k), 'step', k, 'info', created_at
        FROM jobs, generate_series(1, {EACH_JOB["job_log_lines"]}) k
        """,  # noqa: S608
    "audit_rows": f"""
        INSERT INTO audit_rows (id, organization_id, happened_at, actor_kind, actor_name, address, action,
                                subject_kind, subject_name, outcome, details, salt, digest)
        SELECT 1000 + (j - 1) * {EACH_JOB["audit_rows"]} + k, organizations.id, jobs.created_at, 'user',
               'admin', '127.0.0.1', 'submit_job', 'job', jobs.id::text, 'done', '{{}}', '', ''
        FROM ({_EVERY}) jobs, organizations, generate_series(1, {EACH_JOB["audit_rows"]}) k
        """,  # noqa: S608
}


def _fill_metrics(connection: Connection, size: Size) -> int:
    """Make the numbers, then their indexes: the other way round takes many times as long."""
    table = Metric.__table__
    assert isinstance(table, Table)
    for index in table.indexes:
        index.drop(connection)
    connection.execute(text("ALTER TABLE metrics DROP CONSTRAINT pk_metrics"))
    of_step = PARTIES * len(NAMES)
    of_largest = size.metric_rows // _LARGEST_SHARE // of_step
    of_others = (size.metric_rows - of_largest * of_step) // max(1, size.jobs - 1) // of_step
    made = connection.execute(
        text(
            """
            INSERT INTO metrics (job_id, party, name, round, step, value, number, received_at)
            SELECT job_id, 'silo:' || silos.name, names.name, step / 20 + 1, step, 0.5,
                   step * :of_step + position * :num_names + names.k, now()
            FROM job_silos
            JOIN silos ON silos.id = silo_id
            CROSS JOIN LATERAL generate_series(
                0, CASE WHEN job_id = md5('job-1')::uuid THEN :of_largest ELSE :of_others END - 1
            ) step
            CROSS JOIN unnest(CAST(:names AS text[])) WITH ORDINALITY names (name, k)
            """
        ),
        {
            "of_step": of_step,
            "num_names": len(NAMES),
            "of_largest": of_largest,
            "of_others": of_others,
            "names": list(NAMES),
        },
    ).rowcount
    keys = ", ".join(column.name for column in table.primary_key)
    connection.execute(text(f"ALTER TABLE metrics ADD CONSTRAINT pk_metrics PRIMARY KEY ({keys})"))
    for index in table.indexes:
        index.create(connection)
    return made


def new_secret() -> str:
    """Return a part for all silos' tokens."""
    return uuid.uuid4().hex[:16]
