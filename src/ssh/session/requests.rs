//! What a client asks of a session channel (RFC 4254, section 6): each request through the policy, on
//! record, then to the target.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::goodbye;
use super::super::message::{Pty, Request};
use super::super::modes;
use super::{Answer, Inward, Stop, VARIABLES, held};
use crate::access::usage::Use;
use crate::audit::record::{Body, Notice};
use crate::audit::ssh::{self as record, Data, ProgramKind};

impl Inward<'_> {
    /// To be called before the target is asked.
    fn will_ask(&self) -> oneshot::Receiver<Answer> {
        let (asked, answered) = oneshot::channel();
        *held(&self.shared.asked) = Some(asked);
        answered
    }

    async fn target_says(&mut self, answered: oneshot::Receiver<Answer>) -> bool {
        let Ok(Answer { granted, told }) = answered.await else { return false };
        self.told = Some(told);
        granted
    }

    /// What to answer, if the client wants to know.
    pub(super) async fn request(&mut self, request: Request) -> Result<bool, Stop> {
        let ch = self.shared.ch;
        if request.is_too_long() {
            self.refused("too_long", "a request longer than what is kept on record is not passed on").await;
            return Ok(false);
        }
        match request {
            Request::Pty(pty) => self.pty(&pty).await,
            Request::Env { name, value } => self.env(name, value).await,
            Request::Shell => self.program(ProgramKind::Shell, &Bytes::new(), &Use::Shell).await,
            Request::Exec(command) => {
                let usage = Use::Exec { command: &command };
                self.program(ProgramKind::Exec, &command, &usage).await
            }
            Request::Subsystem(name) => {
                let command = Bytes::copy_from_slice(name.as_bytes());
                self.program(ProgramKind::Subsystem, &command, &Use::Subsystem { name: &name }).await
            }
            Request::Resize(window) => {
                let (cols, rows) = (window.cols, window.rows);
                self.note(Body::Resize(record::Resize { ch, cols, rows })).await?;
                self.to.resize(window).await?;
                Ok(true)
            }
            Request::Signal(name) => {
                self.shared
                    .carrier
                    .record(&[Body::Signal(record::Signal { ch, name: name.clone() })])
                    .await?;
                self.to.signal(&name).await?;
                Ok(true)
            }
            Request::Agent => self.agent().await,
            Request::X11 => {
                self.refused("x11", "X11 forwarding is not offered").await;
                Ok(false)
            }
        }
    }

    pub(super) async fn refused(&self, what: &str, why: &str) {
        self.shared.carrier.refused_as(self.shared.ch, what, None, why).await;
    }

    async fn pty(&mut self, pty: &Pty) -> Result<bool, Stop> {
        if self.started {
            self.refused("pty", "a terminal is asked for before the program").await;
            return Ok(false);
        }
        let modes = pty.modes.iter().map(|(code, value)| (modes::name(*code), *value)).collect();
        let body = record::Pty {
            ch: self.shared.ch,
            term: pty.term.clone(),
            cols: pty.window.cols,
            rows: pty.window.rows,
            modes,
        };
        self.shared.carrier.record(&[Body::Pty(body)]).await?;
        let answered = self.will_ask();
        self.to.pty(pty).await?;
        let granted = self.target_says(answered).await;
        if granted {
            self.shared.is_terminal.store(true, Ordering::Relaxed);
            let mut bodies = Vec::new();
            held(&self.shared.watch).terminal(pty.echoes(), &mut bodies);
            for body in bodies {
                self.note(body).await?;
            }
        }
        Ok(granted)
    }

    async fn env(&mut self, name: String, value: String) -> Result<bool, Stop> {
        let accepted = self.shared.carrier.settings.accepts_env(&name);
        let passed = accepted && !self.started && self.variables < VARIABLES;
        let data = Data::new(value.as_bytes());
        let body = record::Env { ch: self.shared.ch, name: name.clone(), value: data, passed };
        if passed {
            self.variables += 1;
            self.shared.carrier.record(&[Body::Env(body)]).await?;
            self.to.env(&name, &value).await?;
        } else {
            self.note(Body::Env(body)).await?;
        }
        Ok(passed)
    }

    async fn program(&mut self, how: ProgramKind, command: &Bytes, usage: &Use<'_>) -> Result<bool, Stop> {
        if std::mem::replace(&mut self.started, true) {
            self.refused("second_program", "a channel runs one program").await;
            return Ok(false);
        }
        let ch = self.shared.ch;
        if let Err(why) = self.shared.carrier.may(ch, usage.action().as_str(), usage).await {
            // A request that fails has no words, and OpenSSH drops what came before: it is granted,
            // and says why, as without a session.
            self.from.answer(true);
            let is_terminal = self.shared.is_terminal.load(Ordering::Relaxed);
            goodbye::tell(self.client, &why, is_terminal, goodbye::REFUSED_STATUS).await;
            return Err(Stop::Refused);
        }
        let hint = held(&self.shared.watch).program(how, command);
        let command_data = (how != ProgramKind::Shell).then(|| Data::new(command));
        let body = record::Program { ch, how, command: command_data, hint };
        self.shared.carrier.record(&[Body::Program(body)]).await?;
        let answered = self.will_ask();
        match how {
            ProgramKind::Shell => self.to.shell().await?,
            ProgramKind::Exec => self.to.exec(command).await?,
            ProgramKind::Subsystem => self.to.subsystem(&String::from_utf8_lossy(command)).await?,
        }
        Ok(self.target_says(answered).await)
    }

    async fn agent(&mut self) -> Result<bool, Stop> {
        if self.started || self.shared.agent.load(Ordering::Relaxed) {
            self.refused("agent", "the agent is forwarded once, and before the program").await;
            return Ok(false);
        }
        if self.shared.carrier.may(self.shared.ch, "agent", &Use::Agent).await.is_err() {
            return Ok(false);
        }
        // On record before there is a socket to it on the host.
        let text = format!("channel {}: the client's agent is forwarded", self.shared.ch);
        self.shared.carrier.record(&[Body::Notice(Notice::new(text))]).await?;
        let answered = self.will_ask();
        self.to.agent().await?;
        let granted = self.target_says(answered).await;
        self.shared.agent.store(granted, Ordering::Relaxed);
        Ok(granted)
    }
}
