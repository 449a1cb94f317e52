//! The blocklist: barring somebody, from everything or from one target, from now on.

use crate::crypto;
use crate::domain::block::{Block, Lift};
use crate::domain::decision::Decision;
use crate::domain::deny::EndReason;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::BlockId;
use crate::domain::name::{TargetName, UserName};
use crate::domain::principal::Actor;
use crate::domain::time::Timestamp;
use crate::policy::{self, Query};

use super::hub::Cut;
use super::refusal::Refusal;
use super::{Access, Caller};

/// How far a block reaches.
#[derive(Debug, Clone, Default)]
pub struct BlockOrder {
    /// `None`: every target.
    pub target: Option<TargetName>,
    /// `None`: until lifted.
    pub until: Option<Timestamp>,
}

impl Access {
    /// Blocks `name` and cuts what they have open within the block's reach.
    pub async fn block(
        &self,
        caller: &Caller,
        name: &UserName,
        order: BlockOrder,
        why: &str,
    ) -> Result<(Block, Vec<Cut>), Refusal> {
        let outcome = async {
            self.may_block(caller)?;
            let account = self.store.user_by_name(name).await?;
            let account = account.ok_or_else(|| Refusal::NotFound { what: format!("user `{name}`") })?;
            self.add_block(caller, &Actor::from(&account.principal), &order, why).await
        };
        match outcome.await {
            Ok(done) => Ok(done),
            Err(refusal) => {
                self.record_refused_block(caller, Action::BlockAdded, name.as_str(), &refusal).await?;
                Err(refusal)
            }
        }
    }

    pub(super) fn may_block(&self, caller: &Caller) -> Result<(), Refusal> {
        self.may(caller, policy::Action::Block)
    }

    pub(super) async fn add_block(
        &self,
        caller: &Caller,
        principal: &Actor,
        order: &BlockOrder,
        why: &str,
    ) -> Result<(Block, Vec<Cut>), Refusal> {
        if why.trim().is_empty() {
            return Err(Refusal::Malformed(
                "say why: the person blocked reads it, and so will auditors".to_owned(),
            ));
        }
        let now = self.now();
        if order.until.is_some_and(|until| until <= now) {
            return Err(Refusal::Malformed(
                "the block would end before it begins: name a later time".to_owned(),
            ));
        }
        let block = Block {
            id: BlockId::from_random(crypto::random()),
            principal: principal.clone(),
            target: order.target.clone(),
            why: why.to_owned(),
            by: Actor::from(&caller.principal),
            at: now,
            until: order.until,
            lifted: None,
        };
        let mut event = Event::done(Action::BlockAdded)
            .by(&caller.principal)
            .from(caller.client)
            .with("block", block.id.as_str())
            .with("blocked", principal.name.as_str())
            .with("blocked_id", principal.id.as_str())
            .with("why", why)
            .with("until", order.until.map(|until| until.to_string()));
        event.target.clone_from(&order.target);
        self.store.add_block(&block, now, &[event]).await?;
        let reason = EndReason::Blocked { by: caller.principal.name.clone(), why: why.to_owned() };
        let reached = |live: &super::hub::Live| block.covers(&live.principal, &live.target, now);
        let (recorded, cuts) = tokio::join!(self.publish(), self.hub.end(reached, reason));
        recorded?;
        Ok((block, cuts))
    }

    pub async fn unblock(&self, caller: &Caller, id: &BlockId) -> Result<Block, Refusal> {
        let outcome = async {
            self.may(caller, policy::Action::Unblock)?;
            let lift = Lift { by: Actor::from(&caller.principal), at: self.now() };
            let event = Event::done(Action::BlockLifted)
                .by(&caller.principal)
                .from(caller.client)
                .with("block", id.as_str());
            let block = self.store.lift_block(id, &lift, &[event]).await?;
            self.publish().await?;
            Ok(block)
        };
        match outcome.await {
            Ok(block) => Ok(block),
            Err(refusal) => {
                self.record_refused_block(caller, Action::BlockLifted, id.as_str(), &refusal).await?;
                Err(refusal)
            }
        }
    }

    async fn record_refused_block(
        &self,
        caller: &Caller,
        action: Action,
        what: &str,
        refusal: &Refusal,
    ) -> Result<(), Refusal> {
        let event = Event::new(action, Outcome::Refused)
            .by(&caller.principal)
            .from(caller.client)
            .with("what", what)
            .with("refusal", refusal.to_string())
            .with("code", refusal.code());
        self.record(event).await
    }

    /// Whether the policy lets the caller do what concerns no target.
    pub(super) fn may(&self, caller: &Caller, action: policy::Action) -> Result<(), Refusal> {
        match self.rules().policy.decide(&Query::new(action, &caller.principal)) {
            Decision::Allow { .. } => Ok(()),
            Decision::Refuse { rules } => Err(Refusal::Policy { rules }),
        }
    }
}
