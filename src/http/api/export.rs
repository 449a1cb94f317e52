//! The audit log in the forms that others read, and bundles of sessions, streamed as they are made.
//!
//! The log is read twice: first for how much there is that the caller may read, which is recorded and told in the
//! answer's head, then for the answer itself, of the same records. Who may no longer read gets no more.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::access::Access;
use crate::access::credential::error_chain;
use crate::access::export::Reader;
use crate::access::refusal::Refusal;
use crate::audit::bundle::{self, BundleError};
use crate::audit::export::{self, Counts, ExportError, Filter, Format, Whose};
use crate::domain::id::{ConnectionId, SessionId};
use crate::domain::name::TargetName;
use crate::domain::principal::Principal;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::http::HttpState;
use crate::http::auth::{Bearer, bearer};
use crate::http::error::Problem;
use crate::http::extract::{Named, Query};
use crate::http::streamed::{self, Sink};

/// How often it is asked whether who reads still may.
const CONFIRM_EVERY: Duration = Duration::from_millis(250);

/// How much was written, of what the form is made of.
pub const WRITTEN: &str = "sallyport-written";
/// How much was left out because the caller may not read it.
pub const LEFT_OUT: &str = "sallyport-left-out";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    pub format: Format,
    pub session: Option<SessionId>,
    pub connection: Option<ConnectionId>,
    pub principal: Option<String>,
    pub target: Option<TargetName>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

#[utoipa::path(
    get, path = "/pam/export", tag = "recordings",
    params(
        ("format" = String, Query, description = "`jsonl`, `ocsf`, `access-register`, `break-glass-register`, \
            `revocation-latency` or `sql`"),
        ("session" = Option<String>, Query, description = "Only what is about it: `ses-…`"),
        ("connection" = Option<String>, Query, description = "Only what was done over it: `con-…`"),
        ("principal" = Option<String>, Query, description = "Only what somebody did, by name or id"),
        ("target" = Option<String>, Query, description = "Only what is about it"),
        ("from" = Option<String>, Query, description = "From this instant on (RFC 3339)"),
        ("to" = Option<String>, Query, description = "Until this instant, included"),
    ),
    responses(
        (status = 200, description = "What the caller may read; `sallyport-written` and `sallyport-left-out` count",
            content((String = "application/x-ndjson"), (String = "text/csv"), (String = "application/sql"))),
        (status = 400, description = "The form cannot be made of what was asked for", body = Problem),
        (status = 403, description = "Nothing of it is theirs to read", body = Problem),
    )
)]
pub async fn show(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Query(query): Query<ExportQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ExportQuery { format, session, connection, principal, target, from, to } = query;
    let filter = Filter { session, connection, principal, target, from, to };
    filter.check(format).map_err(|error| problem(&error))?;
    let mut reader = state.access.reader(&who.caller.principal);
    let (directory, asked) = (Arc::clone(&state.audit), filter.clone());
    let counting = state.tasks.spawn_blocking(move || {
        let order = export::Order { directory: &directory, format, filter: &asked, size: None };
        let counts = export::count(&order, &mut |whose| reader.may(whose))?;
        let refusal = reader.refusal(&asked, &counts);
        Ok::<_, ExportError>((counts, refusal))
    });
    let counted = counting.await.map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    let (counts, refusal) = counted.map_err(|error| problem(&error))?;
    let refused = refusal.as_ref();
    state.access.record_export(&who.caller, format.as_str(), &filter, &counts, refused).await?;
    if let Some(refusal) = refusal {
        return Err(refusal.into());
    }
    let reading = Reading::new(&state.access, &who.caller.principal, &headers);
    let (chunks, writing) = write(&state, format, filter, counts, reading);
    let body = streamed::body(chunks, writing).await.map_err(|error| error.problem(problem))?;
    let kind = match format {
        Format::Jsonl | Format::Ocsf => "application/x-ndjson",
        Format::Sql => "application/sql; charset=utf-8",
        Format::AccessRegister | Format::BreakGlassRegister | Format::RevocationLatency => {
            "text/csv; charset=utf-8; header=present"
        }
    };
    let head = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::HeaderName::from_static(WRITTEN), counts.written.to_string()),
        (header::HeaderName::from_static(LEFT_OUT), counts.left_out.to_string()),
    ];
    Ok((head, body).into_response())
}

/// Writes what was counted, in a thread. What is not what was counted breaks off.
fn write(
    state: &HttpState,
    format: Format,
    filter: Filter,
    counted: Counts,
    reading: Reading,
) -> (mpsc::Receiver<streamed::Chunk<ExportError>>, JoinHandle<()>) {
    let (sender, chunks) = streamed::channel();
    let directory = Arc::clone(&state.audit);
    let writing = state.tasks.spawn_blocking(move || {
        let reading = RefCell::new(reading);
        let mut writer = Sink::new(sender.clone(), || reading.borrow_mut().still_may());
        let order = export::Order { directory: &directory, format, filter: &filter, size: Some(counted.log) };
        let mut may = |whose: Whose<'_>| reading.borrow_mut().may(whose);
        let error = match export::write(&order, &mut may, &mut writer) {
            Ok(counts) if counts == counted => return,
            Ok(_) => ExportError::Write(std::io::ErrorKind::PermissionDenied.into()),
            Err(error) => error,
        };
        tracing::warn!(%format, error = %error_chain(&error), "an export ended early");
        // Whoever read has gone when this fails.
        let _ = sender.blocking_send(Err(error));
    });
    (chunks, writing)
}

#[utoipa::path(
    get, path = "/pam/sessions/{id}/bundle", tag = "recordings",
    params(("id" = String, Path, description = "`ses-…`")),
    responses(
        (status = 200, description = "What the log holds of the session, with its proof",
            content((String = "application/x-sallyport-bundle"))),
        (status = 403, description = "Not theirs to read", body = Problem),
        (status = 404, description = "No such session", body = Problem),
    )
)]
pub async fn bundle(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Named(session): Named<SessionId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = state.access.may_bundle(&who.caller, &session).await?;
    // What happened up to now is in it, this call included.
    let checkpoint = state.access.journal.checkpoint().await;
    checkpoint.map_err(|error| Refusal::Unrecordable { detail: error.to_string() })?;
    let mut reading = Reading::new(&state.access, &who.caller.principal, &headers);
    reading.may(Whose { principal: Some(found.principal.id.as_str()), target: Some(found.target.as_str()) });
    let (sender, chunks) = streamed::channel();
    let (directory, access) = (Arc::clone(&state.audit), Arc::clone(&state.access));
    let writing = state.tasks.spawn_blocking(move || {
        let mut writer = Sink::new(sender.clone(), || reading.still_may());
        let key = access.journal.verify_key();
        let order = bundle::Order { directory: &directory, key, session: &session, redactions: &[] };
        if let Err(error) = bundle::write(&order, &mut writer) {
            tracing::warn!(%session, error = %error_chain(&error), "a bundle ended early");
            let _ = sender.blocking_send(Err(error));
        }
    });
    let body = streamed::body(chunks, writing).await.map_err(|error| error.problem(unbundled))?;
    Ok(([(header::CONTENT_TYPE, "application/x-sallyport-bundle")], body).into_response())
}

/// Somebody who reads for a while.
struct Reading {
    runtime: Handle,
    access: Arc<Access>,
    bearer: Secret<String>,
    /// What they may read; none when they may no longer.
    reader: Option<Reader>,
    confirmed: Instant,
}

impl Reading {
    fn new(access: &Arc<Access>, principal: &Principal, headers: &HeaderMap) -> Self {
        Self {
            runtime: Handle::current(),
            access: Arc::clone(access),
            bearer: Secret::new(bearer(headers).unwrap_or_default().to_owned()),
            reader: Some(access.reader(principal)),
            confirmed: Instant::now(),
        }
    }

    fn may(&mut self, whose: Whose<'_>) -> bool {
        self.reader.as_mut().is_some_and(|reader| reader.may(whose))
    }

    /// Whether all that they could read until now still is theirs to read; asked once in a while.
    fn still_may(&mut self) -> bool {
        if self.reader.is_some() && self.confirmed.elapsed() >= CONFIRM_EVERY {
            self.confirmed = Instant::now();
            let now = self.runtime.block_on(self.access.reader_of(self.bearer.expose()));
            self.reader = self.reader.take().zip(now).and_then(|(before, now)| before.renewed_as(now));
        }
        self.reader.is_some()
    }
}

fn problem(error: &ExportError) -> Problem {
    match error {
        ExportError::Unfit { .. } => Problem::malformed(error.to_string()),
        ExportError::Damaged { .. } => damaged(error),
        ExportError::Read { .. } | ExportError::Write(_) => unreadable(error),
    }
}

fn unbundled(error: &BundleError) -> Problem {
    match error {
        BundleError::NoSession(_) => Problem::new(StatusCode::NOT_FOUND, "not_found", error.to_string()),
        BundleError::Damaged { .. } | BundleError::NotVouched | BundleError::BadCheckpoint(_) => {
            damaged(error)
        }
        _ => unreadable(error),
    }
}

fn damaged(error: &dyn std::error::Error) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "recording_damaged", error.to_string())
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unreadable", error.to_string())
}
