//! The records of an SSH connection that are a line each.

use std::time::Duration;

use crate::audit::record::{
    Body, ChannelEnded, ChannelKind, ChannelOpened, ChannelRefused, Data, Direction, Env, File, FilePhase,
    Listen, Program, ProgramKind, Pty, StreamSum,
};
use crate::domain::text::on_one_line;

/// A record that is a line by itself.
pub(super) fn event(body: &Body) -> Option<(u32, String)> {
    let line = match body {
        Body::ChannelOpened(opened) => (opened.ch, channel_opened(opened)),
        Body::ChannelRefused(refused) => (refused.ch, channel_refused(refused)),
        Body::Pty(pty) => (pty.ch, terminal(pty)),
        Body::Env(variable) => (variable.ch, env(variable)),
        Body::Program(run) => (run.ch, program(run)),
        Body::Resize(size) => (size.ch, format!("resized to {}x{}", size.cols, size.rows)),
        Body::Signal(signal) => (signal.ch, format!("signal {}", on_one_line(&signal.name))),
        Body::Eof(eof) => (eof.ch, format!("nothing more {}", way(eof.from, false))),
        Body::StreamEnd(sum) => (sum.ch, stream("stream", sum)),
        Body::StreamSoFar(sum) => (sum.ch, stream("so far, stream", sum)),
        Body::File(operation) => (operation.ch, file(operation)),
        Body::Listen(asked) => (asked.ch, listen(asked)),
        Body::ChannelEnded(ended) => (ended.ch, channel_ended(ended)),
        Body::Input(_)
        | Body::Output(_)
        | Body::SqlPart(_)
        | Body::ParameterPart(_)
        | Body::Statement(_)
        | Body::StatementEnd(_)
        | Body::CopyEnd(_)
        | Body::Cancel(_)
        | Body::Notice(_)
        | Body::Credential(_) => return None,
    };
    Some(line)
}

fn terminal(pty: &Pty) -> String {
    format!("terminal {}, {}x{}", on_one_line(&pty.term), pty.cols, pty.rows)
}

/// Text that a peer sent, on one line; bytes that are not text by their number.
fn shown(data: &Data) -> String {
    match data {
        Data::Text { txt } => on_one_line(txt),
        Data::Bytes { .. } => format!("(not text, {} bytes)", data.bytes().len()),
    }
}

/// `text` behind `before`; nothing when there is none.
fn part(before: &str, text: Option<&str>) -> String {
    text.map(|text| format!("{before}{}", on_one_line(text))).unwrap_or_default()
}

fn channel_opened(opened: &ChannelOpened) -> String {
    let kind = match opened.channel {
        ChannelKind::Session => "session",
        ChannelKind::DirectTcpip => "forward",
        ChannelKind::ForwardedTcpip => "forward back",
        ChannelKind::DirectStreamlocal => "socket forward",
        ChannelKind::ForwardedStreamlocal => "socket forward back",
        ChannelKind::Agent => "agent forward",
    };
    let to = part(" to ", opened.destination.as_deref());
    let from = part(" from ", opened.originator.as_deref());
    let login = opened.credential.as_ref().map(|credential| credential.handle.as_str());
    format!("{kind} opened{to}{from}{}", part(", logged in with ", login))
}

fn channel_refused(refused: &ChannelRefused) -> String {
    let to = part(" to ", refused.destination.as_deref());
    let (what, rule) = (on_one_line(&refused.what), on_one_line(&refused.rule));
    format!("REFUSED {what}{to} by {rule}: {}", on_one_line(&refused.needs))
}

fn env(env: &Env) -> String {
    let passed = if env.passed { "" } else { " (not passed on)" };
    format!("environment {}={}{passed}", on_one_line(&env.name), shown(&env.value))
}

fn program(program: &Program) -> String {
    let how = match program.how {
        ProgramKind::Shell => "shell",
        ProgramKind::Exec => "command",
        ProgramKind::Subsystem => "subsystem",
    };
    let command = program.command.as_ref().map(|command| format!(" {}", shown(command)));
    let hint = program.hint.as_deref().map(|hint| format!(" ({})", on_one_line(hint)));
    format!("{how}{}{}", command.unwrap_or_default(), hint.unwrap_or_default())
}

/// Where bytes went, in words.
const fn way(direction: Direction, err: bool) -> &'static str {
    match (direction, err) {
        (Direction::In, _) => "to the target",
        (Direction::Out, false) => "from the target",
        (Direction::Out, true) => "from the target's standard error",
    }
}

fn stream(which: &str, sum: &StreamSum) -> String {
    let way = way(sum.direction, sum.err);
    let sha256 = on_one_line(&sum.sha256);
    format!("{which} {way}: {} bytes, the first {} kept, sha256 {sha256}", sum.bytes, sum.head)
}

fn file(file: &File) -> String {
    let what = format!("{} {} {}", on_one_line(&file.tool), on_one_line(&file.op), shown(&file.path));
    let to = file.to.as_ref().map(|to| format!(" -> {}", shown(to))).unwrap_or_default();
    let how = part(" ", file.flags.as_deref()) + &part(" ", file.attributes.as_deref());
    let outcome = match (file.outcome.as_deref(), file.phase) {
        (None, FilePhase::Asked) => " …".to_owned(),
        (outcome, _) => part(": ", outcome),
    };
    let bytes = |word, bytes: Option<u64>| bytes.map(|bytes| format!(", {word} {bytes} bytes"));
    let moved = [bytes("read", file.read), bytes("wrote", file.written)];
    let moved: String = moved.into_iter().flatten().collect();
    let (message, sha256) = (part(", ", file.message.as_deref()), part(", sha256 ", file.sha256.as_deref()));
    [what, to, how, outcome, message, moved, sha256].concat()
}

fn listen(listen: &Listen) -> String {
    let address = on_one_line(&listen.address);
    let place = if listen.streamlocal { address } else { format!("{address}:{}", listen.port) };
    let what = match (listen.cancelled, listen.granted) {
        (true, _) => "given up",
        (false, true) => "granted",
        (false, false) => "not granted",
    };
    format!("listening at the target on {place} {what}")
}

fn channel_ended(ended: &ChannelEnded) -> String {
    let status = ended.exit_status.map(|status| format!(": exit status {status}")).unwrap_or_default();
    let signal = part(": killed by SIG", ended.exit_signal.as_deref());
    let why = part(": ", ended.why.as_deref());
    let lasted = Duration::from_micros(ended.duration_us);
    format!(
        "channel ended{status}{signal}{why} ({} bytes in, {} bytes out, {}.{:03} s)",
        ended.bytes_in,
        ended.bytes_out,
        lasted.as_secs(),
        lasted.subsec_millis()
    )
}
