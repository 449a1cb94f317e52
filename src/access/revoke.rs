//! Taking a session away. The call answers when it is done: what was cut, and whether the
//! credential is dead.
//!
//! 1. The session record is marked; from here no permit is given.
//! 2. Live connections are ended while the audit record becomes durable and the holder is blocked, if
//!    that was asked for; none waits for the other.
//! 3. The credential is destroyed at its source, or denied there where it cannot be destroyed.

use crate::credentials::sources::Sources;
use crate::domain::decision::Decision;
use crate::domain::deny::EndReason;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::SessionId;
use crate::domain::principal::Actor;
use crate::domain::session::{Revocation, Session};
use crate::policy::{self, Facts, Query};
use crate::store::Revoked;

use super::block::BlockOrder;
use super::hub::Cut;
use super::refusal::Refusal;
use super::release::Released;
use super::{Access, Caller};

/// What a revocation did.
#[derive(Debug, Clone)]
pub struct Revocations {
    pub session: Session,
    /// The session had been revoked before; the rest was done all the same.
    pub before: bool,
    pub cuts: Vec<Cut>,
    pub credential: Released,
    pub block: Option<crate::domain::block::Block>,
}

impl Access {
    /// Revokes the session, and with `block` bars its holder from now on.
    pub async fn revoke(
        &self,
        caller: &Caller,
        id: &SessionId,
        why: &str,
        block: Option<BlockOrder>,
    ) -> Result<Revocations, Refusal> {
        match self.try_revoke(caller, id, why, block).await {
            Ok(revocations) => Ok(revocations),
            Err(refusal) => {
                let event = Event::new(Action::SessionRevoked, Outcome::Refused)
                    .by(&caller.principal)
                    .from(caller.client)
                    .with("session", id.as_str())
                    .with("refusal", refusal.to_string())
                    .with("code", refusal.code());
                self.record(event).await?;
                Err(refusal)
            }
        }
    }

    async fn try_revoke(
        &self,
        caller: &Caller,
        id: &SessionId,
        why: &str,
        block: Option<BlockOrder>,
    ) -> Result<Revocations, Refusal> {
        if why.trim().is_empty() {
            return Err(Refusal::Malformed(
                "say why: the person cut off reads it, and so will auditors".to_owned(),
            ));
        }
        let session = self.store.session(id).await?;
        let session = session.ok_or_else(|| Refusal::NotFound { what: format!("session `{id}`") })?;
        self.may_revoke(caller, &session)?;
        if block.is_some() {
            self.may_block(caller)?;
        }
        let revocation =
            Revocation { at: self.now(), by: Actor::from(&caller.principal), why: why.to_owned() };
        let mut event = Event::done(Action::SessionRevoked)
            .by(&caller.principal)
            .from(caller.client)
            .about_session(&session)
            .with("holder", session.principal.name.as_str())
            .with("why", why);
        if let Ok(entry) = self.rules().targets.find(&session.target) {
            event = event.on(&entry.target);
        }
        let issued = self.store.lease_of_session(id).await?;
        let (session, before) = match self.store.revoke_session(id, &revocation, &[event]).await? {
            Revoked::Now(session) => (session, false),
            Revoked::Before(session) => (session, true),
        };
        let reason = EndReason::Revoked { by: caller.principal.name.clone(), why: why.to_owned() };
        // The block comes before the credential: a target that hangs must not delay it. What is cut
        // has been told of the revocation by then.
        let blocking = async {
            match &block {
                Some(order) => self.add_block(caller, &session.principal, order, why).await.map(Some),
                None => Ok(None),
            }
        };
        let (cuts, recorded, blocked) =
            tokio::join!(self.hub.end(|live| live.session == session.id, reason), self.publish(), blocking);
        let credential = match (self.release_credential(id).await, issued) {
            (Released::None, None) => self.revoke_role(id).await,
            // The clean-up was quicker.
            (Released::None, Some(lease)) => {
                let rules = self.rules();
                let target = rules.targets.find(&lease.target).and_then(|entry| entry.route.postgres());
                let how = target.map_or("earlier", |target| Sources::fate(target).as_str()).to_owned();
                Released::Destroyed { handle: lease.handle, how }
            }
            (released, _) => released,
        };
        recorded?;
        let block = blocked?.map(|(block, _)| block);
        tracing::info!(session = %id, by = %caller.principal.name, cut = cuts.len(), "session revoked");
        Ok(Revocations { session, before, cuts, credential, block })
    }

    fn may_revoke(&self, caller: &Caller, session: &Session) -> Result<(), Refusal> {
        let rules = self.rules();
        let facts = Facts {
            own: session.principal.id == caller.principal.id,
            break_glass: session.break_glass,
            ..Facts::default()
        };
        let mut query =
            Query::new(policy::Action::Revoke, &caller.principal).access(&session.access).facts(facts);
        // A session on a target that is no longer configured can still be revoked.
        let entry = rules.targets.find(&session.target).ok().cloned();
        if let Some(entry) = &entry {
            query = query.on(&entry.target);
        }
        match rules.policy.decide(&query) {
            Decision::Allow { .. } => Ok(()),
            Decision::Refuse { rules } => Err(Refusal::Policy { rules }),
        }
    }

    /// Ends everything that is live on this node, for a reason that concerns all of it.
    pub async fn end_all(&self, reason: EndReason) -> Vec<Cut> {
        self.hub.end(|_| true, reason).await
    }
}
