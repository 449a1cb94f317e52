//! Where requests, sessions, blocks, connections, leases, users and tokens are kept.
//!
//! [`Store`] names use cases, each one atomic: a step either happens as a whole or not at all, and
//! a step from a stale state is a [`StoreError::Conflict`]. Every change takes the audit events that
//! tell of it and puts them into the outbox in the same transaction, so that no change of state
//! goes unrecorded; [`Store::outbox`] hands them to the audit log.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod sqlite;

use std::fmt;

use async_trait::async_trait;

use crate::domain::account::{Account, AccountChange, AccountSummary, Token};
use crate::domain::block::{Block, Lift};
use crate::domain::connection::{Connection, Ended};
use crate::domain::event::Event;
use crate::domain::id::{BlockId, ConnectionId, LeaseId, NodeId, PrincipalId, RequestId, SessionId, TokenId};
use crate::domain::lease::LeaseRecord;
use crate::domain::leftover::Leftover;
use crate::domain::name::UserName;
use crate::domain::request::Request;
use crate::domain::role_session::{RoleSession, RoleState};
use crate::domain::session::{Revocation, Session};
use crate::domain::ssh_key::{SecondFactor, SshKey};
use crate::domain::time::Timestamp;

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed it first: read it again and decide anew.
    #[error("{what} was changed by somebody else at the same time: try again")]
    Conflict { what: String },
    /// Something of that name is there already.
    #[error("{what} exists already")]
    Exists { what: String },
    #[error("{what} was not found")]
    NotFound { what: String },
    /// Nothing is known: whoever asked must be refused.
    #[error("the store is unavailable: {detail}")]
    Unavailable { detail: String },
}

pub type StoreResult<T> = Result<T, StoreError>;

/// An event waiting for the audit log. Ids rise by insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub id: i64,
    pub at: Timestamp,
    pub event: Event,
}

/// Which rows a list wants; newest first.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub principal: Option<PrincipalId>,
    pub session: Option<SessionId>,
    /// Only what is pending (requests), neither revoked nor ended (sessions, connections), or not
    /// lifted (blocks) as far as the store can tell; the caller still asks the clock.
    pub open_only: bool,
    /// At most so many; `None`: 1000.
    pub limit: Option<u32>,
}

/// What a revocation found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    Now(Session),
    /// It already was; nothing changed and nothing was recorded.
    Before(Session),
}

#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    // Users and tokens. `add_user` fails with `Exists` when the name is taken.
    async fn add_user(&self, account: &Account, at: Timestamp, events: &[Event]) -> StoreResult<()>;
    async fn user_by_name(&self, name: &UserName) -> StoreResult<Option<Account>>;
    async fn user_by_id(&self, id: &PrincipalId) -> StoreResult<Option<Account>>;
    async fn users(&self) -> StoreResult<Vec<AccountSummary>>;
    /// Changes what `change` names and nothing else, and gives the account as it then is. When
    /// [`AccountChange::ends_tokens`], the user's valid tokens are revoked in the same step, and their
    /// SSH certificates void. Each event gets the detail `tokens_ended`: how many.
    async fn change_user(
        &self,
        id: &PrincipalId,
        change: &AccountChange,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<Account>;
    /// Stores the token if the user is enabled and has the password that was checked, known by its
    /// hash; otherwise it is a `Conflict`: a login must not outrun what shuts its user out.
    async fn add_token(
        &self,
        token: &Token,
        password_hash: &str,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()>;
    /// Tokens of the user that are neither revoked nor past their end.
    async fn valid_tokens(&self, principal: &PrincipalId, now: Timestamp) -> StoreResult<Vec<Token>>;
    async fn token(&self, id: &TokenId) -> StoreResult<Option<Token>>;
    async fn token_by_hash(&self, hash: &[u8; 32]) -> StoreResult<Option<Token>>;
    /// Revoking twice keeps the first instant and records nothing.
    async fn revoke_token(&self, id: &TokenId, at: Timestamp, events: &[Event]) -> StoreResult<()>;
    /// Revokes the user's valid tokens, voids their SSH certificates, and says how many tokens that
    /// were, in the events too (`tokens_ended`). When there is none, nothing changes and nothing is
    /// recorded: no certificate outlives its token.
    async fn revoke_tokens_of(
        &self,
        principal: &PrincipalId,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<u64>;

    // SSH keys and second factors of users.
    /// `Exists` when the key is already somebody's, whoever that is.
    async fn add_ssh_key(&self, key: &SshKey, events: &[Event]) -> StoreResult<()>;
    /// Whether the user had that key; otherwise nothing changes and nothing is recorded.
    async fn remove_ssh_key(
        &self,
        fingerprint: &str,
        principal: &PrincipalId,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<bool>;
    async fn ssh_key(&self, fingerprint: &str) -> StoreResult<Option<SshKey>>;
    /// The keys of the user; the latest first.
    async fn ssh_keys_of(&self, principal: &PrincipalId) -> StoreResult<Vec<SshKey>>;
    /// Sets the user's second factor, in place of one they may have.
    async fn set_second_factor(
        &self,
        principal: &PrincipalId,
        factor: &SecondFactor,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()>;
    /// Whether the user had one; otherwise nothing is recorded.
    async fn remove_second_factor(
        &self,
        principal: &PrincipalId,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<bool>;
    async fn second_factor(&self, principal: &PrincipalId) -> StoreResult<Option<SecondFactor>>;
    /// Uses the code of `step` up, with all earlier ones. `false`, and nothing is recorded, when it
    /// already was.
    async fn use_second_factor(
        &self,
        principal: &PrincipalId,
        step: u64,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<bool>;

    // Requests and sessions.
    async fn create_request(&self, request: &Request, at: Timestamp, events: &[Event]) -> StoreResult<()>;
    /// Creates a request that is granted at once, with its session, in one step.
    async fn create_granted(
        &self,
        request: &Request,
        session: &Session,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()>;
    async fn request(&self, id: &RequestId) -> StoreResult<Option<Request>>;
    async fn requests(&self, filter: &Filter) -> StoreResult<Vec<Request>>;
    /// Stores `request` if the stored version is still `from_version`, and `session` with it. A
    /// request that is exactly as stored (approved once more by the same person) is no change and
    /// records nothing.
    async fn step_request(
        &self,
        from_version: u64,
        request: &Request,
        session: Option<&Session>,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()>;
    async fn session(&self, id: &SessionId) -> StoreResult<Option<Session>>;
    async fn sessions(&self, filter: &Filter) -> StoreResult<Vec<Session>>;
    /// Marks the session revoked unless it already is; exactly one of several callers gets `Now`.
    async fn revoke_session(
        &self,
        id: &SessionId,
        revocation: &Revocation,
        events: &[Event],
    ) -> StoreResult<Revoked>;

    /// Notes that the session's time ran out: once, and not if it was revoked. From then on
    /// `open_only` leaves it out.
    async fn conclude_session(&self, id: &SessionId, at: Timestamp, events: &[Event]) -> StoreResult<()>;

    // Blocks.
    async fn add_block(&self, block: &Block, at: Timestamp, events: &[Event]) -> StoreResult<()>;
    /// Lifting twice keeps the first lift and records nothing.
    async fn lift_block(&self, id: &BlockId, lift: &Lift, events: &[Event]) -> StoreResult<Block>;
    async fn block(&self, id: &BlockId) -> StoreResult<Option<Block>>;
    /// All blocks of the principal (or, without one in the filter, of everybody). Without a limit in
    /// the filter there is none: a block that is missed lets somebody in.
    async fn blocks(&self, filter: &Filter) -> StoreResult<Vec<Block>>;

    // Connections.
    async fn open_connection(&self, connection: &Connection, events: &[Event]) -> StoreResult<()>;
    /// `NotFound` when there is none; closing twice keeps the first end and records nothing.
    async fn close_connection(&self, id: &ConnectionId, ended: &Ended, events: &[Event]) -> StoreResult<()>;
    async fn connection(&self, id: &ConnectionId) -> StoreResult<Option<Connection>>;
    async fn connections(&self, filter: &Filter) -> StoreResult<Vec<Connection>>;
    /// Connections of `node` that have no end: after a crash, those it left behind.
    async fn open_connections_of(&self, node: &NodeId) -> StoreResult<Vec<Connection>>;

    // Credential leases. There is at most one lease that is not `released` per session.
    async fn create_lease(&self, lease: &LeaseRecord, events: &[Event]) -> StoreResult<()>;
    /// Stores `lease` if its stored state is still `from`.
    async fn step_lease(
        &self,
        from: crate::domain::lease::LeaseState,
        lease: &LeaseRecord,
        events: &[Event],
    ) -> StoreResult<()>;
    async fn lease(&self, id: &LeaseId) -> StoreResult<Option<LeaseRecord>>;
    /// The session's lease that is not yet `released`.
    async fn lease_of_session(&self, session: &SessionId) -> StoreResult<Option<LeaseRecord>>;
    /// All leases that are not yet `released`.
    async fn open_leases(&self) -> StoreResult<Vec<LeaseRecord>>;

    // What was handed out of AWS roles: one row a session.
    async fn create_role_session(&self, role: &RoleSession, events: &[Event]) -> StoreResult<()>;
    /// Stores `role` if its stored state is still `from`.
    async fn step_role_session(
        &self,
        from: RoleState,
        role: &RoleSession,
        events: &[Event],
    ) -> StoreResult<()>;
    async fn role_session(&self, session: &SessionId) -> StoreResult<Option<RoleSession>>;
    /// All that are not yet `over`.
    async fn open_role_sessions(&self) -> StoreResult<Vec<RoleSession>>;

    // What the janitor has found at a source: one row a place and handle.
    /// Keeps it, or what has changed of it; when it was first found stays.
    async fn keep_leftover(&self, leftover: &Leftover, at: Timestamp, events: &[Event]) -> StoreResult<()>;
    /// `NotFound` when there is none.
    async fn end_leftover(
        &self,
        place: &str,
        handle: &str,
        at: Timestamp,
        events: &[Event],
    ) -> StoreResult<()>;
    async fn leftovers(&self) -> StoreResult<Vec<Leftover>>;

    // The outbox. Events appended alone are for what changes no state (a refusal, a read).
    async fn append_events(&self, at: Timestamp, events: &[Event]) -> StoreResult<()>;
    async fn outbox(&self, limit: u32) -> StoreResult<Vec<Outgoing>>;
    /// Everything up to and including `id` is durable in the audit log, and handed out no more. Should
    /// this process die soon, the next one may be handed it again.
    async fn outbox_done(&self, id: i64) -> StoreResult<()>;
    /// Sees to it that ids are given out above `above` only. When the store was behind it, because
    /// it was restored from a backup, this gives the highest id that it had given out, and stores
    /// the events with it as the detail `store`. What then waits in the outbox gets new ids, too:
    /// nobody can tell whether it was recorded under the old ones, and twice is better than never.
    async fn raise_outbox(&self, above: i64, at: Timestamp, events: &[Event]) -> StoreResult<Option<i64>>;

    // Events that somebody must be told of ([`Event::is_tier_one`]), from the step that they tell of on.
    /// Those with ids above `after`, in order.
    async fn alerts(&self, after: i64, limit: u32) -> StoreResult<Vec<Outgoing>>;
    async fn alerts_waiting(&self) -> StoreResult<u64>;
    /// Whoever is to know has been told. Twice is as good as once.
    async fn alert_told(&self, id: i64) -> StoreResult<()>;

    /// Remembers that time has come this far, and returns the latest instant ever remembered.
    async fn high_water(&self, now: Timestamp) -> StoreResult<Timestamp>;
    /// Fails when the store cannot be written to.
    async fn check(&self) -> StoreResult<()>;
}
