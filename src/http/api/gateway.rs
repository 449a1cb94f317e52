//! How clients reach the gateway: what generated client configuration is made from.

use axum::Json;
use axum::extract::State;

use crate::domain::event::{Action, Event};
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::view::GatewayView;
use crate::http::{HttpState, SshGatewayInfo};

#[utoipa::path(
    get, path = "/pam/gateway", tag = "targets",
    responses((status = 200, description = "Addresses of the gateways, and what they are known by", body = GatewayView))
)]
pub async fn show(State(state): State<HttpState>, Bearer(who): Bearer) -> Result<Json<GatewayView>, Problem> {
    let event = Event::done(Action::Read)
        .by(&who.caller.principal)
        .from(who.caller.client)
        .with("what", "gateway")
        .with("count", 1);
    state.access.record(event).await?;
    Ok(Json(GatewayView {
        host: state.gateway.host.clone(),
        port: state.gateway.port,
        ca_pem: state.gateway.ca_pem.clone(),
        ssh: state.gateway.ssh.as_ref().map(SshGatewayInfo::view),
    }))
}
