"""asyncpg: binary throughout, its own parser of the protocol, pipelined batches, portals, copies, pools."""

import asyncio
import io
import sys

import asyncpg

from common import MEGABYTES_16, SLEEPING, VALUES, show

FIELDS = ("severity_en", "sqlstate", "message", "detail", "hint", "position", "context", "schema_name", "table_name",
          "column_name", "data_type_name", "constraint_name", "server_source_filename", "server_source_function")


def fields(message):
    return {name: getattr(message, name) for name in FIELDS if getattr(message, name, None) is not None}


async def connect(**options):
    return await asyncpg.connect(server_settings={"application_name": "with_asyncpg"}, **options)


async def attempt(name, work):
    try:
        show(name, "no error", await work)
    except asyncpg.PostgresError as error:
        show(name, type(error).__name__, str(error), fields(error))


async def connection(conn):
    settings = conn.get_settings()
    show("settings", settings.client_encoding, settings.TimeZone, settings.DateStyle, settings.application_name)
    show("version", conn.get_server_version()[:2])
    show("tls", conn._transport.get_extra_info("ssl_object").version())


async def parameters(conn):
    for kind, value in VALUES:
        row = await conn.fetchrow(f"SELECT $1::{kind} AS value, pg_typeof($1::{kind})::text", value)
        show(kind, tuple(row))
    row = await conn.fetchrow("SELECT $1::json, $2::jsonb", '{"a": [1, null, "ü"]}', '{"b": {"c": 1.5}}')
    show("json", tuple(row))
    show("empty and null", tuple(await conn.fetchrow("SELECT $1::text, $2::text, $3::bytea", "", None, b"")))
    show("point, range, bit, inet", tuple(await conn.fetchrow(
        "SELECT '(1,2)'::point, '[1,5)'::int4range, B'1010', '10.0.0.0/8'::cidr, ROW(1, 'a', NULL)")))
    text, data = "ü☃x" * (MEGABYTES_16 // 6), bytes(range(256)) * (MEGABYTES_16 // 256)
    show("16 MB", tuple(await conn.fetchrow("SELECT $1::text, $2::bytea, length($1::text)", text, data)))
    await conn.execute("CREATE TYPE pg_temp.mood AS ENUM ('sad', 'ok ü'); CREATE TYPE pg_temp.pair AS (a int, b text)")
    row = await conn.fetchrow("SELECT $1::pg_temp.mood, $2::pg_temp.pair", "ok ü", (1, "x"))
    show("types of one's own", row[0], tuple(row[1]))


async def prepared(conn):
    statement = await conn.prepare("SELECT $1::int4 * 2 AS prepared")
    values = [await statement.fetchval(n) for n in range(100)]
    show("prepared", sum(values), [str(p.name) for p in statement.get_parameters()],
         [a.name for a in statement.get_attributes()])
    for n in range(300):
        # More than the cache of statements holds: they are closed as others come.
        await conn.fetchval(f"SELECT $1::int4 + {n}", 1)
    show("known", await conn.fetchval("SELECT count(*) FROM pg_prepared_statements") <= 102)
    await conn.execute("CREATE TEMP TABLE shape (a int)")
    await conn.execute("INSERT INTO shape VALUES (1)")
    show("before", tuple(await conn.fetchrow("SELECT * FROM shape")))
    await conn.execute("ALTER TABLE shape ADD b text DEFAULT 'new'")
    show("after", tuple(await conn.fetchrow("SELECT * FROM shape")))
    await conn.execute("DEALLOCATE ALL")
    await attempt("deallocated", statement.fetchval(1))
    await conn.reload_schema_state()


async def cursors(conn):
    async with conn.transaction():
        seen = [record[0] async for record in conn.cursor("SELECT generate_series(1, $1::int4)", 57, prefetch=10)]
        show("iterated", seen)
        cursor = await conn.cursor("SELECT generate_series(1, 20)")
        show("fetched", [r[0] for r in await cursor.fetch(3)], (await cursor.fetchrow())[0])
        await cursor.forward(5)
        show("forward", [r[0] for r in await cursor.fetch(100)])
        # Two portals, by turns.
        one, two = [await conn.cursor(f"SELECT n, {k} FROM generate_series(1, 9) n") for k in (1, 2)]
        show("by turns", [[tuple(r) for r in await which.fetch(2)] for which in (one, two, one, two)])


async def batches(conn):
    await conn.execute("CREATE TEMP TABLE batch (n int PRIMARY KEY, t text)")
    await conn.executemany("INSERT INTO batch VALUES ($1, $2)", [(n, f"ü{n}") for n in range(3000)])
    show("rows", await conn.fetchval("SELECT count(*) FROM batch"))
    await attempt("twice", conn.executemany("INSERT INTO batch VALUES ($1, 'x')", [(n,) for n in (9000, 9001, 5, 9002)]))
    show("rows", await conn.fetchval("SELECT count(*) FROM batch"))
    rows = await conn.fetchmany("INSERT INTO batch VALUES ($1, $2) RETURNING n", [(n, None) for n in range(5000, 5005)])
    show("returned", [row[0] for row in rows])
    large = [(n, "x" * 100_000) for n in range(10_000, 10_080)]
    await conn.executemany("INSERT INTO batch VALUES ($1, $2)", large)
    show("8 MB", await conn.fetchval("SELECT sum(length(t)) FROM batch WHERE n >= 10000"))


async def copies(conn):
    await conn.execute("CREATE TEMP TABLE copied (n int4, t text, d bytea, at timestamptz)")
    records = [(n, f"ü{n}" if n % 3 else None, bytes([n % 256]), None) for n in range(5000)]
    show("records", await conn.copy_records_to_table("copied", records=records))
    out = io.BytesIO()
    show("out", await conn.copy_from_query("SELECT * FROM copied WHERE n < $1 ORDER BY n", 3000, output=out))
    show("text", out.getvalue())
    out = io.BytesIO()
    show("out", await conn.copy_from_table("copied", columns=["n", "t"], output=out, format="csv", header=True))
    show("csv", out.getvalue())
    out.seek(0)
    show("in", await conn.copy_to_table("copied", columns=["n", "t"], source=out, format="csv", header=True))
    out = io.BytesIO()
    await conn.copy_from_table("copied", output=out, format="binary")
    show("binary", out.getvalue())
    await attempt("bad row", conn.copy_to_table("copied", source=io.BytesIO(b"not a number\tx\n")))

    async def broken():
        yield b"1\tx\t\\N\t\\N\n"
        raise ValueError("changed my mind")

    try:
        await conn.copy_to_table("copied", source=broken())
    except ValueError as error:
        show("given up", str(error))
    show("rows", await conn.fetchval("SELECT count(*) FROM copied"))


async def transactions(conn):
    await conn.execute("CREATE TEMP TABLE kept (n int CHECK (n < 10))")
    async with conn.transaction(isolation="serializable"):
        await conn.execute("INSERT INTO kept VALUES ($1)", 1)
        try:
            async with conn.transaction():
                await conn.execute("INSERT INTO kept VALUES (2)")
                await conn.execute("INSERT INTO kept VALUES ($1)", 11)
        except asyncpg.CheckViolationError as error:
            show("check", fields(error))
        show("isolation", await conn.fetchval("SHOW transaction_isolation"))
    show("kept", [row[0] for row in await conn.fetch("TABLE kept")])
    await attempt("syntax", conn.fetch("SELEC 1"))
    await attempt("position", conn.fetch("SELECT 'ünï', nowhere FROM accounts WHERE id = $1", 1))
    await attempt("raised", conn.execute(
        "DO $$ BEGIN RAISE EXCEPTION 'mine ü' USING ERRCODE = 'P0042', DETAIL = 'so', HINT = 'do', COLUMN = 'c', "
        "TABLE = 't', SCHEMA = 's', DATATYPE = 'd', CONSTRAINT = 'k'; END $$"))
    told = []
    listener = lambda _, message: told.append(fields(message))
    conn.add_log_listener(listener)
    await conn.execute("DO $$ BEGIN RAISE NOTICE 'n ü'; RAISE WARNING 'w' USING HINT = 'h'; END $$")
    await conn.fetchval("SELECT 1")
    await asyncio.sleep(0)
    show("notices", told)
    conn.remove_log_listener(listener)
    show("several statements", await conn.execute("SELECT 1; SELECT 2; CREATE TEMP TABLE third (n int)"))
    await attempt("several with an error", conn.execute("INSERT INTO kept VALUES (5); SELECT 1/0"))
    show("kept", [row[0] for row in await conn.fetch("TABLE kept")])
    show("empty", await conn.fetch(""))


async def notifications(conn):
    heard = asyncio.Queue()
    listener = await connect()
    await listener.add_listener("news", lambda _, pid, channel, payload: heard.put_nowait((channel, payload)))
    async with conn.transaction():
        await conn.execute("SELECT pg_notify('news', $1)", "one ü")
        await conn.execute("NOTIFY news, 'two'")
    show("heard", [await asyncio.wait_for(heard.get(), 60) for _ in range(2)])
    await listener.close()


async def cancels(conn):
    watcher = await connect()
    sleeping = asyncio.ensure_future(conn.execute("SELECT pg_sleep(600)"))
    while await watcher.fetchval(SLEEPING) == 0:
        pass
    # asyncpg asks the server to cancel when its caller loses interest.
    sleeping.cancel()
    try:
        await sleeping
    except asyncio.CancelledError:
        show("cancelled")
    show("goes on", await conn.fetchval("SELECT 42"))
    await watcher.close()


async def pools():
    async with asyncpg.create_pool(min_size=1, max_size=1) as pool:
        for _ in range(3):
            async with pool.acquire() as conn:
                show("fresh", await conn.fetchval("SELECT current_setting('my.mark', true)"),
                     await conn.fetchval("SELECT count(*) FROM pg_listening_channels()"))
                await conn.execute("SET my.mark = 'left behind'; LISTEN news; CREATE TEMP TABLE IF NOT EXISTS x (n int)")
                await conn.execute("SELECT pg_advisory_lock(42)")
                show("pooled", await conn.fetchval("SELECT $1::int4 AS pooled", 7))
    async with asyncpg.create_pool(min_size=4, max_size=4) as pool:
        show("sixteen tasks", await asyncio.gather(*(pool.fetchval("SELECT $1::int4 + 1", n) for n in range(16))))
    direct = await connect(statement_cache_size=0)
    show("without cache", [await direct.fetchval("SELECT $1::int4 AS uncached", n) for n in range(5)])
    await direct.execute("DISCARD ALL")
    show("after DISCARD ALL", await direct.fetchval("SELECT $1::text", "ü"))
    await direct.close()


async def main():
    conn = await connect()
    for part in (connection, parameters, prepared, cursors, batches, copies, transactions, notifications, cancels):
        print(f"== {part.__name__}")
        await part(conn)
    await conn.close()
    print("== pools")
    await pools()


sys.exit(asyncio.run(main()))
