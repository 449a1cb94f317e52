//! Admin connections that have done their work are kept for a moment: where people connect often, not each of them has to wait
//! for the admin to log in, which costs as much as their own login does.
//!
//! Only of targets with one server: of several another may have become the primary meanwhile.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::postgres_admin::Admin;
use crate::config::PostgresTarget;
use crate::crypto::{Hash, sha256};

/// How long one stays without work.
const KEEP: Duration = Duration::from_secs(10);
/// How long one is used at most, however often: the target may have learnt better meanwhile whom it lets in.
const OLDEST: Duration = Duration::from_mins(5);
/// How many of one target are kept.
const MOST: usize = 2;

#[derive(Clone, Default)]
pub(super) struct KeptAdmins(Arc<Mutex<Vec<Kept>>>);

struct Kept {
    whose: Whose,
    admin: Admin,
    until: Instant,
}

/// Whom it is logged in as, and where: a target that is configured otherwise is another.
#[derive(Clone, PartialEq, Eq)]
struct Whose(Hash);

impl Whose {
    /// `None` where none is to be kept.
    fn of(target: &PostgresTarget) -> Option<Self> {
        let admin = target.source.admin().filter(|_| target.hosts.is_one())?;
        let address = target.hosts.preferred().address.to_string();
        let connect_to = target.connect_to.map_or_else(String::new, |ip| ip.to_string());
        let texts = [
            target.target.name.as_str(),
            &address,
            &connect_to,
            &admin.user,
            admin.password.expose(),
            &admin.database,
        ];
        let parts = texts.iter().map(|text| text.as_bytes()).chain(target.ca.iter().map(AsRef::as_ref));
        // Each by its hash: so no part can go on in the next.
        let parts: Vec<Hash> = parts.map(|part| sha256(&[part])).collect();
        Some(Self(sha256(&parts.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>())))
    }
}

/// How long one is kept `now` that was connected `since`.
fn until(since: Instant, now: Instant) -> Option<Instant> {
    let until = (now + KEEP).min(since + OLDEST);
    (until > now).then_some(until)
}

impl fmt::Debug for KeptAdmins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptAdmins")
    }
}

impl KeptAdmins {
    /// One that is still connected, as far as is known.
    pub(super) fn take(&self, target: &PostgresTarget) -> Option<Admin> {
        let whose = Whose::of(target)?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| !kept.admin.is_closed());
        let at = kept.iter().position(|kept| kept.whose == whose)?;
        Some(kept.swap_remove(at).admin)
    }

    /// Keeps one that is done, for [`KEEP`] at most.
    pub(super) fn put(&self, target: &PostgresTarget, admin: Admin) {
        let Some(whose) = Whose::of(target) else { return };
        let Some(until) = until(admin.since(), Instant::now()) else { return };
        {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.iter().filter(|kept| kept.whose == whose).count() >= MOST {
                return;
            }
            kept.push(Kept { whose, admin, until });
        }
        let all = self.clone();
        TaskTracker::new().spawn(async move {
            tokio::time::sleep_until(until).await;
            let now = Instant::now();
            all.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|kept| kept.until > now);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_kept_for_a_moment_and_not_for_ever() {
        let since = Instant::now();
        let kept = |after: Duration| until(since, since + after).map(|until| until - since);
        let second = Duration::from_secs;
        assert_eq!(kept(second(0)), Some(second(10)));
        assert_eq!(kept(second(289)), Some(second(299)));
        assert_eq!(kept(second(295)), Some(second(300)));
        assert_eq!(kept(second(300)), None);
        assert_eq!(kept(second(900)), None);
    }
}
