//! Recordings, streamed as they are read: a recording may be larger than the memory.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use utoipa::ToSchema;

use crate::access::Access;
use crate::access::credential::error_chain;
use crate::audit::asciicast;
use crate::audit::replay::{self, ReplayError, Source};
use crate::domain::connection::Connection;
use crate::domain::id::ConnectionId;
use crate::domain::secret::Secret;
use crate::http::HttpState;
use crate::http::auth::{Bearer, bearer};
use crate::http::error::Problem;
use crate::http::extract::{Named, Query};
use crate::http::streamed::{self, Sink};

/// How often it is looked what a recording that is followed has more.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often it is asked whether who follows it still may.
const CONFIRM_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As people read it.
    Text,
    /// The records exactly as stored, one JSON object a line.
    Json,
    /// One terminal of an SSH connection, with its timing.
    Asciicast,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayQuery {
    /// Without it `Accept` decides: `application/x-ndjson` or `application/json` is JSON lines.
    pub format: Option<Format>,
    /// Go on as the recording grows, to its end.
    #[serde(default)]
    pub follow: bool,
    /// Which channel of an SSH connection, as asciicast; without it the first with a terminal.
    pub channel: Option<u32>,
}

#[utoipa::path(
    get, path = "/pam/recordings/{connection}", tag = "recordings",
    params(("connection" = String, Path, description = "`con-…`"),
        ("format" = Option<Format>, Query, description = "Without it `Accept` decides"),
        ("channel" = Option<u32>, Query,
            description = "As asciicast: which channel; without it the first with a terminal"),
        ("follow" = Option<bool>, Query,
            description = "Go on as the recording grows, to its end; not as asciicast"),
    ),
    responses(
        (status = 200, description = "The recording", content(
            (String = "text/plain"), (String = "application/x-ndjson"), (String = "application/x-asciicast"),
        )),
        (status = 403, description = "Not theirs to read", body = Problem),
        (status = 404, description = "No such recording, or no such terminal in it", body = Problem),
    )
)]
pub async fn show(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Named(connection): Named<ConnectionId>,
    Query(query): Query<ReplayQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = query.format.unwrap_or_else(|| accepted(&headers));
    if query.follow && format == Format::Asciicast {
        let what = "an asciicast is made of what there is: follow as text or json";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "malformed", what));
    }
    let found = state.access.may_replay(&who.caller, &connection).await?;
    let (connection, opened) = (found.id.clone(), Some(found.opened_at));
    let (sender, chunks) = streamed::channel();
    let directory = state.audit.clone();
    let mut watching = query.follow.then(|| Watching {
        runtime: Handle::current(),
        access: Arc::clone(&state.access),
        bearer: Secret::new(bearer(&headers).unwrap_or_default().to_owned()),
        connection: found,
        confirmed: Instant::now(),
    });
    let watched = sender.clone();
    let writing = state.tasks.spawn_blocking(move || {
        let mut reading = watching.clone();
        let mut writer = Sink::new(sender.clone(), || reading.as_mut().is_none_or(Watching::still_may));
        let wait = || !watched.is_closed() && watching.as_mut().is_some_and(Watching::look_later);
        let source = Source { directory: &directory, connection: &connection, opened };
        let replayed = match format {
            Format::Text if query.follow => replay::follow_text(&source, &mut writer, wait),
            Format::Json if query.follow => replay::follow_json(&source, &mut writer, wait),
            Format::Text => replay::replay_text(&source, &mut writer),
            Format::Json => replay::replay_json(&source, &mut writer),
            Format::Asciicast => asciicast::replay_asciicast(&source, query.channel, &mut writer),
        };
        let flushed = replayed.and_then(|_| writer.flush().map_err(ReplayError::Write));
        if let Err(error) = flushed {
            tracing::warn!(%connection, error = %error_chain(&error), "a replay ended early");
            // Whoever read has gone when this fails.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let body = streamed::body(chunks, writing).await.map_err(|error| error.problem(problem))?;
    let kind = match format {
        Format::Text => "text/plain; charset=utf-8",
        Format::Json => "application/x-ndjson",
        Format::Asciicast => "application/x-asciicast",
    };
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

fn accepted(headers: &HeaderMap) -> Format {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("json") { Format::Json } else { Format::Text }
}

fn problem(error: &ReplayError) -> Problem {
    match error {
        ReplayError::NoRecording(_) => Problem::new(StatusCode::NOT_FOUND, "not_found", error.to_string()),
        ReplayError::NoTerminal { .. } => {
            Problem::new(StatusCode::NOT_FOUND, "no_terminal", error.to_string())
        }
        ReplayError::Damaged { .. } => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "recording_damaged", error.to_string())
        }
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unreadable", error.to_string()),
    }
}

/// Somebody who watches a recording that grows.
#[derive(Clone)]
struct Watching {
    runtime: Handle,
    access: Arc<Access>,
    bearer: Secret<String>,
    connection: Connection,
    /// When it was last asked whether they still may.
    confirmed: Instant,
}

impl Watching {
    /// Whether they still may; asked once in a while.
    fn still_may(&mut self) -> bool {
        if self.confirmed.elapsed() < CONFIRM_EVERY {
            return true;
        }
        self.confirmed = Instant::now();
        self.runtime.block_on(self.access.may_watch_on(self.bearer.expose(), &self.connection))
    }

    fn look_later(&mut self) -> bool {
        self.runtime.block_on(self.access.clock.sleep(LOOK_EVERY));
        self.still_may()
    }
}
