//! The way to the target: a connection of its own for each session channel and each forward.
//!
//! 1. Met: connected, keys exchanged, the host is who it should be. For a client's first channel this is
//!    begun while the client's connection is still being written down: it tells the target nothing, and
//!    takes longer than anything else.
//! 2. Proved, with a certificate whose issue is durable before the target sees it. It is destroyed as
//!    soon as the target has taken it.

use super::carrier::Carrier;
use super::client::{DialError, Upstream};
use super::way::Meeting;
use crate::access::credential::error_chain;
use crate::audit::record::{Body, Credential, CredentialMark};
use crate::audit::{Recorder, Unrecordable};
use crate::credentials::ssh_certificate::{CertificateFor, OneConnection};

/// Why a target's connection is not there for a channel.
#[derive(Debug)]
pub(super) enum NotReached {
    Unreachable(String),
    Unrecordable,
}

impl From<Unrecordable> for NotReached {
    fn from(_: Unrecordable) -> Self {
        Self::Unrecordable
    }
}

impl Carrier {
    /// A connection to the target that is this caller's alone. Its credential is on record before the
    /// target sees it, and `first` before that.
    pub(super) async fn reach(&self, ch: u32, first: Option<Body>) -> Result<Upstream, NotReached> {
        let mut meeting = self.way.meeting(self.access.now());
        // Where we come from is known long before the keys are exchanged.
        let from = match &self.target.source_address {
            Some(configured) => configured.clone(),
            None => match meeting.from().await {
                Some(from) => from.to_string(),
                None => return self.not_connected(meeting, first).await,
            },
        };
        let (credential, mark) = match self.issue(ch, &from).await {
            Ok(issued) => issued,
            Err(why) => {
                self.record(first.as_slice()).await?;
                return Err(NotReached::Unreachable(why));
            }
        };
        let first = first.map(|mut first| {
            if let Body::ChannelOpened(opened) = &mut first {
                opened.credential = Some(mark.clone());
            }
            first
        });
        let step = |step: &str, detail: Option<String>| {
            Body::Credential(Credential { step: step.to_owned(), mark: mark.clone(), detail })
        };
        let issued = step("issued", Some(format!("a certificate for `{}`", self.login)));
        let bodies: Vec<Body> = first.into_iter().chain([issued]).collect();
        // Also when this is dropped while it waits, for the disk too: the issue may be on record then.
        let destroyed = Destroyed { recorder: &self.recorder, body: Some(step("destroyed", None)) };
        self.record(&bodies).await?;
        let proving = async {
            let met = self.way.met(meeting, self.access.now()).await?;
            met.prove(&self.login, &credential).await
        };
        let reached = tokio::select! {
            biased;
            reason = self.ending.begun() => Err(NotReached::Unreachable(reason.to_string())),
            proved = proving => proved.map_err(|error| self.not_reached(&error)),
        };
        // The key is wiped here; without it the certificate opens nothing.
        drop(credential);
        destroyed.note().await.inspect_err(|error| self.unrecordable(error))?;
        reached
    }

    /// Nothing is issued where there is nobody to show it to.
    async fn not_connected(&self, meeting: Meeting, first: Option<Body>) -> Result<Upstream, NotReached> {
        self.record(first.as_slice()).await?;
        Err(match self.way.met(meeting, self.access.now()).await {
            Err(error) => self.not_reached(&error),
            Ok(_) => NotReached::Unreachable("the socket has no address".to_owned()),
        })
    }

    /// A certificate for one connection `from` us, and what it is called in the record.
    async fn issue(&self, ch: u32, from: &str) -> Result<(OneConnection, CredentialMark), String> {
        let (id, ends_at) = {
            let permit = self.permit.get();
            let session = permit.session();
            (format!("sallyport {}/{}/{ch}", session.id, self.recorder.connection()), session.ends_at)
        };
        let order = CertificateFor {
            id: &id,
            login: &self.login,
            source_address: Some(from),
            now: self.access.now(),
            ends_at,
        };
        // The authority may be elsewhere, and slow.
        let issued = tokio::select! {
            biased;
            reason = self.ending.begun() => return Err(reason.to_string()),
            issued = self.settings.certificates.issue(&order) => issued,
        };
        let credential = issued.map_err(|error| {
            let detail = error_chain(&error);
            tracing::error!(connection = %self.recorder.connection(), error = detail, "no certificate for a target");
            format!("cannot log in there: {detail}")
        })?;
        let fingerprint = Some(credential.fingerprint.clone());
        Ok((credential, CredentialMark { handle: id, fingerprint }))
    }

    fn not_reached(&self, error: &DialError) -> NotReached {
        let detail = error_chain(error);
        tracing::warn!(connection = %self.recorder.connection(), target = %self.target.target.name, error = detail, "target not reached");
        NotReached::Unreachable(detail)
    }

    /// An upstream connection for a forward: one that is idle, or a new one. `first` is on record on return.
    pub(super) async fn borrow_upstream(&self, ch: u32, first: Body) -> Result<Upstream, NotReached> {
        match self.way.idle() {
            Some(upstream) => {
                self.record(&[first]).await?;
                Ok(upstream)
            }
            None => self.reach(ch, Some(first)).await,
        }
    }

    /// Keeps an upstream connection for the next forward.
    pub(super) fn give_back(&self, upstream: Upstream) {
        self.way.give_back(upstream, self.settings.idle_upstreams);
    }
}

/// Records that a credential is no more.
struct Destroyed<'a> {
    recorder: &'a Recorder,
    body: Option<Body>,
}

impl Destroyed<'_> {
    async fn note(mut self) -> Result<(), Unrecordable> {
        if let Some(body) = self.body.clone() {
            let noted = self.recorder.note_wait(&[body]).await;
            self.body = None;
            noted?;
        }
        Ok(())
    }
}

impl Drop for Destroyed<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && let Err(error) = self.recorder.note(body)
        {
            tracing::warn!(connection = %self.recorder.connection(), %error, "a credential's destruction is not on record");
        }
    }
}
