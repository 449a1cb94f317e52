"""SQLAlchemy over psycopg 3 and asyncpg: reflection, the ORM, batches that return, savepoints, streams, its pool."""

import asyncio
import datetime
import decimal
import os
import sys
import threading
import uuid

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, INTERVAL, JSONB, insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from common import SLEEPING, UTC, fields, show


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "alchemy_people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text, unique=True, comment="ü")
    born: Mapped[datetime.date | None]
    seen: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    worth: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(12, 2), default=0)
    badge: Mapped[uuid.UUID | None]
    photo: Mapped[bytes | None] = mapped_column(BYTEA)
    wears: Mapped[list[str] | None] = mapped_column(ARRAY(sa.Text))
    facts: Mapped[dict | None] = mapped_column(JSONB)
    rests: Mapped[datetime.timedelta | None] = mapped_column(INTERVAL)
    pets: Mapped[list["Pet"]] = relationship(back_populates="owner", order_by="Pet.id")


class Pet(Base):
    __tablename__ = "alchemy_pets"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), index=True)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("alchemy_people.id", ondelete="CASCADE"))
    owner: Mapped[Person] = relationship(back_populates="pets")


def url(driver):
    e = os.environ
    return sa.URL.create(f"postgresql+{driver}", e["PGUSER"], e["PGPASSWORD"], "localhost", int(e["PGPORT"]), "ledger")


def reflect(connection):
    inspector = sa.inspect(connection)
    for table in ("alchemy_people", "alchemy_pets"):
        show(table, [(c["name"], str(c["type"]), c["nullable"], c["comment"]) for c in inspector.get_columns(table)])
        show("keys", inspector.get_pk_constraint(table), inspector.get_foreign_keys(table))
        show("indices", inspector.get_indexes(table), inspector.get_unique_constraints(table))


def orm(session):
    people = [Person(name=f"person ü {n}", born=datetime.date(2000, 1, 1 + n % 28), worth=decimal.Decimal(n) / 4,
                     seen=datetime.datetime(2026, 1, 1, n % 24, tzinfo=UTC), badge=uuid.UUID(int=n),
                     photo=bytes([n % 256, 0, 255]), wears=["hat", None, "ü"] if n % 2 else [], rests=datetime.timedelta(n),
                     facts={"n": n, "none": None}, pets=[Pet(name=f"pet {n}")] if n % 3 == 0 else [])
              for n in range(300)]
    session.add_all(people)
    session.flush()
    show("ids", people[0].id, people[299].id)
    query = sa.select(Person).join(Person.pets).where(Person.worth > 60, Pet.name.like("pet %")).order_by(Person.id)
    show("joined", [(p.name, p.born, p.seen.astimezone(UTC), p.worth, p.badge, p.photo, p.wears, p.facts, p.rests)
                    for p in session.scalars(query.limit(5))])
    try:
        with session.begin_nested():
            session.add(Person(name="person ü 1"))
            session.flush()
    except sa.exc.IntegrityError as error:
        show("savepoint", type(error).__name__, getattr(error.orig, "sqlstate", None), error.statement)
    session.execute(sa.update(Person).where(Person.id < 10).values(worth=Person.worth + 1))
    session.execute(sa.delete(Pet).where(Pet.id > 90))
    upsert = insert(Person).values(name="person ü 2", worth=1)
    session.execute(upsert.on_conflict_do_update(index_elements=["name"], set_={"worth": 1000}))
    rows = [{"name": f"many {n}", "worth": n} for n in range(2500)]
    returned = session.execute(sa.insert(Person).returning(Person.id, sort_by_parameter_order=True), rows)
    show("returned", [row.id for row in returned][::500])
    show("sums", session.execute(sa.select(sa.func.count(), sa.func.sum(Person.worth)).select_from(Person)).one())
    show("in", session.scalars(sa.select(Person.name).where(Person.id.in_(range(1, 40, 13))).order_by("name")).all())
    session.commit()


def with_psycopg():
    engine = sa.create_engine(url("psycopg"), pool_size=1, max_overflow=0, pool_pre_ping=True)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        reflect(connection)
    with Session(engine) as session:
        orm(session)
    with engine.connect().execution_options(yield_per=100) as connection:
        show("streamed", [len(part) for part in connection.execute(sa.select(Person.id)).partitions()][:4])
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        show("isolation", connection.scalar(sa.text("SHOW transaction_isolation")))
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1 / :n"), {"n": 0})
    except sa.exc.DBAPIError as error:
        show("error", type(error).__name__, error.orig.sqlstate, fields(error.orig.diag))
    copied_and_cancelled(engine)
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
    engine.dispose()


def copied_and_cancelled(engine):
    """COPY and cancel are the driver's, below SQLAlchemy's connection."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        with driver.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE copied (n int, t text)")
            with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["int4", "text"])
                for n in range(5000):
                    copy.write_row((n, f"ü{n}" if n % 7 else None))
            with cursor.copy("COPY copied TO STDOUT") as copy:
                show("copied", sum(len(part) for part in copy))
        watcher = sa.create_engine(url("psycopg"), isolation_level="AUTOCOMMIT")

        def cancel_when_asleep():
            with watcher.connect() as watching:
                while watching.scalar(sa.text(SLEEPING)) == 0:
                    pass
            driver.cancel()

        thread = threading.Thread(target=cancel_when_asleep)
        thread.start()
        try:
            connection.execute(sa.text("SELECT pg_sleep(600)"))
        except sa.exc.DBAPIError as error:
            show("cancelled", type(error).__name__, error.orig.sqlstate, error.orig.diag.message_primary)
        thread.join()
        watcher.dispose()
        connection.rollback()
        show("goes on", connection.scalar(sa.text("SELECT 42")))


async def with_asyncpg():
    engine = create_async_engine(url("asyncpg"), pool_size=2, pool_pre_ping=True)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(reflect)
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: orm(Session(bind=sync)))
        await connection.commit()
    async with engine.connect() as connection:
        stream = await connection.stream(sa.select(Person.id, Person.worth).order_by(Person.id))
        show("streamed", len([row async for row in stream]))
    async with engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        show("isolation", await connection.scalar(sa.text("SELECT :text || '!'"), {"text": "ü"}))
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.execute("CREATE TEMP TABLE copied (n int, t text)")
        records = [(n, None if n % 7 == 0 else f"ü{n}") for n in range(5000)]
        show("copied", await driver.copy_records_to_table("copied", records=records))
        sleeping = asyncio.ensure_future(connection.execute(sa.text("SELECT pg_sleep(600)")))
        async with engine.connect() as watching:
            while await watching.scalar(sa.text(SLEEPING)) == 0:
                pass
        sleeping.cancel()
        try:
            await sleeping
        except asyncio.CancelledError:
            show("cancelled")
        await connection.invalidate()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


print("== psycopg")
with_psycopg()
print("== asyncpg")
sys.exit(asyncio.run(with_asyncpg()))
