//! `sallyport config psql`: after it, `psql service=ledger-prod` works, and so does every tool that
//! reads libpq's files.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::home::{Home, write_private};
use super::pgfiles::{self, Gateway, Service};
use super::{config_ssh, marked, out, psql};
use crate::domain::target::TargetKind;
use crate::http::view::{GatewayView, List, TargetView, WhoamiView};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Config {
    /// Write `~/.pg_service.conf` and `~/.pgpass`, so that `psql service=TARGET` works
    Psql(Arguments),
    /// Write an OpenSSH configuration, so that `ssh TARGET`, scp, rsync and the like work
    Ssh(config_ssh::Arguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only show what would be written, without the token
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(arguments: Arguments, home: &Home, client: &Client) -> Outcome {
    let who: WhoamiView = client.get("/whoami").await?;
    let targets: List<TargetView> = client.get("/pam/targets").await?;
    let gateway = psql::gateway(home, client).await?;
    let services: Vec<Service> = targets
        .items
        .into_iter()
        .filter(|target| target.kind == TargetKind::Postgres)
        .map(|target| Service {
            user: psql::user(who.principal.name.as_str(), &target.name, None),
            name: target.name.to_string(),
            database: target.databases.into_iter().next(),
        })
        .collect();
    let (service_file, password_file) = files()?;
    let text = pgfiles::services(&gateway, &services);
    if arguments.print {
        out::line(format!("# {}", service_file.display()))?;
        out::line(text.trim_end())?;
        out::line(format!("# {}", password_file.display()))?;
        out::line(pgfiles::password_line(&gateway, "TOKEN").trim_end())?;
        return Ok(Exit::Done);
    }
    let old = read(&service_file)?;
    for name in pgfiles::foreign_sections(&old, &services) {
        out::note(format!(
            "`{}` has a section [{name}] of your own; psql may use that one",
            service_file.display()
        ));
    }
    write_private(&service_file, marked::with_block(&old, pgfiles::WRITER, &text).as_bytes())?;
    write_token(&password_file, &gateway, client)?;
    out::line(format!("wrote {} and {}", service_file.display(), password_file.display()))?;
    if let Some(service) = services.first() {
        out::line(format!("connect: psql service={}", service.name))?;
    }
    Ok(Exit::Done)
}

/// After a login: the new token in place of the old one, where there is a block of ours.
pub(super) async fn refresh(client: &Client) -> Result<(), Failure> {
    let (_, password_file) = files()?;
    if !marked::has_block(&read(&password_file)?) {
        return Ok(());
    }
    let view: GatewayView = client.get("/pam/gateway").await?;
    let gateway = Gateway { host: view.host, port: view.port, root_certificate: String::new() };
    write_token(&password_file, &gateway, client)?;
    out::note(format!("the token in {} is renewed", password_file.display()));
    Ok(())
}

/// After a logout: no token stays behind.
pub(super) fn forget() -> Result<(), Failure> {
    let (_, password_file) = files()?;
    let old = read(&password_file)?;
    if !marked::has_block(&old) {
        return Ok(());
    }
    write_private(&password_file, marked::with_block(&old, pgfiles::WRITER, "# logged out").as_bytes())
}

fn write_token(path: &Path, gateway: &Gateway, client: &Client) -> Result<(), Failure> {
    let token = client.settings().token.as_ref();
    let token = token.ok_or_else(|| Failure::new(Exit::Unauthenticated, "you are not logged in"))?;
    let line = pgfiles::password_line(gateway, token.expose());
    write_private(path, marked::with_block(&read(path)?, pgfiles::WRITER, &line).as_bytes())
}

fn files() -> Result<(PathBuf, PathBuf), Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = std::env::home_dir();
    Ok((pgfiles::service_file(&variable, home.clone())?, pgfiles::password_file(&variable, home)?))
}

/// The file's text; empty when there is none.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::of(format!("cannot read `{}`", path.display()), &error)),
    }
}
