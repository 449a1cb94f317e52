//! Search across recordings.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::SearchQuery;
use crate::access::credential::error_chain;
use crate::audit::search::{Found, Progress, Query as Wanted, SearchError};
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::Query;
use crate::http::view::FoundView;

const USUAL_LIMIT: usize = 50;
const LONGEST_LIMIT: usize = 500;
/// So much of the log a search takes into the index first, in bytes, when the index is behind.
const CATCH_UP: u64 = 64 << 20;

impl From<SearchQuery> for Wanted {
    fn from(query: SearchQuery) -> Self {
        let SearchQuery { text, principal, target, session, from, to, kind, limit, before } = query;
        let limit = limit.unwrap_or(USUAL_LIMIT).clamp(1, LONGEST_LIMIT);
        Self { text, principal, target, session, from, to, kind, limit, before }
    }
}

#[utoipa::path(
    get, path = "/pam/search", tag = "recordings", params(SearchQuery),
    responses(
        (status = 200, description = "The newest hits in recordings that the caller may read", body = FoundView),
        (status = 400, description = "The text is too long, or there is no such kind", body = Problem),
        (status = 503, description = "The index or the log cannot be read now", body = Problem),
    )
)]
pub async fn find(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Query(query): Query<SearchQuery>,
) -> Result<Json<FoundView>, Problem> {
    let query = Wanted::from(query);
    let (index, wanted, may) = (state.search.clone(), query.clone(), state.access.readable(&who.caller));
    let Ok(turn) = state.searches.clone().acquire_owned().await else {
        return Err(Problem::of_status(StatusCode::SERVICE_UNAVAILABLE));
    };
    let searching = state.tasks.spawn_blocking(move || {
        let _turn = turn;
        // What could not be taken in can be searched later; what was can be searched now.
        let updated = index.update(CATCH_UP);
        if let Err(error) = &updated {
            tracing::warn!(error = %error_chain(error), "the search index is not up to date");
        }
        let found = index.search(wanted, &mut |owner, target| may(owner, target))?;
        Ok::<_, SearchError>((found, !matches!(updated, Ok(Progress::UpToDate))))
    });
    let searched: Result<(Found, bool), SearchError> =
        searching.await.map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    let (found, behind) = searched.map_err(|error| problem(&error))?;
    state.access.searched(&who.caller, &query, &found).await?;
    Ok(Json(FoundView::new(found, behind)))
}

fn problem(error: &SearchError) -> Problem {
    if error.is_the_askers() {
        return Problem::malformed(error.to_string());
    }
    tracing::error!(error = %error_chain(error), "a search failed");
    let code =
        if matches!(error, SearchError::Damaged { .. }) { "recording_damaged" } else { "unsearchable" };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "the recordings cannot be searched now")
        .hint("try again in a minute; the server's log says more under this request id")
}
