//! Observed file operations as records.

use super::observe::file::{Answered, Asked, Attributes, Content, FileOp, OpenFlags, Outcome};
use crate::audit::record::Body;
use crate::audit::ssh::{Data, File, FilePhase};
use crate::crypto::hex;

/// What is about to be forwarded.
pub(super) fn asked(ch: u32, tool: &str, asked: &Asked) -> Body {
    let mut file = file(ch, tool, FilePhase::Asked, asked.n, &asked.op);
    file.path = Data::new(&asked.path);
    file.to = asked.to.as_deref().map(Data::new);
    file.attributes = attributes(&asked.attributes);
    Body::File(file)
}

/// What came of it.
pub(super) fn answered(ch: u32, tool: &str, answered: &Answered) -> Body {
    let mut file = file(ch, tool, FilePhase::Answered, answered.n, &answered.op);
    file.path = Data::new(&answered.path);
    file.to = answered.to.as_deref().map(Data::new);
    file.read = answered.read.map(|content| content.bytes);
    file.written = answered.written.map(|content| content.bytes);
    // A file is read or written; of one that was both, what was written matters.
    let content = match (answered.written, answered.read) {
        (Some(written), _) if written.bytes > 0 => Some(written),
        (_, read) => read,
    };
    file.sha256 = content.and_then(|content| content.sha256).map(|hash| hex(&hash));
    file.message = content.and_then(|content| note(&content));
    let outcome = match &answered.outcome {
        Outcome::Done => "done",
        Outcome::Failed { code, message } => {
            file.message = Some(format!("{code}: {}", String::from_utf8_lossy(message)));
            "failed"
        }
        Outcome::Unknown => "unknown",
    };
    file.outcome = Some(outcome.to_owned());
    Body::File(file)
}

fn file(ch: u32, tool: &str, phase: FilePhase, n: u64, op: &FileOp) -> File {
    let flags = match op {
        FileOp::Open(flags) => Some(open_flags(*flags)),
        FileOp::Extended(name) => Some(String::from_utf8_lossy(name).into_owned()),
        _ => None,
    };
    File {
        ch,
        n,
        phase,
        tool: tool.to_owned(),
        op: op.name().to_owned(),
        path: Data::none(),
        to: None,
        flags,
        attributes: None,
        read: None,
        written: None,
        sha256: None,
        outcome: None,
        message: None,
    }
}

/// What the hash does not cover, where it does not cover all.
fn note(content: &Content) -> Option<String> {
    match content {
        Content { bytes: 0, .. } => None,
        Content { sha256: None, .. } => Some("not one byte after another: no hash".to_owned()),
        Content { from: 0, .. } => None,
        Content { from, .. } => Some(format!("from byte {from} on")),
    }
}

fn open_flags(flags: OpenFlags) -> String {
    let names = [
        (flags.reads(), "read"),
        (flags.writes(), "write"),
        (flags.appends(), "append"),
        (flags.creates(), "create"),
        (flags.truncates(), "truncate"),
        (flags.excludes(), "exclusive"),
    ];
    let set: Vec<&str> = names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
    set.join(" ")
}

fn attributes(attributes: &Attributes) -> Option<String> {
    let Attributes { size, owner, mode, times } = attributes;
    let mut parts = Vec::new();
    parts.extend(size.map(|size| format!("size {size}")));
    parts.extend(owner.map(|owner| format!("owner {}:{}", owner.user, owner.group)));
    parts.extend(mode.map(|mode| format!("mode {:04o}", mode & 0o7777)));
    parts.extend(times.map(|times| format!("times {} {}", times.accessed, times.modified)));
    (!parts.is_empty()).then(|| parts.join(", "))
}
