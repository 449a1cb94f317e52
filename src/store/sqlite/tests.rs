//! The contract in memory and on disk, and what only a file can suffer.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::domain::leftover::LeftoverKind;
use crate::store::contract::fixtures::{account, at, connection, event, lease, marks, stored_session};

#[expect(clippy::unused_async, reason = "the contract awaits the maker: other backends must dial")]
async fn make() -> Arc<dyn Store> {
    Arc::new(SqliteStore::in_memory().unwrap())
}

use crate::store_contract;
crate::store_rules!(store_contract);

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn detail(error: StoreError) -> String {
    let StoreError::Unavailable { detail } = error else { panic!("{error:?}") };
    detail
}

#[tokio::test]
async fn a_file_keeps_the_contract_too() {
    let directory = directory();
    let count = std::sync::atomic::AtomicU32::new(0);
    crate::store::contract::all(async || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let path = directory.path().join(format!("{number}.db"));
        let store: Arc<dyn Store> = Arc::new(open(&path).unwrap());
        store
    })
    .await;
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let directory = directory();
    let path = directory.path().join("store.db");
    let store: Arc<dyn Store> = Arc::new(open(&path).unwrap());
    let alice = account("alice");
    store.add_user(&alice, at(0), &[event("kept")]).await.unwrap();
    let session = stored_session(&store, at(0)).await;
    let opened = connection(&session, at(1));
    store.open_connection(&opened, &[]).await.unwrap();
    let credential = lease(&session, at(1));
    store.create_lease(&credential, &[]).await.unwrap();
    store.high_water(at(99)).await.unwrap();
    drop(store);

    let store: Arc<dyn Store> = Arc::new(open(&path).unwrap());
    assert_eq!(store.user_by_name(&alice.principal.name).await.unwrap(), Some(alice));
    assert_eq!(store.session(&session.id).await.unwrap(), Some(session));
    assert_eq!(store.open_connections_of(&opened.node).await.unwrap(), [opened]);
    assert_eq!(store.open_leases().await.unwrap(), [credential]);
    assert_eq!(store.high_water(at(1)).await.unwrap(), at(99));
    assert_eq!(marks(&store).await, ["kept"]);
}

#[tokio::test]
async fn what_was_answered_is_there_although_the_process_never_closed_the_file() {
    let (running, crashed) = (directory(), directory());
    let store: Arc<dyn Store> = Arc::new(open(&running.path().join("store.db")).unwrap());
    let session = stored_session(&store, at(0)).await;
    store.append_events(at(1), &[event("last")]).await.unwrap();
    for file in ["store.db", "store.db-wal"] {
        fs::copy(running.path().join(file), crashed.path().join(file)).unwrap();
    }
    let copy: Arc<dyn Store> = Arc::new(open(&crashed.path().join("store.db")).unwrap());
    assert_eq!(copy.session(&session.id).await.unwrap(), Some(session));
    assert_eq!(marks(&copy).await, ["last"]);
}

#[tokio::test]
async fn a_step_is_on_the_disk_before_it_is_answered() {
    let directory = directory();
    let store = open(&directory.path().join("store.db")).unwrap();
    let pragmas = |db: &mut Database| {
        let journal: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let synchronous: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        let foreign_keys: bool = db.query_row("PRAGMA foreign_keys", [], |row| row.get(0))?;
        Ok((journal, synchronous, foreign_keys))
    };
    // `synchronous = FULL` is 2: the write-ahead log is synchronised at every commit.
    assert_eq!(store.writer.run(pragmas).await.unwrap(), ("wal".to_owned(), 2, true));
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let directory = directory();
    let path = directory.path().join("store.db");
    fs::write(&path, b"").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&path).unwrap();
    store.append_events(at(0), &[event("x")]).await.unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_missing_directory_is_named() {
    let error = open(&directory().path().join("nowhere/store.db")).unwrap_err();
    assert!(matches!(error, OpenError::NoDirectory { .. }), "{error}");
    assert!(error.to_string().contains("nowhere/store.db` does not exist: create it"), "{error}");
}

#[test]
fn a_directory_is_not_taken_for_a_file() {
    let directory = directory();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::NotAFile { .. }), "{error}");
}

#[tokio::test]
async fn a_read_only_file_is_refused_at_the_start_and_found_by_the_check() {
    let directory = directory();
    let path = directory.path().join("store.db");
    let store = open(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let text = detail(store.check().await.unwrap_err());
    assert!(text.contains("store.db` was made read-only"), "{text}");
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    assert_eq!(mode(&path), 0o400, "an operator's decision is not undone");
}

#[tokio::test]
async fn a_write_that_sqlite_finds_read_only_says_so() {
    let directory = directory();
    let store = open(&directory.path().join("store.db")).unwrap();
    store.writer.run(|db| Ok(db.pragma_update(None, "query_only", true)?)).await.unwrap();
    let text = detail(store.add_user(&account("alice"), at(0), &[]).await.unwrap_err());
    assert!(text.contains("store.db` cannot be written to"), "{text}");
    assert!(store.check().await.is_err());
    assert_eq!(store.users().await.unwrap(), []);
}

#[tokio::test]
async fn a_file_that_was_removed_is_found_by_the_check() {
    let directory = directory();
    let path = directory.path().join("store.db");
    let store = open(&path).unwrap();
    store.check().await.unwrap();
    fs::remove_file(&path).unwrap();
    let text = detail(store.check().await.unwrap_err());
    assert!(text.contains("store.db` was moved, replaced or removed"), "{text}");
}

#[tokio::test]
async fn a_full_disk_refuses_the_step_whole_and_is_left_behind_when_there_is_room() {
    let directory = directory();
    let store = open(&directory.path().join("store.db")).unwrap();
    let limit =
        |pages: i64| store.writer.run(move |db| Ok(db.pragma_update(None, "max_page_count", pages)?));
    // SQLite never sets the limit below what is used: this is a disk that is full from now on.
    limit(1).await.unwrap();
    let mut stored = 0;
    let error = loop {
        let marked = event(&"x".repeat(1_000));
        match store.append_events(at(0), &[marked.clone(), marked]).await {
            Ok(()) => stored += 2,
            Err(error) => break error,
        }
    };
    let text = detail(error);
    assert!(text.contains("no space is left for") && text.contains("store.db`"), "{text}");
    assert_eq!(store.outbox(10_000).await.unwrap().len(), stored, "both events or neither");
    limit(1_000_000).await.unwrap();
    store.append_events(at(1), &[event("room")]).await.unwrap();
    assert_eq!(store.outbox(10_000).await.unwrap().len(), stored + 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let directory = directory();
    let path = directory.path().join("store.db");
    let store = open(&path).unwrap();
    let newer = open::known() + 1;
    let raise = move |db: &mut Database| Ok(db.execute("INSERT INTO schema_version VALUES (?1)", [newer])?);
    store.writer.run(raise).await.unwrap();
    drop(store);
    let error = open(&path).unwrap_err();
    let told = matches!(error, OpenError::Newer { found, known, .. } if found == newer && known == newer - 1);
    assert!(told, "{error}");
    assert!(error.to_string().contains("run that version or a later one"), "{error}");
}

#[tokio::test]
async fn a_migration_that_fails_is_undone_whole() {
    let store = SqliteStore::in_memory().unwrap();
    let failing = "CREATE TABLE half (id INTEGER); INSERT INTO nowhere VALUES (1);";
    let applied =
        store.writer.run(move |db| Ok(open::apply(db, open::known() + 1, failing).is_ok())).await.unwrap();
    assert!(!applied);
    let left = |db: &mut Database| {
        let version: i64 = db.query_row("SELECT max(version) FROM schema_version", [], |row| row.get(0))?;
        let half = "SELECT count(*) FROM sqlite_schema WHERE name = 'half'";
        Ok((version, db.query_row(half, [], |row| row.get::<_, i64>(0))?))
    };
    assert_eq!(store.writer.run(left).await.unwrap(), (open::known(), 0));
    store.check().await.unwrap();
}

#[tokio::test]
async fn what_was_left_at_targets_outlives_a_new_kind_of_it() {
    let directory = directory();
    let path = directory.path().join("store.db");
    let store = open(&path).unwrap();
    let as_before = |db: &mut Database| {
        let before = include_str!("migrations/0004_leftovers.sql");
        db.execute_batch(&format!("DROP TABLE leftovers; {before}"))?;
        db.execute_batch(
            "INSERT INTO leftovers VALUES ('one:5432', 'sp_x', 'open', 'ses-0000000000000000', 'ledger-prod', 7, 'no');
             DELETE FROM schema_version WHERE version >= 6",
        )?;
        Ok(())
    };
    store.writer.run(as_before).await.unwrap();
    drop(store);
    let kept = open(&path).unwrap().leftovers().await.unwrap();
    let [one] = &kept[..] else { panic!("{kept:?}") };
    let told = (one.kind, one.place.as_str(), one.handle.as_str(), one.last_error.as_deref());
    assert_eq!(told, (LeftoverKind::Open, "one:5432", "sp_x", Some("no")));
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = directory();
    let path = directory.path().join("store.db");
    let text = "not a database, but somebody's only copy of it\n".repeat(100);
    fs::write(&path, &text).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn another_programs_database_is_refused() {
    let directory = directory();
    let path = directory.path().join("store.db");
    let other = Database::open(&path).unwrap();
    other.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    drop(other);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn damage_inside_the_file_is_found_when_it_is_opened() {
    let directory = directory();
    let path = directory.path().join("store.db");
    let store = open(&path).unwrap();
    for second in 0..200 {
        store.append_events(at(second), &[event(&"x".repeat(200))]).await.unwrap();
    }
    let checkpoint = |db: &mut Database| {
        Ok(db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(store.writer.run(checkpoint).await.unwrap(), 0);
    drop(store);
    let length = fs::metadata(&path).unwrap().len();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(length - 8192)).unwrap();
    file.write_all(&[0xaa; 8192]).unwrap();
    drop(file);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("restore the last backup"), "{error}");
}

#[tokio::test]
async fn a_step_that_panics_costs_itself_and_not_the_store() {
    let store = SqliteStore::in_memory().unwrap();
    let result: StoreResult<()> = store
        .write(at(0), &[event("no")], |db| {
            outbox::append(db, at(0), &[event("half a step")])?;
            panic!("a defect")
        })
        .await;
    assert!(matches!(result, Err(StoreError::Unavailable { .. })));
    store.check().await.unwrap();
    assert_eq!(store.outbox(10).await.unwrap(), []);
}

#[tokio::test]
async fn history_cannot_be_deleted() {
    let sqlite = SqliteStore::in_memory().unwrap();
    let store: Arc<dyn Store> = Arc::new(sqlite.clone());
    store.add_user(&account("alice"), at(0), &[]).await.unwrap();
    let session = stored_session(&store, at(0)).await;
    store.open_connection(&connection(&session, at(1)), &[]).await.unwrap();
    store.create_lease(&lease(&session, at(1)), &[]).await.unwrap();
    for table in ["users", "requests", "sessions", "connections", "leases"] {
        let delete = move |db: &mut Database| Ok(db.execute(&format!("DELETE FROM {table}"), [])?);
        let text = detail(sqlite.writer.run(delete).await.unwrap_err());
        assert!(
            text.contains("history is kept") || text.contains("against its own rules"),
            "{table}: {text}"
        );
    }
    assert_eq!(store.sessions(&Filter::default()).await.unwrap(), [session]);
}

#[tokio::test]
async fn a_session_cannot_be_moved_or_made_longer() {
    let sqlite = SqliteStore::in_memory().unwrap();
    let store: Arc<dyn Store> = Arc::new(sqlite.clone());
    let session = stored_session(&store, at(0)).await;
    for change in ["ends_at = ends_at + 1", "granted_at = granted_at + 1", "access = 'dba'"] {
        let update = move |db: &mut Database| Ok(db.execute(&format!("UPDATE sessions SET {change}"), [])?);
        assert!(sqlite.writer.run(update).await.is_err(), "{change}");
    }
    assert_eq!(store.session(&session.id).await.unwrap(), Some(session));
}

#[tokio::test]
async fn a_read_sees_what_was_answered_before_it() {
    let directory = directory();
    let store = open(&directory.path().join("store.db")).unwrap();
    for number in 0..200 {
        let account = account(&format!("user-{number}"));
        store.add_user(&account, at(0), &[]).await.unwrap();
        assert_eq!(store.user_by_id(&account.principal.id).await.unwrap(), Some(account));
    }
}
