//! What the janitors found, kept until it is seen to be ended: so the record tells what became of it, whenever the
//! process dies.

use crate::domain::event::Event;
use crate::domain::leftover::{Leftover, LeftoverKind};
use crate::store::StoreError;

use super::Access;
use super::refusal::Refusal;

impl Access {
    pub(super) async fn keep_leftover(
        &self,
        leftover: &Leftover,
        event: Option<Event>,
    ) -> Result<(), Refusal> {
        self.store.keep_leftover(leftover, self.now(), event.as_slice()).await?;
        self.publish().await
    }

    /// It is ended. Told once, whoever saw it as well.
    pub(super) async fn end_leftover(&self, leftover: &Leftover, event: Event) -> Result<(), Refusal> {
        match self.store.end_leftover(&leftover.place, &leftover.handle, self.now(), &[event]).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => self.publish().await,
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn leftovers(
        &self,
        is_wanted: impl Fn(&Leftover) -> bool,
    ) -> Result<Vec<Leftover>, Refusal> {
        let mut leftovers = self.store.leftovers().await?;
        leftovers.retain(is_wanted);
        Ok(leftovers)
    }

    /// Tells by the metric how many credentials are left that could not be destroyed.
    pub(super) async fn count_orphans(&self) {
        let is_stuck =
            |leftover: &Leftover| leftover.kind == LeftoverKind::Orphan && leftover.last_error.is_some();
        if let Ok(stuck) = self.leftovers(is_stuck).await {
            let count = u32::try_from(stuck.len()).unwrap_or(u32::MAX);
            metrics::gauge!("sallyport_credentials_orphaned").set(f64::from(count));
        }
    }
}
