//! Recordings, streamed as they are read: a recording may be larger than the memory.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::access::credential::error_chain;
use crate::audit::asciicast;
use crate::audit::replay::{self, ReplayError};
use crate::domain::id::ConnectionId;
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::{Named, Query};

/// How much is read ahead of the client: so many chunks of so many bytes.
const CHUNKS: usize = 4;
const CHUNK: usize = 32 * 1024;

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
    /// Which channel of an SSH connection, as asciicast; without it the first with a terminal.
    pub channel: Option<u32>,
}

#[utoipa::path(
    get, path = "/pam/recordings/{connection}", tag = "recordings",
    params(("connection" = String, Path, description = "`con-…`"),
        ("format" = Option<Format>, Query, description = "Without it `Accept` decides"),
        ("channel" = Option<u32>, Query,
            description = "As asciicast: which channel; without it the first with a terminal"),
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
    let connection = state.access.may_replay(&who.caller, &connection).await?.id;
    let format = query.format.unwrap_or_else(|| accepted(&headers));
    let (sender, mut chunks) = mpsc::channel::<Chunk>(CHUNKS);
    let directory = state.audit.clone();
    state.tasks.spawn_blocking(move || {
        let mut writer = io::BufWriter::with_capacity(CHUNK, ToChannel(sender.clone()));
        let replayed = match format {
            Format::Text => replay::replay_text(&directory, &connection, &mut writer),
            Format::Json => replay::replay_json(&directory, &connection, &mut writer),
            Format::Asciicast => {
                asciicast::replay_asciicast(&directory, &connection, query.channel, &mut writer)
            }
        };
        let flushed = replayed.and_then(|_| writer.flush().map_err(ReplayError::Write));
        if let Err(error) = flushed {
            tracing::warn!(%connection, error = %error_chain(&error), "a replay ended early");
            // Whoever read has gone when this fails.
            let _ = sender.blocking_send(Err(error));
        }
    });
    // Until the first bytes are there, a failure still has a status of its own.
    let first = match chunks.recv().await {
        Some(Err(error)) => return Err(problem(&error)),
        first => first,
    };
    let kind = match format {
        Format::Text => "text/plain; charset=utf-8",
        Format::Json => "application/x-ndjson",
        Format::Asciicast => "application/x-asciicast",
    };
    let rest = stream::unfold((first, chunks), async |(next, mut chunks)| {
        let next = match next {
            Some(chunk) => Some(chunk),
            None => chunks.recv().await,
        };
        next.map(|chunk| (chunk.map_err(io::Error::other), (None, chunks)))
    });
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(rest)).into_response())
}

type Chunk = Result<Bytes, ReplayError>;

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

/// Hands what is written to the response; waits while the client is slow.
struct ToChannel(mpsc::Sender<Chunk>);

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
