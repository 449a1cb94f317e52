//! The embedded store: one `SQLite` file, owned by this process.
//!
//! 1. One thread owns the connection that writes, so steps are serial; each is one transaction that
//!    holds the change and its audit events, and is on the disk before it is answered.
//! 2. A second thread reads. It sees every step that was answered before the read was asked for.
//! 3. The schema itself refuses what must not be: a second session for a request, a session that is
//!    longer than four hours or is moved, one's own approval, a deleted row of history.

mod alerts;
mod blocks;
mod connections;
mod failure;
mod leases;
mod leftovers;
mod open;
mod outbox;
mod requests;
mod roles;
mod row;
mod sessions;
mod ssh;
#[cfg(test)]
mod tests;
mod users;
mod worker;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rusqlite::{Connection as Database, TransactionBehavior};

use self::failure::Failure;
pub use self::open::OpenError;
use self::worker::Worker;
use super::{Filter, Outgoing, Revoked, Store, StoreError, StoreResult};
use crate::domain::account::{Account, AccountChange, AccountSummary, Token};
use crate::domain::block::{Block, Lift};
use crate::domain::connection::{Connection, Ended};
use crate::domain::event::Event;
use crate::domain::id::{BlockId, ConnectionId, LeaseId, NodeId, PrincipalId, RequestId, SessionId, TokenId};
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::leftover::Leftover;
use crate::domain::name::UserName;
use crate::domain::request::Request;
use crate::domain::role_session::{RoleSession, RoleState};
use crate::domain::session::{Revocation, Session};
use crate::domain::ssh_key::{SecondFactor, SshKey};
use crate::domain::time::Timestamp;

const DEFAULT_LIMIT: u32 = 1_000;

/// What a step did. Events are stored only with a change that was made.
enum Change<T> {
    Made(T),
    /// With a detail that only the step knows, for every event.
    Noted(T, &'static str, serde_json::Value),
    /// It was so already.
    None(T),
}

fn limit_of(filter: &Filter) -> u32 {
    filter.limit.unwrap_or(DEFAULT_LIMIT)
}

/// Where a file is and which one it is, to notice that it was replaced or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// A [`Store`] in one file. Cloning gives another handle to the same store.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: Worker,
    reader: Worker,
    /// `None` for a store in memory.
    file: Option<Identity>,
    /// Events up to this id need not be kept. They are removed with the next step: a step of their own
    /// would cost a wait for the disk.
    done: Arc<AtomicI64>,
}

impl SqliteStore {
    /// Opens the store at `path`; creates it (mode 0600) or brings its schema up to date when
    /// needed. Blocks on the disk: call it before serving.
    ///
    /// # Errors
    /// When the file cannot be used; each error names it and says what to do.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let writer = open::writer(path)?;
        let reader = open::reader(path)?;
        let start = |connection, name| {
            Worker::start(connection, path, name).map_err(|source| OpenError::Thread { source })
        };
        Ok(Self {
            writer: start(writer, "store-writer")?,
            reader: start(reader, "store-reader")?,
            file: Identity::of(path),
            done: Arc::default(),
        })
    }

    /// A store that is gone with its last handle, for tests.
    pub fn in_memory() -> Result<Self, OpenError> {
        let started = Worker::start(open::in_memory()?, Path::new(":memory:"), "store");
        let worker = started.map_err(|source| OpenError::Thread { source })?;
        Ok(Self { writer: worker.clone(), reader: worker, file: None, done: Arc::default() })
    }

    async fn read<T, F>(&self, query: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, Failure> + Send + 'static,
    {
        self.reader.run(move |db| query(db)).await
    }

    /// Runs one step and stores its events in the same transaction: both or neither.
    async fn write<T, F>(&self, at: Timestamp, events: &[Event], step: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<Change<T>, Failure> + Send + 'static,
    {
        let mut events = events.to_vec();
        let done = self.done.load(Ordering::Acquire);
        self.writer
            .run(move |db| {
                let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                outbox::remove_up_to(&transaction, done)?;
                let value = match step(&transaction)? {
                    Change::Made(value) => value,
                    Change::Noted(value, key, detail) => {
                        for event in &mut events {
                            event.detail.insert(key.to_owned(), detail.clone());
                        }
                        value
                    }
                    Change::None(value) => return Ok(value),
                };
                outbox::append(&transaction, at, &events)?;
                alerts::append(&transaction, at, &events)?;
                transaction.commit()?;
                Ok(value)
            })
            .await
    }
}

/// Opens the store at `path`: see [`SqliteStore::open`].
pub fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path)
}

#[async_trait]
impl Store for SqliteStore {
    async fn add_user(&self, account: &Account, at: Timestamp, events: &[Event]) -> StoreResult<()> {
        let account = account.clone();
        self.write(at, events, move |db| users::add(db, &account)).await
    }

    async fn user_by_name(&self, name: &UserName) -> StoreResult<Option<Account>> {
        let name = name.clone();
        self.read(move |db| users::by_name(db, &name)).await
    }

    async fn user_by_id(&self, id: &PrincipalId) -> StoreResult<Option<Account>> {
        let id = id.clone();
        self.read(move |db| users::by_id(db, &id)).await
    }

    async fn users(&self) -> StoreResult<Vec<AccountSummary>> {
        self.read(users::all).await
    }

    async fn change_user(
        &self,
        id: &PrincipalId,
        change: &AccountChange,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<Account> {
        let (id, change) = (id.clone(), change.clone());
        self.write(at, events, move |db| users::change(db, &id, &change, at)).await
    }

    async fn add_token(
        &self,
        token: &Token,
        password_hash: &str,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()> {
        let (token, password_hash) = (token.clone(), password_hash.to_owned());
        self.write(at, events, move |db| users::add_token(db, &token, &password_hash)).await
    }

    async fn valid_tokens(&self, principal: &PrincipalId, now: Timestamp) -> StoreResult<Vec<Token>> {
        let principal = principal.clone();
        self.read(move |db| users::valid_tokens(db, &principal, now)).await
    }

    async fn token(&self, id: &TokenId) -> StoreResult<Option<Token>> {
        let id = id.clone();
        self.read(move |db| users::token_by_id(db, &id)).await
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> StoreResult<Option<Token>> {
        let hash = *hash;
        self.read(move |db| users::token_by_hash(db, &hash)).await
    }

    async fn revoke_token(&self, id: &TokenId, at: Timestamp, events: &[Event]) -> StoreResult<()> {
        let id = id.clone();
        self.write(at, events, move |db| users::revoke_token(db, &id, at)).await
    }

    async fn revoke_tokens_of(
        &self,
        principal: &PrincipalId,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<u64> {
        let principal = principal.clone();
        self.write(at, events, move |db| users::revoke_tokens_of(db, &principal, at)).await
    }

    async fn add_ssh_key(&self, key: &SshKey, events: &[Event]) -> StoreResult<()> {
        let key = key.clone();
        self.write(key.added_at, events, move |db| ssh::add_key(db, &key)).await
    }

    async fn remove_ssh_key(
        &self,
        fingerprint: &str,
        principal: &PrincipalId,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<bool> {
        let (fingerprint, principal) = (fingerprint.to_owned(), principal.clone());
        self.write(at, events, move |db| ssh::remove_key(db, &fingerprint, &principal, at)).await
    }

    async fn ssh_key(&self, fingerprint: &str) -> StoreResult<Option<SshKey>> {
        let fingerprint = fingerprint.to_owned();
        self.read(move |db| ssh::key(db, &fingerprint)).await
    }

    async fn ssh_keys_of(&self, principal: &PrincipalId) -> StoreResult<Vec<SshKey>> {
        let principal = principal.clone();
        self.read(move |db| ssh::keys_of(db, &principal)).await
    }

    async fn set_second_factor(
        &self,
        principal: &PrincipalId,
        factor: &SecondFactor,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()> {
        let (principal, factor) = (principal.clone(), factor.clone());
        self.write(at, events, move |db| ssh::set_second_factor(db, &principal, &factor)).await
    }

    async fn remove_second_factor(
        &self,
        principal: &PrincipalId,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<bool> {
        let principal = principal.clone();
        self.write(at, events, move |db| ssh::remove_second_factor(db, &principal)).await
    }

    async fn second_factor(&self, principal: &PrincipalId) -> StoreResult<Option<SecondFactor>> {
        let principal = principal.clone();
        self.read(move |db| ssh::second_factor(db, &principal)).await
    }

    async fn use_second_factor(
        &self,
        principal: &PrincipalId,
        step: u64,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<bool> {
        let principal = principal.clone();
        self.write(at, events, move |db| ssh::use_second_factor(db, &principal, step)).await
    }

    async fn create_request(&self, request: &Request, at: Timestamp, events: &[Event]) -> StoreResult<()> {
        let request = request.clone();
        self.write(at, events, move |db| requests::create(db, &request, None)).await
    }

    async fn create_granted(
        &self,
        request: &Request,
        session: &Session,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()> {
        let request = request.clone();
        let session = session.clone();
        self.write(at, events, move |db| requests::create(db, &request, Some(&session))).await
    }

    async fn request(&self, id: &RequestId) -> StoreResult<Option<Request>> {
        let id = id.clone();
        self.read(move |db| requests::by_id(db, &id)).await
    }

    async fn requests(&self, filter: &Filter) -> StoreResult<Vec<Request>> {
        let filter = filter.clone();
        self.read(move |db| requests::list(db, &filter)).await
    }

    async fn step_request(
        &self,
        from_version: u64,
        request: &Request,
        session: Option<&Session>,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()> {
        let request = request.clone();
        let session = session.cloned();
        self.write(at, events, move |db| requests::step(db, from_version, &request, session.as_ref())).await
    }

    async fn session(&self, id: &SessionId) -> StoreResult<Option<Session>> {
        let id = id.clone();
        self.read(move |db| sessions::by_id(db, &id)).await
    }

    async fn sessions(&self, filter: &Filter) -> StoreResult<Vec<Session>> {
        let filter = filter.clone();
        self.read(move |db| sessions::list(db, &filter)).await
    }

    async fn revoke_session(
        &self,
        id: &SessionId,
        revocation: &Revocation,
        events: &[Event],
    ) -> StoreResult<Revoked> {
        let id = id.clone();
        let revocation = revocation.clone();
        self.write(revocation.at, events, move |db| sessions::revoke(db, &id, &revocation)).await
    }

    async fn conclude_session(&self, id: &SessionId, at: Timestamp, events: &[Event]) -> StoreResult<()> {
        let id = id.clone();
        self.write(at, events, move |db| sessions::conclude(db, &id, at)).await
    }

    async fn add_block(&self, block: &Block, at: Timestamp, events: &[Event]) -> StoreResult<()> {
        let block = block.clone();
        self.write(at, events, move |db| blocks::add(db, &block)).await
    }

    async fn lift_block(&self, id: &BlockId, lift: &Lift, events: &[Event]) -> StoreResult<Block> {
        let id = id.clone();
        let lift = lift.clone();
        self.write(lift.at, events, move |db| blocks::lift(db, &id, &lift)).await
    }

    async fn block(&self, id: &BlockId) -> StoreResult<Option<Block>> {
        let id = id.clone();
        self.read(move |db| blocks::by_id(db, &id)).await
    }

    async fn blocks(&self, filter: &Filter) -> StoreResult<Vec<Block>> {
        let filter = filter.clone();
        self.read(move |db| blocks::list(db, &filter)).await
    }

    async fn open_connection(&self, connection: &Connection, events: &[Event]) -> StoreResult<()> {
        let connection = connection.clone();
        self.write(connection.opened_at, events, move |db| connections::open(db, &connection)).await
    }

    async fn close_connection(&self, id: &ConnectionId, ended: &Ended, events: &[Event]) -> StoreResult<()> {
        let id = id.clone();
        let ended = ended.clone();
        self.write(ended.at, events, move |db| connections::close(db, &id, &ended)).await
    }

    async fn connection(&self, id: &ConnectionId) -> StoreResult<Option<Connection>> {
        let id = id.clone();
        self.read(move |db| connections::by_id(db, &id)).await
    }

    async fn connections(&self, filter: &Filter) -> StoreResult<Vec<Connection>> {
        let filter = filter.clone();
        self.read(move |db| connections::list(db, &filter)).await
    }

    async fn open_connections_of(&self, node: &NodeId) -> StoreResult<Vec<Connection>> {
        let node = node.clone();
        self.read(move |db| connections::open_of(db, &node)).await
    }

    async fn create_lease(&self, lease: &LeaseRecord, events: &[Event]) -> StoreResult<()> {
        let lease = lease.clone();
        self.write(lease.changed_at, events, move |db| leases::create(db, &lease)).await
    }

    async fn step_lease(&self, from: LeaseState, lease: &LeaseRecord, events: &[Event]) -> StoreResult<()> {
        let lease = lease.clone();
        self.write(lease.changed_at, events, move |db| leases::step(db, from, &lease)).await
    }

    async fn lease(&self, id: &LeaseId) -> StoreResult<Option<LeaseRecord>> {
        let id = id.clone();
        self.read(move |db| leases::by_id(db, &id)).await
    }

    async fn lease_of_session(&self, session: &SessionId) -> StoreResult<Option<LeaseRecord>> {
        let session = session.clone();
        self.read(move |db| leases::open_of(db, &session)).await
    }

    async fn open_leases(&self) -> StoreResult<Vec<LeaseRecord>> {
        self.read(leases::open).await
    }

    async fn create_role_session(&self, role: &RoleSession, events: &[Event]) -> StoreResult<()> {
        let role = role.clone();
        self.write(role.changed_at, events, move |db| roles::create(db, &role)).await
    }

    async fn step_role_session(
        &self,
        from: RoleState,
        role: &RoleSession,
        events: &[Event],
    ) -> StoreResult<()> {
        let role = role.clone();
        self.write(role.changed_at, events, move |db| roles::step(db, from, &role)).await
    }

    async fn role_session(&self, session: &SessionId) -> StoreResult<Option<RoleSession>> {
        let session = session.clone();
        self.read(move |db| roles::of_session(db, &session)).await
    }

    async fn open_role_sessions(&self) -> StoreResult<Vec<RoleSession>> {
        self.read(roles::open).await
    }

    async fn keep_leftover(&self, leftover: &Leftover, at: Timestamp, events: &[Event]) -> StoreResult<()> {
        let leftover = leftover.clone();
        self.write(at, events, move |db| leftovers::keep(db, &leftover)).await
    }

    async fn end_leftover(
        &self,
        place: &str,
        handle: &str,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()> {
        let (place, handle) = (place.to_owned(), handle.to_owned());
        self.write(at, events, move |db| leftovers::end(db, &place, &handle)).await
    }

    async fn leftovers(&self) -> StoreResult<Vec<Leftover>> {
        self.read(leftovers::all).await
    }

    async fn alerts(&self, after: i64, limit: u32) -> StoreResult<Vec<Outgoing>> {
        self.read(move |db| alerts::oldest(db, after, limit)).await
    }

    async fn alerts_waiting(&self) -> StoreResult<u64> {
        self.read(alerts::count).await
    }

    async fn alert_told(&self, id: i64) -> StoreResult<()> {
        self.write(Timestamp::from_micros(0), &[], move |db| alerts::remove(db, id)).await
    }

    async fn append_events(&self, at: Timestamp, events: &[Event]) -> StoreResult<()> {
        self.write(at, events, |_| Ok(Change::Made(()))).await
    }

    async fn outbox(&self, limit: u32) -> StoreResult<Vec<Outgoing>> {
        let done = self.done.load(Ordering::Acquire);
        self.read(move |db| outbox::oldest(db, done, limit)).await
    }

    async fn outbox_done(&self, id: i64) -> StoreResult<()> {
        self.done.fetch_max(id, Ordering::AcqRel);
        Ok(())
    }

    async fn raise_outbox(&self, above: i64, at: Timestamp, events: &[Event]) -> StoreResult<Option<i64>> {
        self.write(at, events, move |db| outbox::raise(db, above)).await
    }

    async fn high_water(&self, now: Timestamp) -> StoreResult<Timestamp> {
        self.write(now, &[], move |db| outbox::high_water(db, now)).await
    }

    async fn check(&self) -> StoreResult<()> {
        let path = self.writer.path();
        if self.file.is_some() {
            // An unlinked file can be written to for as long as it is open; and the kernel lets the
            // superuser write what an operator made read-only.
            if Identity::of(path) != self.file {
                let detail =
                    format!("`{}` was moved, replaced or removed: put it back and restart", path.display());
                return Err(StoreError::Unavailable { detail });
            }
            if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().readonly()) {
                let detail =
                    format!("`{}` was made read-only: make it writable for its owner", path.display());
                return Err(StoreError::Unavailable { detail });
            }
        }
        self.write(Timestamp::default(), &[], outbox::probe).await
    }
}
