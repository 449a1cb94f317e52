//! Asking on the spot: what a session channel without a permit gets.
//!
//! Without a terminal: one line that says what to do, and an exit status of its own. In a terminal:
//!
//! 1. Where no target was named: a list of what one may open, and a pick.
//! 2. Where the session is there (it may have come since the client did): go on.
//! 3. Reason and duration are asked for, the request is filed.
//! 4. Who has approved is shown as it happens; ^C withdraws the request.
//! 5. Once approved, the channel goes on as if the session had been there all along.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::authenticate::Known;
use super::goodbye::{self, REFUSED_STATUS};
use super::lobby::Admitted;
use super::message::{Message, Request};
use super::prompt::{ANSWER_WITHIN, Interrupted, Prompt};
use super::serve::SshGateway;
use super::server::{ClientChannel, FromClient};
use super::session::{Prelude, VARIABLES};
use super::settings::Settings;
use crate::access::Caller;
use crate::access::connect::Wanted;
use crate::access::refusal::Refusal;
use crate::domain::deny::Deny;
use crate::domain::name::AccessName;
use crate::domain::request::{Ask, DEFAULT_DURATION, Request as AccessRequest, RequestState};
use crate::domain::session::Permit;
use crate::domain::time::{humane, parse_duration};

/// How often the store is asked how a request stands.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// For whom questions are asked.
pub(super) struct Asker {
    gateway: Arc<SshGateway>,
    known: Known,
    caller: Caller,
}

/// What a channel was opened for, before there is a target to ask.
enum Purpose {
    Shell,
    Program,
}

/// Why a dialogue ended without a permit.
enum NotAdmitted {
    /// The client left, or pressed ^C, before anything was asked for.
    Interrupted,
    Told(String),
}

impl From<Interrupted> for NotAdmitted {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

impl Asker {
    pub(super) fn new(gateway: Arc<SshGateway>, known: Known, client: SocketAddr) -> Self {
        let caller = Caller { principal: known.principal.clone(), client: Some(client) };
        Self { gateway, known, caller }
    }

    async fn admit(&self, wanted: &Wanted) -> Result<Permit, Deny> {
        self.gateway.admit(&self.known, wanted).await
    }
}

/// What to do without a session, on one line.
fn told(deny: Option<&Deny>) -> String {
    match deny {
        Some(deny) => format!("{deny}. {}", deny.hint()),
        None => "name a target: ssh USER+TARGET@…; `sallyport targets` lists them".to_owned(),
    }
}

/// Serves the channel; gives it back with a permit, or ends it.
pub(super) async fn serve(asker: &Asker, channel: ClientChannel) -> Option<Admitted> {
    let deny = match &asker.known.wanted {
        Some(wanted) => match asker.admit(wanted).await {
            Ok(permit) => return Some(Admitted { permit, channel: Some((channel, Prelude::default())) }),
            Err(deny) => Some(deny),
        },
        None => None,
    };
    let ClientChannel { mut from, to } = channel;
    let mut prelude = Prelude::default();
    let saying = purpose(&mut from, &mut prelude, &asker.gateway.settings);
    let purpose = tokio::time::timeout(ANSWER_WITHIN, saying).await.ok()??;
    if matches!(purpose, Purpose::Program) || prelude.pty.is_none() {
        let told = told(deny.as_ref());
        goodbye::explain(from, &to, &told, REFUSED_STATUS, prelude.pty.is_some(), true).await;
        return None;
    }
    prelude.shell = true;
    let mut prompt = Prompt::new(from, &to);
    let outcome = dialogue(asker, &mut prompt, deny).await;
    if let Some(window) = prompt.resized() {
        resize(&mut prelude, window);
    }
    let (from, typed) = prompt.into_inner();
    prelude.typed = typed.into();
    let why = match outcome {
        Ok(permit) => return Some(Admitted { permit, channel: Some((ClientChannel { from, to }, prelude)) }),
        Err(NotAdmitted::Told(why)) => why,
        Err(NotAdmitted::Interrupted) => "nothing was asked for".to_owned(),
    };
    goodbye::explain(from, &to, &why, REFUSED_STATUS, true, true).await;
    None
}

/// Answers requests until the one that says what the channel is for.
async fn purpose(from: &mut FromClient, prelude: &mut Prelude, settings: &Settings) -> Option<Purpose> {
    loop {
        let Message::Request(request) = from.next().await? else { continue };
        if request.is_too_long() {
            if request.is_answered() {
                from.answer(false);
            }
            continue;
        }
        match request {
            Request::Pty(pty) => {
                prelude.pty = Some(pty);
                from.answer(true);
            }
            Request::Env { name, value } => {
                let wanted = settings.accepts_env(&name) && prelude.env.len() < VARIABLES;
                if wanted {
                    prelude.env.push((name, value));
                }
                from.answer(wanted);
            }
            Request::Resize(window) => resize(prelude, window),
            Request::Signal(_) => {}
            Request::Agent => {
                prelude.agent = true;
                from.answer(true);
            }
            Request::X11 => from.answer(false),
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

/// From a refusal, or from no target at all, to a permit.
async fn dialogue(asker: &Asker, prompt: &mut Prompt<'_>, deny: Option<Deny>) -> Result<Permit, NotAdmitted> {
    let named = asker.known.wanted.clone().zip(deny);
    let (mut wanted, mut deny) = if let Some(named) = named {
        named
    } else {
        let wanted = pick(asker, prompt).await?;
        match asker.admit(&wanted).await {
            Ok(permit) => return Ok(permit),
            Err(deny) => (wanted, deny),
        }
    };
    prompt.say(&format!("{deny}.")).await?;
    if let Deny::Ambiguous { accesses, .. } = &deny {
        wanted.access = Some(choose(prompt, accesses).await?);
        match asker.admit(&wanted).await {
            Ok(permit) => return Ok(permit),
            Err(other) => deny = other,
        }
    }
    let Some(accesses) = accesses(&deny) else { return Err(NotAdmitted::Told(deny.hint())) };
    let ask = question(prompt, &wanted, &accesses).await?;
    wanted.access = Some(ask.access.clone());
    obtain(asker, prompt, ask).await?;
    let admitted = asker.admit(&wanted).await;
    admitted.map_err(|deny| NotAdmitted::Told(told(Some(&deny))))
}

/// Files the request and waits for it to be approved; whoever stops waiting withdraws it.
async fn obtain(asker: &Asker, prompt: &mut Prompt<'_>, ask: Ask) -> Result<(), NotAdmitted> {
    let access = &asker.gateway.access;
    let filed = access.ask(&asker.caller, ask).await.map_err(|refusal| refused(&refusal))?;
    let id = &filed.request.id;
    let outcome = follow(asker, prompt, &filed.request).await;
    if !matches!(outcome, Err(NotAdmitted::Interrupted)) {
        return outcome;
    }
    Err(NotAdmitted::Told(match access.cancel(&asker.caller, id).await {
        Ok(_) => format!("request {id} is withdrawn"),
        Err(_) => format!("request {id} was decided in this moment: `sallyport requests` shows how"),
    }))
}

fn refused(refusal: &Refusal) -> NotAdmitted {
    NotAdmitted::Told(refusal.to_string())
}

/// The accesses that a refusal leaves to ask for; `None` when asking would not help.
fn accesses(deny: &Deny) -> Option<Vec<AccessName>> {
    match deny {
        Deny::NoSession { accesses, .. } | Deny::Expired { accesses, .. } => Some(accesses.clone()),
        _ => None,
    }
}

async fn pick(asker: &Asker, prompt: &mut Prompt<'_>) -> Result<Wanted, NotAdmitted> {
    let targets = asker.gateway.access.targets(&asker.caller).await.map_err(|refusal| refused(&refusal))?;
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

async fn choose(prompt: &mut Prompt<'_>, accesses: &[AccessName]) -> Result<AccessName, Interrupted> {
    let names: Vec<&str> = accesses.iter().map(AccessName::as_str).collect();
    let question = format!("access ({}): ", names.join(", "));
    loop {
        let line = prompt.ask(&question).await?;
        match accesses.iter().find(|access| access.as_str() == line.trim()) {
            Some(access) => return Ok(access.clone()),
            None => prompt.say("give one of those in parentheses").await?,
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
        (None, several) => choose(prompt, several).await?,
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
async fn follow(asker: &Asker, prompt: &mut Prompt<'_>, request: &AccessRequest) -> Result<(), NotAdmitted> {
    let access = &asker.gateway.access;
    let mut shown = 0;
    let mut told_missing = String::new();
    let mut seen = None;
    loop {
        access
            .refuse_blocked_from(&asker.caller.principal, &request.ask.target)
            .await
            .map_err(|refusal| refused(&refusal))?;
        // Reading a request is on record: it is read when there is something new in it.
        let stored = access.store.request(&request.id).await.map_err(|error| refused(&error.into()))?;
        let now = stored.map(|stored| (stored.approvals.len(), stored.state_at(access.now())));
        if now == seen {
            prompt.wait(LOOK_EVERY).await?;
            continue;
        }
        let view = access.request_view(&asker.caller, &request.id).await;
        let view = view.map_err(|refusal| refused(&refusal))?;
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
        if seen.is_none() {
            prompt.say(&format!("request {}; ^C withdraws it", request.id)).await?;
        }
        seen = now;
        let missing: Vec<String> =
            view.missing.iter().map(|rule| format!("{}: {}", rule.id, rule.needs)).collect();
        let missing = missing.join("; ");
        if missing != told_missing {
            prompt.say(&format!("waiting for {missing}")).await?;
            told_missing = missing;
        }
    }
}
