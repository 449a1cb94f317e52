//! `sallyport login`: trusts the authority that is given, the one remembered for this server, or the
//! system's; never one that the server itself shows.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::home::{Home, Login, Settings};
use super::when::relative;
use super::{config_psql, out, ssh_identity};
use crate::clock::Clock;
use crate::domain::secret::Secret;
use crate::http::view::LoginView;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server's address, as https://HOST:PORT
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The certificate authority of the server, in PEM; needed unless the system trusts the server
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Whom to log in as
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The second factor's present code; asked for where it is needed
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
}

#[derive(Serialize)]
struct LoginBody<'a> {
    user: &'a str,
    password: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

pub(super) async fn run(arguments: Arguments, home: &Home) -> Outcome {
    let settings = home.settings(arguments.server.as_deref(), arguments.ca.as_deref())?;
    // A login needs no token, and an old one must not get in its way.
    let settings = Settings { token: None, expires_at: None, ..settings };
    let client = Client::new(settings.clone())?;
    let user = match (arguments.user, home.login()?) {
        (Some(user), _) => user,
        (None, Some(login)) => login.user,
        (None, None) => ask("user: ")?,
    };
    let password = password(&format!("password of {user}: "), arguments.password_stdin)?;
    let body = LoginBody { user: &user, password: password.expose(), code: arguments.code.as_deref() };
    let view: LoginView = match client.post("/login", &body).await {
        Err(failure) if failure.code.as_deref() == Some("second_factor_required") => {
            let code = ask("code: ")?;
            let body = LoginBody { code: Some(&code), ..body };
            client.post("/login", &body).await.map_err(wrong_password)?
        }
        answer => answer.map_err(wrong_password)?,
    };
    home.remember(&Login {
        server: settings.server.clone(),
        ca_pem: settings.ca_pem.clone(),
        user: view.principal.name.to_string(),
        token: Some(view.token.clone()),
        expires_at: Some(view.expires_at),
    })?;
    let ends = relative(view.expires_at, Clock::system().now());
    out::line(format!("logged in to {} as {}; ends {ends}", settings.server, view.principal.name))?;
    let client = Client::new(Settings { token: Some(Secret::new(view.token)), ..settings })?;
    config_psql::refresh(&client).await?;
    ssh_identity::obtain(home, &client).await?;
    Ok(Exit::Done)
}

/// A refused login is answered with what to check, not with "log in".
fn wrong_password(mut failure: Failure) -> Failure {
    if failure.exit == Exit::Unauthenticated {
        let hint = "check the name (`--user NAME`), the password and, where it is asked for, the code";
        failure.hint = Some(hint.to_owned());
    }
    failure
}

/// A password from the terminal, or the first line of standard input.
pub(super) fn password(prompt: &str, from_stdin: bool) -> Result<Secret<String>, Failure> {
    let read = |error: std::io::Error| {
        Failure::of("cannot read the password", &error).hint("without a terminal, use --password-stdin")
    };
    if from_stdin {
        let mut text = String::new();
        std::io::stdin().lock().read_line(&mut text).map_err(read)?;
        let length = text.trim_end_matches(['\n', '\r']).len();
        text.truncate(length);
        return Ok(Secret::new(text));
    }
    rpassword::prompt_password(prompt).map(Secret::new).map_err(read)
}

fn ask(prompt: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::of(format!("cannot ask for the {prompt}"), &error);
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
    match line.trim() {
        "" => Err(Failure::usage(format!("{prompt} nothing was given")).hint("use --user NAME, --code CODE")),
        name => Ok(name.to_owned()),
    }
}
