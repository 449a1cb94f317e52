//! Asking on the spot: what a session channel without a permit gets.
//!
//! Without a terminal: one line that says what to do, and an exit status of its own. In a terminal:
//!
//! 1. Where no target was named: a list of what one may open, and a pick.
//! 2. Where the session is there: go on.
//! 3. Reason and duration are asked for, the request is filed.
//! 4. Who has approved is shown as it happens; ^C withdraws the request.
//! 5. Once approved, the channel goes on as if the session had been there all along.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::authenticate::Known;
use super::goodbye;
use super::lobby::Admitted;
use super::message::{Message, Request};
use super::prompt::{Interrupted, Prompt};
use super::serve::SshGateway;
use super::server::{ClientChannel, FromClient};
use super::session::Prelude;
use crate::access::Caller;
use crate::access::connect::Wanted;
use crate::domain::deny::Deny;
use crate::domain::name::AccessName;
use crate::domain::request::{Ask, DEFAULT_DURATION, Request as AccessRequest, RequestState};
use crate::domain::session::Permit;
use crate::domain::time::{humane, parse_duration};

/// `EX_NOPERM`: what a script can tell from any status of a program's.
const NO_SESSION_STATUS: u32 = 77;
/// How often the store is asked how a request stands.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// For whom questions are asked, and why.
pub(super) struct Asker<'a> {
    gateway: &'a Arc<SshGateway>,
    known: &'a Known,
    caller: Caller,
    deny: Option<Deny>,
}

/// What a channel was opened for, before there is a target to ask.
enum Purpose {
    Shell,
    Program,
}

/// Why a dialogue ended without a permit.
enum NotAdmitted {
    /// The client left, or pressed ^C.
    Interrupted,
    Told(String),
}

impl From<Interrupted> for NotAdmitted {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

impl<'a> Asker<'a> {
    pub(super) fn new(
        gateway: &'a Arc<SshGateway>,
        known: &'a Known,
        client: SocketAddr,
        deny: Option<&Deny>,
    ) -> Self {
        let caller = Caller { principal: known.principal.clone(), client: Some(client) };
        Self { gateway, known, caller, deny: deny.cloned() }
    }

    fn told(&self) -> String {
        match &self.deny {
            Some(deny) => format!("{deny}. {}", deny.hint()),
            None => "name a target: ssh USER+TARGET@…; `sallyport targets` lists them".to_owned(),
        }
    }
}

/// Serves the channel; gives it back with a permit, or ends it.
pub(super) async fn serve(asker: &Asker<'_>, channel: ClientChannel) -> Option<Admitted> {
    let ClientChannel { mut from, to } = channel;
    let mut prelude = Prelude::default();
    let purpose = purpose(&mut from, &mut prelude).await?;
    if matches!(purpose, Purpose::Program) || prelude.pty.is_none() {
        let told = asker.told();
        goodbye::explain(from, &to, &told, NO_SESSION_STATUS, prelude.pty.is_some(), true).await;
        return None;
    }
    prelude.shell = true;
    let mut prompt = Prompt::new(from, &to);
    let outcome = dialogue(asker, &mut prompt, &mut prelude).await;
    let from = prompt.into_inner();
    match outcome {
        Ok(permit) => Some(Admitted { permit, channel: Some((ClientChannel { from, to }, prelude)) }),
        Err(NotAdmitted::Told(why)) => {
            goodbye::explain(from, &to, &why, NO_SESSION_STATUS, true, true).await;
            None
        }
        Err(NotAdmitted::Interrupted) => {
            goodbye::explain(from, &to, "withdrawn", NO_SESSION_STATUS, true, true).await;
            None
        }
    }
}

/// Answers requests until the one that says what the channel is for.
async fn purpose(from: &mut FromClient, prelude: &mut Prelude) -> Option<Purpose> {
    loop {
        let Message::Request(request) = from.next().await? else { continue };
        match request {
            Request::Pty(pty) => {
                prelude.pty = Some(pty);
                from.answer(true);
            }
            Request::Env { name, value } => {
                prelude.env.push((name, value));
                from.answer(true);
            }
            Request::Resize(window) => resize(prelude, window),
            Request::Signal(_) => {}
            Request::Agent | Request::X11 => from.answer(false),
            Request::Shell => {
                from.answer(true);
                return Some(Purpose::Shell);
            }
            Request::Exec(_) | Request::Subsystem(_) => {
                from.answer(true);
                return Some(Purpose::Program);
            }
        }
    }
}

fn resize(prelude: &mut Prelude, window: super::message::Window) {
    if let Some(pty) = &mut prelude.pty {
        pty.window = window;
    }
}

async fn dialogue(
    asker: &Asker<'_>,
    prompt: &mut Prompt<'_>,
    prelude: &mut Prelude,
) -> Result<Permit, NotAdmitted> {
    let (wanted, deny) = match &asker.deny {
        Some(deny) => (asker.known.wanted.clone(), deny.clone()),
        None => {
            let wanted = pick(asker, prompt).await?;
            match asker.gateway.admit(asker.known, &wanted).await {
                Ok(permit) => return Ok(permit),
                Err(deny) => (Some(wanted), deny),
            }
        }
    };
    prompt.say(&format!("{deny}.")).await?;
    let (Some(wanted), Some(accesses)) = (wanted, accesses(&deny)) else {
        return Err(NotAdmitted::Told(deny.hint()));
    };
    let ask = question(prompt, &wanted, &accesses).await?;
    let asked = asker.gateway.access.ask(&asker.caller, ask).await;
    let asked = asked.map_err(|refusal| NotAdmitted::Told(refusal.to_string()))?;
    let outcome = follow(asker, prompt, &asked.request).await;
    if let Some(window) = prompt.resized() {
        resize(prelude, window);
    }
    if matches!(outcome, Err(NotAdmitted::Interrupted)) {
        // Decided a moment ago or withdrawn now: either way it no longer waits.
        let withdrawn = asker.gateway.access.cancel(&asker.caller, &asked.request.id).await;
        tracing::debug!(request = %asked.request.id, done = withdrawn.is_ok(), "withdrawn on the spot");
    }
    outcome?;
    let wanted = Wanted { access: Some(asked.request.ask.access), ..wanted };
    let admitted = asker.gateway.admit(asker.known, &wanted).await;
    admitted.map_err(|deny| NotAdmitted::Told(format!("{deny}. {}", deny.hint())))
}

/// The accesses that a refusal leaves to ask for; `None` when asking would not help.
fn accesses(deny: &Deny) -> Option<Vec<AccessName>> {
    match deny {
        Deny::NoSession { accesses, .. } | Deny::Expired { accesses, .. } => Some(accesses.clone()),
        _ => None,
    }
}

async fn pick(asker: &Asker<'_>, prompt: &mut Prompt<'_>) -> Result<Wanted, NotAdmitted> {
    let targets = asker.gateway.access.targets(&asker.caller).await;
    let targets = targets.map_err(|refusal| NotAdmitted::Told(refusal.to_string()))?;
    let hosts: Vec<_> = targets
        .into_iter()
        .filter(|view| {
            view.target.kind == crate::domain::target::TargetKind::Ssh && !view.may_request.is_empty()
        })
        .collect();
    if hosts.is_empty() {
        return Err(NotAdmitted::Told("there is no host that you may ask for".to_owned()));
    }
    for (number, view) in hosts.iter().enumerate() {
        let accesses: Vec<&str> = view.may_request.iter().map(AccessName::as_str).collect();
        let (name, tier) = (&view.target.name, view.target.environment);
        prompt.say(&format!("{:>3}  {name}  ({tier})  {}", number + 1, accesses.join(", "))).await?;
    }
    loop {
        let line = prompt.ask("host: ").await?;
        let by_number = line.trim().parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let found = by_number
            .and_then(|index| hosts.get(index))
            .or_else(|| hosts.iter().find(|view| view.target.name.as_str() == line.trim()));
        match found {
            Some(view) => return Ok(Wanted { target: view.target.name.clone(), access: None }),
            None => prompt.say("give a number of the list, or a name").await?,
        }
    }
}

/// What is to be asked for.
async fn question(
    prompt: &mut Prompt<'_>,
    wanted: &Wanted,
    accesses: &[AccessName],
) -> Result<Ask, NotAdmitted> {
    let access = match (&wanted.access, accesses) {
        (Some(access), _) => access.clone(),
        (None, [only]) => only.clone(),
        (None, several) => loop {
            let names: Vec<&str> = several.iter().map(AccessName::as_str).collect();
            let line = prompt.ask(&format!("access ({}): ", names.join(", "))).await?;
            match several.iter().find(|access| access.as_str() == line.trim()) {
                Some(access) => break access.clone(),
                None => prompt.say("give one of those in parentheses").await?,
            }
        },
    };
    let reason = loop {
        let line = prompt.ask("reason: ").await?;
        if !line.trim().is_empty() {
            break line.trim().to_owned();
        }
        prompt.say("approvers and auditors will read it: say why").await?;
    };
    let default = humane(DEFAULT_DURATION);
    let duration = loop {
        let line = prompt.ask(&format!("for how long [{default}]: ")).await?;
        match line.trim() {
            "" => break DEFAULT_DURATION,
            text => match parse_duration(text) {
                Ok(duration) => break duration,
                Err(error) => prompt.say(&error.to_string()).await?,
            },
        }
    };
    let target = wanted.target.clone();
    Ok(Ask { target, access, duration, reason, ticket: None, break_glass: false })
}

/// Until the request is decided. Shows what is new.
async fn follow(
    asker: &Asker<'_>,
    prompt: &mut Prompt<'_>,
    request: &AccessRequest,
) -> Result<(), NotAdmitted> {
    let mut shown = 0;
    let mut told_missing = String::new();
    prompt.say(&format!("request {}; ^C withdraws it", request.id)).await?;
    loop {
        let view = asker.gateway.access.request_view(&asker.caller, &request.id).await;
        let view = view.map_err(|refusal| NotAdmitted::Told(refusal.to_string()))?;
        for approval in view.request.approvals.iter().skip(shown) {
            prompt.say(&format!("approved by {} ({})", approval.by.name, approval.domain)).await?;
        }
        shown = view.request.approvals.len();
        match &view.state {
            RequestState::Approved { .. } => return Ok(()),
            RequestState::Denied { by, why, .. } => {
                return Err(NotAdmitted::Told(format!("denied by {}: {why}", by.name)));
            }
            RequestState::Cancelled { .. } => {
                return Err(NotAdmitted::Told("the request was withdrawn".to_owned()));
            }
            RequestState::Lapsed { .. } => {
                return Err(NotAdmitted::Told("nobody decided in time: the request has lapsed".to_owned()));
            }
            RequestState::Pending => {}
        }
        let missing: Vec<String> =
            view.missing.iter().map(|rule| format!("{}: {}", rule.id, rule.needs)).collect();
        let missing = missing.join("; ");
        if missing != told_missing {
            prompt.say(&format!("waiting for {missing}")).await?;
            told_missing = missing;
        }
        prompt.wait(LOOK_EVERY).await?;
    }
}
