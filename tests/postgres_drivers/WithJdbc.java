// PostgreSQL's JDBC driver: prepared statements that turn binary, batches, fetch sizes, COPY, large objects,
// notifications, cancels, and what connection pools do.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class WithJdbc {
    static final String SLEEPING =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = session_user";

    interface Part {
        void run(Connection connection) throws Exception;
    }

    static void show(String name, Object... values) throws Exception {
        StringBuilder line = new StringBuilder(name).append(':');
        for (Object value : values) {
            line.append(' ').append(brief(value));
        }
        // Each connection's temporary tables have a schema of their own.
        System.out.println(line.toString().replaceAll("pg_temp_\\d+", "pg_temp"));
    }

    static String brief(Object value) throws Exception {
        if (value instanceof Array array) {
            return brief(array.getArray());
        }
        if (value instanceof Object[] array) {
            return Arrays.deepToString(array);
        }
        byte[] bytes = null;
        if (value instanceof byte[] given) {
            bytes = given;
        } else if (value instanceof String text && text.length() > 1000) {
            bytes = text.getBytes(StandardCharsets.UTF_8);
        }
        if (bytes == null) {
            return String.valueOf(value);
        }
        byte[] hash = MessageDigest.getInstance("SHA-256").digest(bytes);
        return "<" + bytes.length + " " + java.util.HexFormat.of().formatHex(hash) + ">";
    }

    static String fields(SQLException error) {
        ServerErrorMessage told = error instanceof PSQLException own ? own.getServerErrorMessage() : null;
        if (told == null) {
            return error.getSQLState() + " " + error.getMessage();
        }
        return String.join("|", String.valueOf(told.getSeverity()), told.getSQLState(), told.getMessage(),
            told.getDetail(), told.getHint(), "" + told.getPosition(), told.getWhere(), told.getSchema(),
            told.getTable(), told.getColumn(), told.getDatatype(), told.getConstraint(), told.getFile(),
            told.getRoutine());
    }

    static void attempt(String name, Part part, Connection connection) throws Exception {
        try {
            part.run(connection);
            show(name, "no error");
        } catch (SQLException error) {
            show(name, fields(error));
        }
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static Object one(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getObject(1);
        }
    }

    static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.put("user", System.getenv("PGUSER"));
        properties.put("password", System.getenv("PGPASSWORD"));
        properties.put("sslmode", "verify-full");
        properties.put("sslrootcert", System.getenv("PGSSLROOTCERT"));
        properties.put("ApplicationName", "WithJdbc");
        for (int at = 0; at < options.length; at += 2) {
            properties.put(options[at], options[at + 1]);
        }
        return DriverManager.getConnection("jdbc:postgresql://localhost:" + System.getenv("PGPORT") + "/ledger",
            properties);
    }

    static void parameters(Connection connection) throws Exception {
        PGobject json = new PGobject();
        json.setType("jsonb");
        json.setValue("{\"a\": [1, null, \"ü\"]}");
        Object[][] values = {
            {"int2", (short) -32768}, {"int4", 2147483647}, {"int8", Long.MIN_VALUE}, {"float4", 1.25f},
            {"float8", 1.5e-300}, {"float8", Double.NEGATIVE_INFINITY},
            {"numeric", new BigDecimal("-12345678901234567890.0123456789")},
            {"text", "ünï ☃ 𝄞 ' \\ \" $1 ?\n\t"}, {"text", ""}, {"text", null}, {"bool", true},
            {"bytea", new byte[] {0, 1, -1}}, {"bytea", new byte[0]},
            {"uuid", UUID.fromString("00112233-4455-6677-8899-aabbccddeeff")}, {"date", LocalDate.of(2026, 2, 28)},
            {"time", LocalTime.of(23, 59, 59, 999999000)}, {"timestamp", LocalDateTime.of(1999, 12, 31, 23, 59, 59)},
            {"timestamptz", OffsetDateTime.of(2026, 1, 31, 12, 0, 0, 5000, ZoneOffset.UTC)},
            {"interval", new PGInterval("-3 days 7.5 seconds")}, {"jsonb", json},
            {"int4[]", connection.createArrayOf("int4", new Integer[] {1, null, -3})},
            {"text[]", connection.createArrayOf("text", new String[] {"a,b", "", null, "q\"\\", "ü"})},
        };
        for (Object[] pair : values) {
            String sql = "SELECT ?::" + pair[0] + ", pg_typeof(?::" + pair[0] + ")::text";
            try (PreparedStatement statement = connection.prepareStatement(sql)) {
                // Named and in binary from the fifth time on.
                for (int round = 0; round < 7; round++) {
                    for (int place = 1; place <= 2; place++) {
                        if (pair[1] == null) {
                            statement.setNull(place, Types.VARCHAR);
                        } else {
                            statement.setObject(place, pair[1]);
                        }
                    }
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        show(pair[0] + " " + round, rows.getObject(1), rows.getString(2));
                    }
                }
            }
        }
        String text = "ü☃x".repeat(16 * 1024 * 1024 / 6);
        byte[] data = new byte[16 * 1024 * 1024];
        for (int at = 0; at < data.length; at++) {
            data[at] = (byte) (at * 7);
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT ?::text, ?::bytea")) {
            statement.setString(1, text);
            statement.setBytes(2, data);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                show("16 MB", rows.getString(1), rows.getBytes(2));
            }
            statement.setCharacterStream(1, new StringReader("from a reader ü"));
            statement.setBinaryStream(2, new ByteArrayInputStream(data, 0, 5_000_000), 5_000_000);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                show("streams", rows.getString(1), rows.getBytes(2));
            }
        }
    }

    static void prepared(Connection connection) throws Exception {
        long sum = 0;
        try (PreparedStatement statement = connection.prepareStatement("SELECT ?::int4 * 2 AS prepared")) {
            show("described", statement.getParameterMetaData().getParameterTypeName(1),
                statement.getMetaData().getColumnLabel(1));
            for (int n = 0; n < 200; n++) {
                statement.setInt(1, n);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    sum += rows.getInt(1);
                }
            }
        }
        show("prepared", sum, one(connection, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%prepared'"));
        for (int n = 0; n < 300; n++) {
            // More than the driver's cache holds.
            try (PreparedStatement statement = connection.prepareStatement("SELECT ? + " + n)) {
                statement.setInt(1, n);
                statement.executeQuery().close();
            }
        }
        execute(connection, "CREATE TEMP TABLE shape (a int)");
        execute(connection, "INSERT INTO shape VALUES (1)");
        try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM shape")) {
            for (int round = 0; round < 10; round++) {
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    show("shape", rows.getMetaData().getColumnCount(), rows.getObject(1));
                }
                if (round == 7) {
                    execute(connection, "ALTER TABLE shape ADD b text");
                }
            }
        }
        execute(connection, "DEALLOCATE ALL");
        attempt("after DEALLOCATE", it -> show("goes on", one(it, "SELECT 7")), connection);
    }

    static void cursors(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("SELECT n, n * n FROM generate_series(1, ?) n");
             PreparedStatement other = connection.prepareStatement("SELECT ?::text")) {
            statement.setFetchSize(7);
            statement.setInt(1, 1000);
            long sum = 0;
            try (ResultSet rows = statement.executeQuery()) {
                while (rows.next()) {
                    sum += rows.getLong(2);
                    // Another portal's rows come in between.
                    if (rows.getInt(1) % 100 == 0) {
                        other.setString(1, "row " + rows.getInt(1));
                        try (ResultSet between = other.executeQuery()) {
                            between.next();
                            show("between", between.getString(1));
                        }
                    }
                }
            }
            show("fetched", sum);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                show("closed early", rows.getInt(1));
            }
            statement.setMaxRows(5);
            int count = 0;
            try (ResultSet rows = statement.executeQuery()) {
                while (rows.next()) {
                    count++;
                }
            }
            show("at most", count);
        }
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
            execute(connection, "CREATE TEMP TABLE updatable (n int PRIMARY KEY, t text)");
            execute(connection, "INSERT INTO updatable SELECT n, 'x' FROM generate_series(1, 5) n");
            try (ResultSet rows = statement.executeQuery("SELECT n, t FROM updatable ORDER BY n")) {
                rows.absolute(3);
                rows.updateString(2, "ü");
                rows.updateRow();
                rows.moveToInsertRow();
                rows.updateInt(1, 9);
                rows.updateString(2, null);
                rows.insertRow();
            }
            show("updated", one(connection, "SELECT string_agg(n || coalesce(t, '-'), ',' ORDER BY n) FROM updatable"));
        }
        connection.commit();
        execute(connection, "DECLARE own SCROLL CURSOR WITH HOLD FOR SELECT generate_series(1, 10)");
        connection.commit();
        show("held", one(connection, "FETCH 3 FROM own"), one(connection, "FETCH LAST FROM own"));
        execute(connection, "CLOSE own");
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void batches(Connection connection) throws Exception {
        execute(connection, "CREATE TEMP TABLE batch (n int PRIMARY KEY, t text, at timestamptz, id serial)");
        try (PreparedStatement statement = connection.prepareStatement(
                "INSERT INTO batch (n, t, at) VALUES (?, ?, ?)", new String[] {"id"})) {
            for (int n = 0; n < 1000; n++) {
                statement.setInt(1, n);
                statement.setString(2, n % 3 == 0 ? null : "ü" + n);
                statement.setObject(3, OffsetDateTime.of(2026, 1, 1, 0, 0, n % 60, 0, ZoneOffset.UTC));
                statement.addBatch();
            }
            show("batch", Arrays.stream(statement.executeBatch()).sum());
            long keys = 0;
            try (ResultSet rows = statement.getGeneratedKeys()) {
                while (rows.next()) {
                    keys += rows.getLong(1);
                }
            }
            show("keys", keys);
            for (int n : new int[] {2000, 2001, 5, 2002}) {
                statement.setInt(1, n);
                statement.setString(2, "late");
                statement.setNull(3, Types.TIMESTAMP_WITH_TIMEZONE);
                statement.addBatch();
            }
            try {
                statement.executeBatch();
            } catch (BatchUpdateException error) {
                show("failed", Arrays.toString(error.getUpdateCounts()), error.getSQLState(), fields(error.getNextException() instanceof PSQLException own ? own : error));
            }
        }
        show("rows", one(connection, "SELECT count(*) FROM batch"));
        try (Statement statement = connection.createStatement()) {
            for (int n = 0; n < 50; n++) {
                statement.addBatch("INSERT INTO batch VALUES (" + (3000 + n) + ", 'plain')");
            }
            statement.addBatch("UPDATE batch SET t = 'x' WHERE n < 10");
            show("plain", Arrays.toString(statement.executeBatch()));
        }
        try (Connection rewriting = connect("reWriteBatchedInserts", "true")) {
            execute(rewriting, "CREATE TEMP TABLE batch (n int, t text)");
            try (PreparedStatement statement = rewriting.prepareStatement("INSERT INTO batch VALUES (?, ?)")) {
                for (int n = 0; n < 777; n++) {
                    statement.setInt(1, n);
                    statement.setString(2, "y".repeat(n));
                    statement.addBatch();
                }
                show("rewritten", statement.executeBatch().length);
            }
            show("rows", one(rewriting, "SELECT count(*) || ' ' || sum(length(t)) FROM batch"));
        }
    }

    static void copies(Connection connection) throws Exception {
        CopyManager manager = connection.unwrap(PGConnection.class).getCopyAPI();
        execute(connection, "CREATE TEMP TABLE copied (n int4, t text)");
        StringBuilder lines = new StringBuilder();
        for (int n = 0; n < 20_000; n++) {
            lines.append(n).append('\t').append(n % 3 == 0 ? "\\N" : "ü" + n).append('\n');
        }
        show("in", manager.copyIn("COPY copied FROM STDIN", new StringReader(lines.toString())));
        for (String options : new String[] {"", "(FORMAT csv, HEADER)", "(FORMAT binary)"}) {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            show("out", manager.copyOut("COPY (SELECT * FROM copied ORDER BY n) TO STDOUT " + options, out), out.toByteArray());
            if (options.contains("binary")) {
                show("in, binary", manager.copyIn("COPY copied FROM STDIN " + options, new ByteArrayInputStream(out.toByteArray())));
            }
        }
        StringWriter writer = new StringWriter();
        manager.copyOut("COPY (SELECT 'ü', NULL) TO STDOUT", writer);
        show("text", writer);
        attempt("bad row", it -> manager.copyIn("COPY copied FROM STDIN", new StringReader("not a number\tx\n")), connection);
        CopyIn given = manager.copyIn("COPY copied FROM STDIN");
        byte[] row = "1\tnever\n".getBytes(StandardCharsets.UTF_8);
        given.writeToCopy(row, 0, row.length);
        given.cancelCopy();
        show("rows", one(connection, "SELECT count(*) FROM copied"));
    }

    static void largeObjects(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        LargeObjectManager manager = connection.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = manager.createLO(LargeObjectManager.READ | LargeObjectManager.WRITE);
        byte[] data = new byte[1_000_000];
        Arrays.fill(data, (byte) 'x');
        try (LargeObject large = manager.open(oid, LargeObjectManager.WRITE)) {
            large.write(data);
        }
        try (LargeObject large = manager.open(oid, LargeObjectManager.READ)) {
            show("large", large.size64(), large.read(1_000_000));
            large.seek64(999_990, LargeObject.SEEK_SET);
            show("end", large.tell64(), large.read(100).length);
        }
        manager.delete(oid);
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void transactions(Connection connection) throws Exception {
        execute(connection, "CREATE TEMP TABLE kept (n int CHECK (n < 10))");
        connection.setAutoCommit(false);
        connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        execute(connection, "INSERT INTO kept VALUES (1)");
        Savepoint savepoint = connection.setSavepoint("inner ü");
        attempt("check", it -> execute(it, "INSERT INTO kept VALUES (11)"), connection);
        attempt("in a failed transaction", it -> execute(it, "SELECT 1"), connection);
        connection.rollback(savepoint);
        show("isolation", one(connection, "SHOW transaction_isolation"));
        connection.commit();
        connection.setAutoCommit(true);
        attempt("syntax", it -> execute(it, "SELEC 1"), connection);
        attempt("position", it -> execute(it, "SELECT 'ünï', nowhere FROM accounts"), connection);
        attempt("raised", it -> execute(it, "DO $$ BEGIN RAISE EXCEPTION 'mine ü' USING ERRCODE = 'P0042', DETAIL = 'so', "
            + "HINT = 'do', COLUMN = 'c', TABLE = 't', SCHEMA = 's', DATATYPE = 'd', CONSTRAINT = 'k'; END $$"), connection);
        try (Statement statement = connection.createStatement()) {
            statement.execute("DO $$ BEGIN RAISE NOTICE 'n ü'; RAISE WARNING 'w' USING HINT = 'h'; END $$");
            for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
                show("notice", warning.getSQLState(), warning.getMessage());
            }
            boolean rows = statement.execute("SELECT 1; INSERT INTO kept VALUES (3), (4); SELECT 'ü'; SET work_mem = '1MB'");
            while (rows || statement.getUpdateCount() != -1) {
                if (rows) {
                    ResultSet result = statement.getResultSet();
                    result.next();
                    show("several", result.getString(1));
                } else {
                    show("several", statement.getUpdateCount());
                }
                rows = statement.getMoreResults();
            }
        }
        attempt("several with an error", it -> execute(it, "INSERT INTO kept VALUES (5); SELECT 1/0; SELECT 3"), connection);
        show("kept", one(connection, "SELECT array_agg(n)::text FROM kept"));
        execute(connection, "");
        execute(connection, " ; -- x");
        ResultSet tables = connection.getMetaData().getColumns(null, "public", "accounts", "%");
        ResultSetMetaData described = tables.getMetaData();
        while (tables.next()) {
            show("column", tables.getString("COLUMN_NAME"), tables.getString("TYPE_NAME"), tables.getInt("NULLABLE"), described.getColumnCount());
        }
        // Autosave: savepoints around everything.
        try (Connection saving = connect("autosave", "always", "preferQueryMode", "extendedForPrepared")) {
            saving.setAutoCommit(false);
            attempt("autosaved", it -> execute(it, "SELECT 1/0"), saving);
            show("goes on", one(saving, "SELECT 'saved'"));
            saving.commit();
        }
        try (Connection simple = connect("preferQueryMode", "simple")) {
            try (PreparedStatement statement = simple.prepareStatement("SELECT ?::text || ?")) {
                statement.setString(1, "it's ü");
                statement.setInt(2, -7);
                ResultSet rows = statement.executeQuery();
                rows.next();
                show("simple", rows.getString(1));
            }
        }
        try (Connection binary = connect("prepareThreshold", "-1", "binaryTransfer", "true");
             PreparedStatement statement = binary.prepareStatement("SELECT ?::int8, ?::float8, ?::uuid")) {
            statement.setLong(1, -5);
            statement.setDouble(2, 0.1);
            statement.setObject(3, new UUID(1, 2));
            ResultSet rows = statement.executeQuery();
            rows.next();
            show("binary", rows.getLong(1), rows.getDouble(2), rows.getObject(3));
        }
    }

    static void notifications(Connection connection) throws Exception {
        try (Connection listener = connect()) {
            execute(listener, "LISTEN news");
            try (PreparedStatement statement = connection.prepareStatement("SELECT pg_notify('news', ?)")) {
                statement.setString(1, "one ü");
                statement.execute();
            }
            execute(connection, "NOTIFY news, 'two'");
            for (int heard = 0; heard < 2;) {
                PGNotification[] notifications = listener.unwrap(PGConnection.class).getNotifications(60_000);
                for (PGNotification notification : notifications) {
                    show("heard", notification.getName(), notification.getParameter());
                    heard++;
                }
            }
        }
    }

    static void cancels(Connection connection) throws Exception {
        try (Connection watcher = connect(); Statement statement = connection.createStatement()) {
            Thread thread = new Thread(() -> {
                try {
                    while (((Long) one(watcher, SLEEPING)) == 0) {
                        Thread.onSpinWait();
                    }
                    statement.cancel();
                } catch (SQLException error) {
                    error.printStackTrace();
                }
            });
            thread.start();
            attempt("cancelled", it -> statement.execute("SELECT pg_sleep(600)"), connection);
            thread.join();
            show("goes on", one(connection, "SELECT 42"));
        }
    }

    /** What pools do between two borrowers. */
    static void pools(Connection connection) throws Exception {
        for (int round = 0; round < 3; round++) {
            show("valid", connection.isValid(60));
            try (PreparedStatement statement = connection.prepareStatement("SELECT current_setting('my.mark', true), ?::int4 AS pooled")) {
                for (int n = 0; n < 7; n++) {
                    statement.setInt(1, n);
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        show("fresh", rows.getString(1), rows.getInt(2));
                    }
                }
            }
            execute(connection, "SET my.mark = 'left behind'");
            connection.setReadOnly(true);
            connection.setReadOnly(false);
            execute(connection, "DISCARD ALL");
            connection.clearWarnings();
        }
    }

    public static void main(String[] arguments) throws Exception {
        String[] names = {"parameters", "prepared", "cursors", "batches", "copies", "large objects", "transactions",
            "notifications", "cancels", "pools"};
        Part[] parts = {WithJdbc::parameters, WithJdbc::prepared, WithJdbc::cursors, WithJdbc::batches, WithJdbc::copies,
            WithJdbc::largeObjects, WithJdbc::transactions, WithJdbc::notifications, WithJdbc::cancels, WithJdbc::pools};
        try (Connection connection = connect()) {
            for (int at = 0; at < parts.length; at++) {
                System.out.println("== " + names[at]);
                parts[at].run(connection);
            }
        }
    }
}
