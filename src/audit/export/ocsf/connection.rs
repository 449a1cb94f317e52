//! Records of connections as events: statements are Datastore Activity, what SSH carries SSH Activity, forwards
//! Tunnel Activity, operations on files File Hosting Activity.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::class::{DATASTORE, ENTITY_MANAGEMENT, FILE_HOSTING, SSH, TUNNEL};
use super::event::{Mapped, Severity, actor, endpoint, place, sha256, user};
use crate::audit::record::{
    Body, ChannelKind, ChannelOpened, Context, CopyEnd, Credential, Data, Direction, Ended, File, Opened,
    Sql, StatementEnd, StatementOutcome, StreamSum,
};

/// What is known of a recording that goes on.
#[derive(Debug, Default)]
pub(super) struct Recording {
    is_ssh: bool,
    database: Option<String>,
    /// Channels that are forwards.
    tunnels: BTreeSet<u32>,
}

/// A connection's record in its context.
pub(super) struct Of<'a> {
    pub(super) context: &'a Context,
    pub(super) node: &'a str,
}

impl Recording {
    pub(super) fn opened(&mut self, of: &Of<'_>, opened: &Opened) -> Mapped {
        self.is_ssh = opened.client_ssh.is_some();
        self.database.clone_from(&opened.database);
        let mapped = match &opened.client_ssh {
            Some(client) => {
                let (id, name) = match client.auth.as_str() {
                    "publickey" => (6, "Public Key"),
                    "certificate" => (1, "Certificate Based"),
                    "keyboard-interactive" => (4, "Keyboard Interactive"),
                    "password" => (5, "Password"),
                    other => (99, other),
                };
                let connection =
                    json!({ "direction_id": 1, "direction": "Inbound", "uid": of.context.connection });
                of.ssh(Mapped::new(&SSH, 1))
                    .with("auth_type_id", id)
                    .with("auth_type", name)
                    .with("connection_info", connection)
                    .with("app_name", client.software.as_str())
                    .with("protocol_ver", "2.0")
            }
            None => self.datastore(of, Mapped::new(&DATASTORE, 3)),
        };
        mapped.status(Some("done"))
    }

    pub(super) fn ended(&mut self, of: &Of<'_>, ended: &Ended) -> Mapped {
        let mapped = if self.is_ssh {
            let totals = ended.totals.unwrap_or_default();
            let traffic = traffic(totals.bytes_from_client, totals.bytes_from_target);
            of.ssh(Mapped::new(&SSH, 2)).with("traffic", traffic)
        } else {
            self.datastore(of, Mapped::other(&DATASTORE, "Disconnect"))
        };
        let severity = if ended.reason.ends_the_right() { Severity::Low } else { Severity::Informational };
        mapped
            .grave(severity)
            .status(Some("done"))
            .with("status_code", ended.reason.code())
            .with("status_detail", ended.reason.to_string())
    }

    pub(super) fn body(&mut self, of: &Of<'_>, body: &Body) -> Mapped {
        // Where the recording's beginning is not here, its records tell.
        self.is_ssh |=
            matches!(body, Body::ChannelOpened(_) | Body::Input(_) | Body::Output(_) | Body::File(_));
        let carried = || of.ssh(Mapped::new(&SSH, 6));
        let other = |name| of.ssh(Mapped::other(&SSH, name));
        match body {
            Body::Statement(begun) => self.query(of, begun.n, Some(&begun.sql)),
            Body::SqlPart(part) => self.query(of, part.n, Some(&part.sql)),
            Body::ParameterPart(part) => self.query(of, part.n, None),
            Body::StatementEnd(end) => self.statement_end(of, end),
            Body::CopyEnd(copy) => self.copy_end(of, copy),
            Body::Cancel(cancel) => self.either(of, "Cancel").with("status_detail", cancel.why.as_str()),
            Body::Notice(notice) => self.either(of, "Notice").with("status_detail", notice.text.as_str()),
            Body::Credential(credential) => of.credential(credential),
            Body::ChannelOpened(opened) => self.channel_opened(of, opened),
            Body::ChannelRefused(refused) => of
                .ssh(Mapped::new(&SSH, 5))
                .status(Some("refused"))
                .with("status_code", refused.rule.as_str())
                .with("status_detail", refused.needs.as_str()),
            Body::Pty(_) => other("Terminal"),
            Body::Env(_) => other("Environment"),
            Body::Program(_) => other("Program"),
            Body::Resize(_) => other("Resize"),
            Body::Signal(_) => other("Signal"),
            Body::Eof(_) => other("End Of Data"),
            Body::Input(input) => carried().with("traffic", in_or_out(Direction::In, length(&input.data))),
            Body::Output(output) => {
                carried().with("traffic", in_or_out(Direction::Out, length(&output.data)))
            }
            Body::StreamEnd(sum) | Body::StreamSoFar(sum) => stream(carried(), sum),
            Body::File(file) => of.file(file),
            Body::Listen(listen) => of
                .ssh(Mapped::new(&SSH, 7))
                .status(Some(if listen.granted || listen.cancelled { "done" } else { "refused" })),
            Body::ChannelEnded(ended) => {
                let mapped = if self.tunnels.remove(&ended.ch) {
                    of.tunnel(Mapped::new(&TUNNEL, 2), None, None)
                } else {
                    other("Channel Closed")
                };
                mapped
                    .with("traffic", traffic(ended.bytes_in, ended.bytes_out))
                    .with("duration", ended.duration_us / 1000)
                    .maybe("status_code", ended.exit_status.map(|status| status.to_string()))
                    .maybe("status_detail", ended.why.as_deref())
            }
        }
    }

    fn database(&self, of: &Of<'_>) -> Value {
        let target = &of.context.target;
        let name = self.database.as_deref().unwrap_or_else(|| target.as_str());
        json!({ "name": name, "uid": target, "type_id": 1, "type": "Relational" })
    }

    fn datastore(&self, of: &Of<'_>, mapped: Mapped) -> Mapped {
        of.among(mapped).with("database", self.database(of)).with("type_id", 1).with("type", "Database")
    }

    /// What both protocols have.
    fn either(&self, of: &Of<'_>, activity: &'static str) -> Mapped {
        if self.is_ssh {
            of.ssh(Mapped::other(&SSH, activity))
        } else {
            self.datastore(of, Mapped::other(&DATASTORE, activity))
        }
    }

    fn query(&self, of: &Of<'_>, n: u64, sql: Option<&Sql>) -> Mapped {
        let info = sql.map(|sql| {
            let text = match sql {
                Sql::Text { sql } => sql.clone(),
                Sql::Bytes { .. } => String::from_utf8_lossy(&sql.bytes()).into_owned(),
            };
            json!({ "uid": format!("{}:{n}", of.context.connection), "query_string": text })
        });
        self.datastore(of, Mapped::new(&DATASTORE, 4)).maybe("query_info", info)
    }

    fn statement_end(&self, of: &Of<'_>, end: &StatementEnd) -> Mapped {
        let outcome = match end.outcome {
            StatementOutcome::Done => "done",
            StatementOutcome::Failed => "failed",
            StatementOutcome::Skipped => "skipped",
            StatementOutcome::Cancelled => "cancelled",
            StatementOutcome::Unknown => "unknown",
        };
        self.query(of, end.n, None)
            .status(Some(outcome))
            .maybe("status_code", end.sqlstate.as_deref())
            .maybe("status_detail", end.message.as_deref())
            .maybe("duration", end.duration_us.map(|micros| micros / 1000))
    }

    fn copy_end(&self, of: &Of<'_>, copy: &CopyEnd) -> Mapped {
        let activity = match copy.direction {
            Direction::In => 5,
            Direction::Out => 1,
        };
        self.datastore(of, Mapped::new(&DATASTORE, activity))
    }

    fn channel_opened(&mut self, of: &Of<'_>, opened: &ChannelOpened) -> Mapped {
        match opened.channel {
            ChannelKind::Session | ChannelKind::Agent => of.ssh(Mapped::other(&SSH, "Channel Opened")),
            ChannelKind::DirectTcpip
            | ChannelKind::ForwardedTcpip
            | ChannelKind::DirectStreamlocal
            | ChannelKind::ForwardedStreamlocal => {
                self.tunnels.insert(opened.ch);
                let (to, from) = (opened.destination.as_deref(), opened.originator.as_deref());
                of.tunnel(Mapped::new(&TUNNEL, 1), to, from)
            }
        }
    }
}

impl Of<'_> {
    fn actor(&self) -> Value {
        actor(Some(&self.context.principal), Some(self.context.session.as_str()), self.node)
    }

    fn target(&self) -> Value {
        json!({ "name": self.context.target })
    }

    fn among(&self, mapped: Mapped) -> Mapped {
        mapped
            .with("actor", self.actor())
            .with("src_endpoint", endpoint(self.context.client))
            .with("dst_endpoint", self.target())
    }

    fn ssh(&self, mapped: Mapped) -> Mapped {
        self.among(mapped)
    }

    fn tunnel(&self, mapped: Mapped, to: Option<&str>, from: Option<&str>) -> Mapped {
        let named =
            |text: Option<&str>, otherwise| text.filter(|text| !text.is_empty()).map_or(otherwise, place);
        let session = json!({ "uid": self.context.session, "issuer": "Sallyport" });
        mapped
            .with("actor", self.actor())
            .with("user", user(&self.context.principal))
            .with("session", session)
            .with("src_endpoint", named(from, endpoint(self.context.client)))
            .with("dst_endpoint", named(to, self.target()))
            .with("tunnel_type_id", 99)
            .with("tunnel_type", "SSH forward")
            .with("protocol_name", "ssh")
    }

    fn credential(&self, credential: &Credential) -> Mapped {
        let (mapped, outcome) = match credential.step.as_str() {
            "issued" => (Mapped::new(&ENTITY_MANAGEMENT, 1), "done"),
            "destroyed" => (Mapped::new(&ENTITY_MANAGEMENT, 4), "done"),
            "destruction_failed" => (Mapped::new(&ENTITY_MANAGEMENT, 4).grave(Severity::High), "failed"),
            _ => (Mapped::new(&ENTITY_MANAGEMENT, 3), "done"),
        };
        let mark = &credential.mark;
        let uid = mark.fingerprint.as_deref().unwrap_or(&mark.handle);
        mapped
            .status(Some(outcome))
            .with("actor", self.actor())
            .with("src_endpoint", endpoint(self.context.client))
            .with("entity", json!({ "name": mark.handle, "uid": uid, "type_id": 99, "type": "Credential" }))
            .maybe("status_detail", credential.detail.as_deref())
    }

    fn file(&self, file: &File) -> Mapped {
        let other = |name| Mapped::other(&FILE_HOSTING, name);
        let moved = |bytes: Option<u64>| bytes.is_some_and(|bytes| bytes > 0);
        let mapped = match file.op.as_str() {
            "open" | "scp-file" if moved(file.written) => Mapped::new(&FILE_HOSTING, 1),
            "open" | "scp-file" if moved(file.read) => Mapped::new(&FILE_HOSTING, 2),
            "open" | "scp-file" => Mapped::new(&FILE_HOSTING, 14),
            "remove" | "rmdir" => Mapped::new(&FILE_HOSTING, 4),
            "rename" | "posix-rename" => Mapped::new(&FILE_HOSTING, 5),
            "setstat" | "lsetstat" | "fsetstat" => Mapped::new(&FILE_HOSTING, 3),
            "copy-data" => Mapped::new(&FILE_HOSTING, 6),
            "mkdir" | "scp-directory" => other("Create Folder"),
            "list" => other("List"),
            "symlink" | "hardlink" => other("Link"),
            _ => other("Operation"),
        };
        let (type_id, kind) = match file.op.as_str() {
            "list" | "mkdir" | "rmdir" | "scp-directory" => (2, "Folder"),
            "symlink" => (7, "Symbolic Link"),
            _ => (0, "Unknown"),
        };
        let named = |path: &Data| {
            let path = shown(path);
            let name = path.rsplit('/').find(|name| !name.is_empty()).unwrap_or(&path);
            json!({ "name": name, "path": path, "type_id": type_id, "type": kind })
        };
        let mut object = named(&file.path);
        if let (Some(object), Some(hash)) = (object.as_object_mut(), &file.sha256) {
            object.insert("hashes".to_owned(), json!([sha256(hash)]));
        }
        self.among(mapped)
            .status(file.outcome.as_deref())
            .with("file", object)
            .maybe("file_result", file.to.as_ref().map(named))
            .maybe("status_detail", file.message.as_deref())
    }
}

/// A path as text, bytes that are none included.
fn shown(path: &Data) -> String {
    match path {
        Data::Text { txt } => txt.clone(),
        Data::Bytes { .. } => path.bytes().escape_ascii().to_string(),
    }
}

fn length(data: &Data) -> u64 {
    let length = match data {
        Data::Text { txt } => txt.len(),
        Data::Bytes { .. } => data.bytes().len(),
    };
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Bytes from the client come in, as the class counts.
fn traffic(bytes_in: u64, bytes_out: u64) -> Value {
    json!({ "bytes_in": bytes_in, "bytes_out": bytes_out, "bytes": bytes_in.saturating_add(bytes_out) })
}

fn in_or_out(direction: Direction, bytes: u64) -> Value {
    match direction {
        Direction::In => traffic(bytes, 0),
        Direction::Out => traffic(0, bytes),
    }
}

fn stream(mapped: Mapped, sum: &StreamSum) -> Mapped {
    mapped.with("traffic", in_or_out(sum.direction, sum.bytes))
}
