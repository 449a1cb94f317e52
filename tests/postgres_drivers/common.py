"""What the scripts for Python's drivers have in common: how they print, so that two runs can be compared."""

import datetime
import decimal
import hashlib
import re
import uuid

MEGABYTES_16 = 16 * 1024 * 1024
UTC = datetime.timezone.utc

# Values of every usual type, with the type's name; each goes out as a parameter and must come back the same.
VALUES = [
    ("int2", 32767),
    ("int4", 2147483647),
    ("int8", -9223372036854775808),
    ("float8", 1.5e-300),
    ("float8", float("-inf")),
    ("numeric", decimal.Decimal("-12345678901234567890.0123456789")),
    ("numeric", decimal.Decimal("NaN")),
    ("text", "ünï ☃ 𝄞 ' \\ \" $1 %s\n\t"),
    ("text", ""),
    ("text", None),
    ("varchar", "o'hara; DROP TABLE accounts"),
    ("bool", True),
    ("bool", False),
    ("bytea", bytes(range(256))),
    ("bytea", b""),
    ("uuid", uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")),
    ("date", datetime.date(2026, 2, 28)),
    ("time", datetime.time(23, 59, 59, 999999)),
    ("timestamp", datetime.datetime(1999, 12, 31, 23, 59, 59, 1)),
    ("timestamptz", datetime.datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)),
    ("interval", datetime.timedelta(days=-3, seconds=7, microseconds=9)),
    ("int4[]", [1, None, -3]),
    ("text[]", ["a,b", "", None, 'q"\\', "ü"]),
    ("int4[]", []),
    ("int8[]", [[1, 2], [3, 4]]),
]

SLEEPING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event = 'PgSleep' AND usename = session_user"
)


def brief(value):
    """As it is, unless it is long."""
    if isinstance(value, memoryview):
        value = bytes(value)
    if isinstance(value, (str, bytes)) and len(value) > 1000:
        data = value.encode() if isinstance(value, str) else value
        return f"<{type(value).__name__} {len(value)} {hashlib.sha256(data).hexdigest()}>"
    if type(value) in (list, tuple):
        return type(value)(brief(one) for one in value)
    return value


def show(name, *values):
    line = " ".join([f"{name}:", *(repr(brief(value)) for value in values)])
    # Each connection's temporary tables have a schema of their own.
    print(re.sub(r"pg_temp_\d+", "pg_temp", line), flush=True)


def fields(diagnostics):
    """Everything that an error or a notice says, of psycopg 2 and 3."""
    names = [name for name in dir(diagnostics) if not name.startswith("_")]
    told = {name: getattr(diagnostics, name) for name in sorted(names)}
    return {name: value for name, value in told.items() if isinstance(value, str)}
