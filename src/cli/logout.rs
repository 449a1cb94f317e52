//! `sallyport logout`: ends the token at the server, then forgets it.

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::home::{Home, Login};
use super::{config_psql, out, psql, ssh_identity};

pub(super) async fn run(home: &Home) -> Outcome {
    let settings = home.settings(None, None)?;
    if settings.token.is_none() {
        return Err(Failure::new(Exit::Unauthenticated, "you are not logged in"));
    }
    let server = settings.server.clone();
    match Client::new(settings)?.tell("/logout").await {
        Ok(()) => out::line(format!("logged out of {server}"))?,
        // A token that the server no longer takes is as good as ended.
        Err(failure) if failure.exit == Exit::Unauthenticated => out::line("the login had ended already")?,
        Err(failure) => return Err(failure),
    }
    if let Some(login) = home.login()?.filter(|login| login.server == server) {
        // The server and its authority stay: the next login trusts what this one did.
        home.remember(&Login { token: None, expires_at: None, ..login })?;
    }
    psql::forget(home)?;
    config_psql::forget()?;
    ssh_identity::forget(home)?;
    Ok(Exit::Done)
}
