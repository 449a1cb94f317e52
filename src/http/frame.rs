//! What every call gets, whatever route it takes: an id, a log span, a deadline, headers that keep
//! answers out of caches, and errors in one form.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt as _;
use tracing::Instrument;

use super::error::Problem;
use crate::crypto;

/// How long a call may take until its answer begins.
pub const DEADLINE: Duration = Duration::from_mins(1);
/// The same where the whole audit log is read first, however long that is.
pub const LONG_DEADLINE: Duration = Duration::from_hours(1);
/// The longest body that is read.
pub const LONGEST_BODY: usize = 64 * 1024;
/// How much of a body that is too long is read and dropped.
const MOST_DROPPED: usize = 8 * 1024 * 1024;
/// Marks an error answer whose own body says more than a problem would.
#[derive(Debug, Clone, Copy)]
pub struct OwnBody;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long the answer of a route may take to begin.
pub type Deadlines = fn(&str) -> Duration;

/// The outermost layer of the router.
pub async fn frame(State(deadline): State<Deadlines>, request: Request, next: Next) -> Response {
    let id = crypto::hex(&crypto::random::<8>());
    let method = request.method().clone();
    // The path as the table names it: what strangers make up becomes neither a label nor a log line.
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = matched.unwrap_or_else(|| "unknown".to_owned());
    let span = tracing::info_span!("api", request_id = %id, %method, route = %route);
    let started = Instant::now();
    let response = async {
        let answering = async {
            match with_body(request).await {
                Ok(request) => next.run(request).await,
                Err(status) => status_only(status),
            }
        };
        let answered = tokio::time::timeout(deadline(&route), answering).await;
        let response = answered.unwrap_or_else(|_elapsed| status_only(StatusCode::REQUEST_TIMEOUT));
        let response = finish(response, &id);
        tracing::debug!(status = response.status().as_u16(), elapsed = ?started.elapsed(), "answered");
        response
    }
    .instrument(span)
    .await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("sallyport_api_calls_total", "route" => route.clone(), "status" => status).increment(1);
    metrics::histogram!("sallyport_api_call_seconds", "route" => route)
        .record(started.elapsed().as_secs_f64());
    response
}

/// Reads the body before anything answers: an answer to a call whose body is still on its way breaks
/// the stream off, and many clients then never show it. Of a body that is too long as much is read
/// and dropped as an honest mistake would be long.
async fn with_body(request: Request) -> Result<Request, StatusCode> {
    let (parts, body) = request.into_parts();
    let (mut pieces, mut kept, mut seen) = (body.into_data_stream(), Vec::new(), 0_usize);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| StatusCode::BAD_REQUEST)?;
        seen = seen.saturating_add(piece.len());
        if seen > MOST_DROPPED {
            break;
        }
        if seen <= LONGEST_BODY {
            kept.extend_from_slice(&piece);
        }
    }
    if seen > LONGEST_BODY {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    Ok(Request::from_parts(parts, Body::from(kept)))
}

fn status_only(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

fn finish(mut response: Response, id: &str) -> Response {
    let status = response.status();
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        id.clone_into(&mut problem.request_id);
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem.render();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    } else if (status.is_client_error() || status.is_server_error())
        && response.extensions().get::<OwnBody>().is_none()
    {
        let mut problem = Problem::of_status(status);
        id.clone_into(&mut problem.request_id);
        response = problem.render();
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    headers.insert(
        header::STRICT_TRANSPORT_SECURITY,
        HeaderValue::from_static("max-age=31536000; includeSubDomains"),
    );
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
