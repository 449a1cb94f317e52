"""psycopg 2: simple queries alone, named cursors, copies, notifications, cancels, pools; and large objects."""

import io
import select
import sys
import threading

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

from common import MEGABYTES_16, SLEEPING, VALUES, fields, show

CONNINFO = "application_name=with_psycopg2"


def attempt(name, conn, sql, *arguments):
    try:
        with conn.cursor() as cursor:
            cursor.execute(sql, *arguments)
            show(name, "no error")
    except psycopg2.Error as error:
        show(name, type(error).__name__, error.pgcode, str(error), fields(error.diag))


def one(conn, sql, *arguments):
    with conn.cursor() as cursor:
        cursor.execute(sql, *arguments)
        return cursor.fetchone()


def connection(conn):
    show("connection", conn.encoding, conn.server_version, conn.protocol_version)
    show("tls", conn.info.ssl_in_use, conn.info.used_password)
    for name in ("client_encoding", "DateStyle", "TimeZone", "integer_datetimes"):
        show(name, conn.get_parameter_status(name))


def parameters(conn):
    for kind, value in VALUES:
        show(kind, one(conn, f"SELECT (%s)::{kind}, pg_typeof((%s)::{kind})::text", (value, value)))
    show("json", one(conn, "SELECT %s::jsonb", (psycopg2.extras.Json({"a": [1, None, "ü"]}),)))
    show("empty and null", one(conn, "SELECT %s::text, %s::text", ("", None)))
    text, data = "ü☃x" * (MEGABYTES_16 // 6), bytes(range(256)) * (MEGABYTES_16 // 256)
    show("16 MB text", one(conn, "SELECT %s::text", (text,)))
    show("16 MB bytea", one(conn, "SELECT %s::bytea", (data,)))
    show("row", one(conn, "SELECT ROW(1, 'a')::text, '{1,2}'::int4[]::text"))


def cursors(conn):
    with conn.cursor() as cursor:
        cursor.execute("PREPARE own (int4) AS SELECT $1 * 2")
        for number in range(20):
            cursor.execute("EXECUTE own (%s)", (number,))
        show("prepared", cursor.fetchone())
        cursor.execute("DEALLOCATE own")
    with conn.cursor(name="parts", scrollable=True) as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT n, n * n FROM generate_series(1, %s) n", (40,))
        show("iterated", list(cursor))
        cursor.scroll(5, mode="absolute")
        show("scrolled", cursor.fetchmany(3))
    with conn.cursor(name="ünï", withhold=True) as cursor:
        cursor.execute("SELECT generate_series(1, 10)")
        conn.commit()
        show("held", cursor.fetchmany(4), cursor.fetchall())
    conn.commit()
    with conn.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE many (n int, t text)")
        psycopg2.extras.execute_batch(cursor, "INSERT INTO many VALUES (%s, %s)", [(n, f"ü{n}") for n in range(500)])
        psycopg2.extras.execute_values(cursor, "INSERT INTO many VALUES %s", [(n, None) for n in range(500)])
        cursor.executemany("UPDATE many SET t = %s WHERE n = %s", [("x", n) for n in range(20)])
        cursor.execute("SELECT count(*), count(t) FROM many")
        show("batches", cursor.fetchone())
    conn.commit()


def copies(conn):
    with conn.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE copied (n int4, t text)")
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("".join(f"{n}\tü{n}\n" for n in range(3000))))
        show("copied in", cursor.rowcount)
        out = io.BytesIO()
        cursor.copy_expert("COPY (SELECT * FROM copied ORDER BY n) TO STDOUT (FORMAT binary)", out)
        show("copied out", out.getvalue())
        out.seek(0)
        cursor.copy_expert("COPY copied FROM STDIN (FORMAT binary)", out)
        show("copied in, binary", cursor.rowcount)
        cursor.copy_from(io.StringIO("1|\\N\n2|x\n"), "copied", sep="|")
        text = io.StringIO()
        cursor.copy_expert("COPY (SELECT * FROM copied ORDER BY n, t) TO STDOUT (FORMAT csv, HEADER)", text)
        show("csv", text.getvalue())
    conn.commit()
    try:
        with conn.cursor() as cursor:
            cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("not a number\tx\n"))
    except psycopg2.Error as error:
        show("bad row", error.pgcode, fields(error.diag))
    conn.rollback()

    class Broken(io.StringIO):
        def read(self, size=-1):
            raise ValueError("no more")

    try:
        with conn.cursor() as cursor:
            cursor.copy_expert("COPY copied FROM STDIN", Broken())
    except psycopg2.Error as error:
        show("given up", error.pgcode, error.pgerror)
    conn.rollback()


def large_objects(conn):
    data = bytes(range(256)) * 4000
    large = conn.lobject(0, "wb")
    large.write(data)
    large.close()
    conn.commit()
    large = conn.lobject(large.oid, "rb")
    show("read", large.read(), large.tell())
    large.seek(1000)
    show("read at 1000", large.read(5))
    large.unlink()
    conn.commit()


def transactions(conn):
    with conn.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE kept (n int CHECK (n < 10))")
        cursor.execute("INSERT INTO kept VALUES (1); SAVEPOINT inner_point; INSERT INTO kept VALUES (2)")
    attempt("check", conn, "INSERT INTO kept VALUES (%s)", (11,))
    attempt("in a failed transaction", conn, "SELECT 1")
    show("status", conn.status, conn.info.transaction_status)
    with conn.cursor() as cursor:
        cursor.execute("ROLLBACK TO inner_point")
    conn.commit()
    show("kept", one(conn, "SELECT array_agg(n) FROM kept"))
    attempt("syntax", conn, "SELECT 'ünï', nowhere FROM accounts")
    conn.rollback()
    with conn.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2, 'ü'; SELECT 3")
        show("several statements", cursor.fetchall(), cursor.statusmessage)
    attempt("several with an error", conn, "SELECT 1; SELECT 1/0; SELECT 3")
    conn.rollback()
    conn.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=True)
    show("session", one(conn, "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"))
    attempt("read only", conn, "CREATE TABLE nothing_there (n int)")
    conn.rollback()
    conn.set_session(isolation_level="DEFAULT", readonly=False, deferrable=False)
    with conn.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE NOTICE 'n ü'; RAISE WARNING 'w'; END $$")
    show("notices", list(conn.notices))
    conn.set_client_encoding("LATIN1")
    show("latin 1", conn.encoding, one(conn, "SELECT 'ü', %s, length('ü')", ("é",)))
    attempt("not in latin 1", conn, "SELECT chr(9731)")
    conn.rollback()
    conn.set_client_encoding("SJIS")
    show("sjis", conn.encoding, one(conn, "SELECT '表', %s, octet_length(convert_to('表示', 'UTF8'))", ("ソ",)))
    conn.set_client_encoding("UTF8")
    conn.commit()


def notifications(conn):
    listener = psycopg2.connect(CONNINFO)
    listener.autocommit = True
    with listener.cursor() as cursor:
        cursor.execute("LISTEN news")
    with conn.cursor() as cursor:
        cursor.execute("NOTIFY news, 'one ü'; SELECT pg_notify('news', 'two')")
    conn.commit()
    while len(listener.notifies) < 2 and select.select([listener], [], [], 60)[0]:
        listener.poll()
    show("heard", [(notify.channel, notify.payload) for notify in listener.notifies])
    listener.close()


def cancels(conn):
    watcher = psycopg2.connect(CONNINFO)
    watcher.autocommit = True

    def cancel_when_asleep():
        while one(watcher, SLEEPING) == (0,):
            pass
        conn.cancel()

    thread = threading.Thread(target=cancel_when_asleep)
    thread.start()
    attempt("cancelled", conn, "SELECT pg_sleep(600)")
    thread.join()
    watcher.close()
    conn.rollback()
    show("goes on", one(conn, "SELECT 42"))
    conn.commit()


def pools(conn):
    pool = psycopg2.pool.ThreadedConnectionPool(1, 2, CONNINFO)
    for _ in range(3):
        pooled = pool.getconn()
        pooled.autocommit = True
        show("fresh", one(pooled, "SELECT current_setting('my.mark', true)"))
        with pooled.cursor() as cursor:
            cursor.execute("SET my.mark = 'left behind'")
            cursor.execute("DISCARD ALL")
        pooled.autocommit = False
        pool.putconn(pooled)
    pooled = pool.getconn()
    pooled.set_session(isolation_level="SERIALIZABLE")
    pooled.reset()
    show("reset", one(pooled, "SHOW transaction_isolation"))
    pool.putconn(pooled)
    pool.closeall()


def main():
    psycopg2.extras.register_uuid()
    conn = psycopg2.connect(CONNINFO)
    for part in (connection, parameters, cursors, copies, large_objects, transactions, notifications, cancels, pools):
        print(f"== {part.__name__}")
        part(conn)
        conn.commit()
    conn.close()


sys.exit(main())
