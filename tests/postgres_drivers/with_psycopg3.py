"""psycopg 3: both parameter formats, pipelines, cursors, copies, notifications, cancels, pools."""

import logging
import sys
import threading

import psycopg
from psycopg.types.json import Json, Jsonb
from psycopg_pool import ConnectionPool

from common import MEGABYTES_16, SLEEPING, VALUES, fields, show

# Host, certificate, user and password come from the environment.
CONNINFO = "application_name=with_psycopg3"


def attempt(name, work):
    """Shows the error that `work` ends with, in full."""
    try:
        show(name, "no error", work())
    except psycopg.Error as error:
        show(name, type(error).__name__, error.sqlstate, str(error), fields(error.diag))


def connection(conn):
    info = conn.info
    show("connection", info.dbname, info.host, info.encoding, info.server_version, info.timezone)
    show("tls", conn.pgconn.ssl_in_use, conn.pgconn.used_password)
    for name in ("client_encoding", "DateStyle", "integer_datetimes", "standard_conforming_strings"):
        show(name, info.parameter_status(name))
    show("application", conn.execute("SHOW application_name").fetchone())


def parameters(conn):
    for binary in (False, True):
        place = "%b" if binary else "%t"
        cursor = conn.cursor(binary=binary)
        for kind, value in VALUES:
            cursor.execute(f"SELECT {place}::{kind}, pg_typeof({place}::{kind})::text", (value, value))
            show(f"{kind} {place}", cursor.fetchone())
        document = {"a": [1, None, "ü"], "b": {"c": 1.5}}
        cursor.execute(f"SELECT {place}::json, {place}::jsonb", (Json(document), Jsonb(document)))
        show("json", cursor.fetchone())
        cursor.execute(f"SELECT {place}::text, {place}::text, {place}::text IS NULL", ("", None, None))
        show("empty and null", cursor.fetchone())
        text, data = "ü☃x" * (MEGABYTES_16 // 6), bytes(range(256)) * (MEGABYTES_16 // 256)
        cursor.execute(f"SELECT {place}::text, {place}::bytea", (text, data))
        show("16 MB", cursor.fetchone())
    show("many", conn.execute("SELECT " + ", ".join(["%s::int4"] * 1600), range(1600)).fetchone())


def prepared(conn):
    for number in range(50):
        row = conn.execute("SELECT %s::int4 * 2 AS prepared", (number,), prepare=True).fetchone()
        assert row == (number * 2,)
    # Prepared from the fifth time on.
    for number in range(12):
        conn.execute("SELECT %s::text || '!' AS soon_prepared", (str(number),))
    show("prepared", conn.execute("SELECT statement, from_sql FROM pg_prepared_statements ORDER BY 1").fetchall())
    conn.execute("DEALLOCATE ALL")
    attempt("after DEALLOCATE", lambda: conn.execute("SELECT %s::int4 * 2 AS prepared", (7,)).fetchone())
    conn.rollback()


def cursors(conn):
    with conn.transaction(), conn.cursor(name="parts") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT n, n * n FROM generate_series(1, %s) n", (40,))
        show("iterated", list(cursor))
    with conn.transaction(), conn.cursor(name="scrolls ünï", scrollable=True) as cursor:
        cursor.execute("SELECT generate_series(1, 20)")
        show("fetched", cursor.fetchmany(3), cursor.fetchone())
        cursor.scroll(10)
        show("scrolled", cursor.fetchmany(2))
        cursor.scroll(2, mode="absolute")
        show("scrolled back", cursor.fetchmany(2))
    with conn.cursor() as cursor:
        show("streamed", sum(n for (n,) in cursor.stream("SELECT generate_series(1, 30000)")))
        chunks = cursor.stream("SELECT generate_series(1, 10)", size=4) if psycopg.pq.version() >= 170000 else [(0,)]
        show("streamed in chunks", len(list(chunks)) > 0)
    conn.commit()


def pipelines(conn):
    conn.execute("CREATE TEMP TABLE piped (n int PRIMARY KEY, t text)")
    conn.commit()
    with conn.pipeline() as pipeline, conn.cursor() as cursor:
        cursor.executemany("INSERT INTO piped VALUES (%s, %s)", [(n, f"ü{n}") for n in range(300)])
        answers = [conn.execute("SELECT t FROM piped WHERE n = %s", (n,)) for n in range(0, 300, 50)]
        pipeline.sync()
        show("piped", [answer.fetchone() for answer in answers])
    conn.commit()
    with conn.cursor() as cursor:
        returned = "INSERT INTO piped VALUES (%s, %s) RETURNING n"
        cursor.executemany(returned, [(n, "r") for n in range(1000, 1004)], returning=True)
        rows = [cursor.fetchone()]
        while cursor.nextset():
            rows.append(cursor.fetchone())
        show("executemany returning", rows, cursor.rowcount)
    conn.commit()

    def failing():
        with conn.pipeline():
            conn.execute("INSERT INTO piped VALUES (2000, 'undone')")
            conn.execute("INSERT INTO piped VALUES (%s, 'twice')", (1,))
            conn.execute("SELECT 'never in a pipeline'")

    attempt("failing pipeline", failing)
    conn.rollback()
    show("after it", conn.execute("SELECT count(*) FROM piped WHERE n = 2000").fetchone())
    conn.commit()
    conn.autocommit = True

    def around_an_error():
        with conn.pipeline() as pipeline:
            first = conn.execute("SELECT 1")
            pipeline.sync()
            show("before an error", first.fetchone())
            # Which of these raises it depends on when its answer comes.
            conn.execute("SELECT 1/0")
            conn.execute("SELECT 'skipped'")
            pipeline.sync()

    attempt("in a pipeline", around_an_error)
    show("status", str(conn.info.transaction_status), conn.execute("SELECT 5").fetchone())
    conn.autocommit = False


def copies(conn):
    with conn.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE copied (n int4, t text, d bytea, f float8)")
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for n in range(2000):
                copy.write_row((n, f"ü\t{n}\\N" if n % 3 else None, bytes([n % 256]), n / 4))
        show("copied in", cursor.rowcount, cursor.statusmessage)
        with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "bytea", "float8"])
            for n in range(2000, 4000):
                copy.write_row((n, f"ü{n}" if n % 3 else None, bytes([n % 256]), n / 4))
        show("copied in, binary", cursor.rowcount)
        with cursor.copy("COPY (SELECT * FROM copied WHERE n > %s ORDER BY n) TO STDOUT", (10,)) as copy:
            show("copied out", b"".join(bytes(part) for part in copy))
        with cursor.copy("COPY (SELECT * FROM copied ORDER BY n) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "bytea", "float8"])
            rows = list(copy.rows())
            show("copied out, binary", len(rows), rows[1999:2002])
        with cursor.copy("COPY copied (t) FROM STDIN") as copy:
            for _ in range(4):
                copy.write("x" * (4 * 1024 * 1024) + "\n")
        show("copied, large", cursor.rowcount)
    conn.commit()

    def bad_row():
        with conn.cursor().copy("COPY copied FROM STDIN") as copy:
            copy.write("not a number\tx\tx\t1\n")

    attempt("bad row", bad_row)
    conn.rollback()

    def given_up():
        with conn.cursor().copy("COPY copied FROM STDIN") as copy:
            copy.write("1\tx\t")
            raise ValueError("changed my mind")

    try:
        given_up()
    except ValueError as error:
        show("given up", str(error), str(conn.info.transaction_status))
    conn.rollback()
    try:
        with conn.cursor() as cursor, cursor.copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
            show("left early", bytes(next(iter(copy))))
            raise ValueError("seen enough")
    except ValueError as error:
        show("left early", str(error))
    conn.rollback()
    show("rows", conn.execute("SELECT count(*) FROM copied").fetchone())
    conn.commit()


def transactions(conn):
    with conn.transaction():
        conn.execute("CREATE TEMP TABLE kept (n int CHECK (n < 10))")
        conn.execute("INSERT INTO kept VALUES (1)")
        try:
            with conn.transaction("inner point"):
                conn.execute("INSERT INTO kept VALUES (2)")
                conn.execute("INSERT INTO kept VALUES (%s)", (11,))
        except psycopg.errors.CheckViolation as error:
            show("check", fields(error.diag))
        show("in between", str(conn.info.transaction_status), conn.execute("TABLE kept").fetchall())
    attempt("syntax", lambda: conn.execute("SELEC 1"))
    attempt("in a failed transaction", lambda: conn.execute("SELECT 1"))
    show("status", str(conn.info.transaction_status))
    conn.rollback()
    attempt("raised", lambda: conn.execute(
        "DO $$ BEGIN RAISE EXCEPTION 'mine ü' USING ERRCODE = 'P0042', DETAIL = 'so', HINT = 'do', COLUMN = 'c', "
        "TABLE = 't', SCHEMA = 's', DATATYPE = 'd', CONSTRAINT = 'k'; END $$"))
    conn.rollback()
    attempt("position", lambda: conn.execute("SELECT 'ünï', nowhere FROM accounts WHERE id = %s", (1,)))
    conn.rollback()
    attempt("type", lambda: conn.execute("SELECT %s::int4", ("x",)))
    conn.rollback()
    conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    show("isolation", conn.execute("SHOW transaction_isolation").fetchone())
    conn.rollback()
    conn.isolation_level = None


def notices(conn):
    told = []
    conn.add_notice_handler(lambda diagnostics: told.append(fields(diagnostics)))
    conn.execute("DO $$ BEGIN RAISE NOTICE 'n ü'; RAISE WARNING 'w' USING HINT = 'h'; RAISE INFO 'i'; END $$")
    conn.execute("DROP TABLE IF EXISTS nothing_there")
    show("notices", told)
    conn.commit()


def several(conn):
    cursor = conn.execute("SELECT 1 AS a; SELECT 2 AS b, 3 AS c; SET LOCAL work_mem = '1MB'; SELECT 'ü'")
    seen = []
    while True:
        seen.append((cursor.statusmessage, cursor.description and cursor.fetchall()))
        if not cursor.nextset():
            break
    show("several statements", seen)
    conn.commit()
    attempt("several with parameters", lambda: conn.execute("SELECT %s::int4; SELECT 2", (1,)))
    conn.rollback()
    show("empty", conn.execute("").statusmessage, conn.execute(" ; -- x").statusmessage)
    conn.commit()


def notifications(conn):
    with psycopg.connect(CONNINFO, autocommit=True) as listener:
        listener.execute("LISTEN news")
        with conn.transaction():
            conn.execute("SELECT pg_notify('news', %s)", ("ü one",))
            conn.execute("NOTIFY news, 'two'")
            conn.execute("SELECT pg_notify('news', %s)", ("x" * 7999,))
        heard = [(n.channel, n.payload) for n in listener.notifies(timeout=60, stop_after=3)]
        show("heard", heard)
        listener.execute("UNLISTEN *")


def cancels(conn):
    # With a key of four bytes, and with a long one where the server speaks that version.
    newer = psycopg.connect(CONNINFO, max_protocol_version="3.2")
    for conn, cancel in ((conn, conn.cancel), (conn, conn.cancel_safe), (newer, newer.cancel_safe)):
        with psycopg.connect(CONNINFO, autocommit=True) as watcher:
            def cancel_when_asleep():
                while watcher.execute(SLEEPING).fetchone() == (0,):
                    pass
                cancel()

            thread = threading.Thread(target=cancel_when_asleep)
            thread.start()
            attempt("cancelled", lambda: conn.execute("SELECT pg_sleep(600)"))
            thread.join()
        conn.rollback()
        show("goes on", conn.execute("SELECT 42").fetchone())
        conn.commit()
    newer.close()


def pools():
    def reset(conn):
        conn.execute("DISCARD ALL")

    with ConnectionPool(CONNINFO, min_size=1, max_size=1, reset=reset, kwargs={"autocommit": True}) as pool:
        for round in range(3):
            with pool.connection() as conn:
                show("fresh", conn.execute("SELECT current_setting('my.mark', true)").fetchone(),
                     conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchone())
                conn.execute("SET my.mark = 'left behind'")
                for n in range(8):
                    conn.execute("SELECT %s::int4 AS pooled", (n,))
                conn.execute("CREATE TEMP TABLE left_behind (n int)")
                # psycopg must forget what DISCARD ALL forgot.
                conn.prepare_threshold = 5
    with ConnectionPool(CONNINFO, min_size=4, max_size=4) as pool:
        def work(n):
            with pool.connection() as conn:
                results[n] = conn.execute("SELECT %s::int4 + 1", (n,)).fetchone()

        results = [None] * 16
        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        show("sixteen threads", results)


def main():
    # It names the connection's port.
    logging.disable(logging.CRITICAL)
    with psycopg.connect(CONNINFO) as conn:
        for part in (connection, parameters, prepared, cursors, pipelines, copies, transactions, notices, several,
                     notifications, cancels):
            print(f"== {part.__name__}")
            part(conn)
            conn.commit()
    print("== pools")
    pools()


sys.exit(main())
