//! The records of SSH channels as lines.

use crate::audit::record::{
    ChannelEnded, ChannelKind, ChannelOpened, ChannelRefused, Data, Direction, Env, File, FilePhase, Listen,
    Program, ProgramKind, StreamEnd,
};
use crate::domain::text::on_one_line;

/// Text that a peer sent, on one line; bytes that are not text by their number.
pub(super) fn shown(data: &Data) -> String {
    match data {
        Data::Text { txt } => on_one_line(txt),
        Data::Bytes { .. } => format!("(not text, {} bytes)", data.bytes().len()),
    }
}

pub(super) fn channel_opened(opened: &ChannelOpened) -> String {
    let kind = match opened.channel {
        ChannelKind::Session => "session",
        ChannelKind::DirectTcpip => "forward",
        ChannelKind::ForwardedTcpip => "forward back",
        ChannelKind::DirectStreamlocal => "socket forward",
        ChannelKind::ForwardedStreamlocal => "socket forward back",
        ChannelKind::Agent => "agent forward",
    };
    let mut line = format!("{kind} opened");
    for (word, text) in [("to", &opened.destination), ("from", &opened.originator)] {
        if let Some(text) = text {
            line += &format!(" {word} {}", on_one_line(text));
        }
    }
    if let Some(credential) = &opened.credential {
        line += &format!(", logged in with {}", on_one_line(&credential.handle));
    }
    line
}

pub(super) fn channel_refused(refused: &ChannelRefused) -> String {
    let to = refused.destination.as_deref().map(|to| format!(" to {}", on_one_line(to)));
    format!(
        "REFUSED {}{} by {}: {}",
        on_one_line(&refused.what),
        to.unwrap_or_default(),
        on_one_line(&refused.rule),
        on_one_line(&refused.needs)
    )
}

pub(super) fn env(env: &Env) -> String {
    let passed = if env.passed { "" } else { " (not passed on)" };
    format!("environment {}={}{passed}", on_one_line(&env.name), shown(&env.value))
}

pub(super) fn program(program: &Program) -> String {
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
pub(super) const fn way(direction: Direction, err: bool) -> &'static str {
    match (direction, err) {
        (Direction::In, _) => "to the target",
        (Direction::Out, false) => "from the target",
        (Direction::Out, true) => "from the target's standard error",
    }
}

pub(super) fn stream_end(end: &StreamEnd) -> String {
    let way = way(end.direction, end.err);
    let sha256 = on_one_line(&end.sha256);
    format!("stream {way}: {} bytes, the first {} kept, sha256 {sha256}", end.bytes, end.head)
}

pub(super) fn file(file: &File) -> String {
    let mut line = format!("{} {} {}", on_one_line(&file.tool), on_one_line(&file.op), shown(&file.path));
    if let Some(to) = &file.to {
        line += &format!(" -> {}", shown(to));
    }
    for text in [&file.flags, &file.attributes].into_iter().flatten() {
        line += &format!(" {}", on_one_line(text));
    }
    match (&file.outcome, file.phase) {
        (Some(outcome), _) => line += &format!(": {}", on_one_line(outcome)),
        (None, FilePhase::Asked) => line += " …",
        (None, FilePhase::Answered) => {}
    }
    if let Some(message) = &file.message {
        line += &format!(" ({})", on_one_line(message));
    }
    for (word, bytes) in [("read", file.read), ("wrote", file.written)] {
        if let Some(bytes) = bytes {
            line += &format!(", {word} {bytes} bytes");
        }
    }
    if let Some(sha256) = &file.sha256 {
        line += &format!(", sha256 {}", on_one_line(sha256));
    }
    line
}

pub(super) fn listen(listen: &Listen) -> String {
    let address = on_one_line(&listen.address);
    let place = if listen.streamlocal { address } else { format!("{address}:{}", listen.port) };
    let what = match (listen.cancelled, listen.granted) {
        (true, _) => "given up",
        (false, true) => "granted",
        (false, false) => "not granted",
    };
    format!("listening at the target on {place} {what}")
}

pub(super) fn channel_ended(ended: &ChannelEnded) -> String {
    let mut line = "channel ended".to_owned();
    if let Some(status) = ended.exit_status {
        line += &format!(": exit status {status}");
    }
    if let Some(signal) = &ended.exit_signal {
        line += &format!(": killed by SIG{}", on_one_line(signal));
    }
    if let Some(why) = &ended.why {
        line += &format!(": {}", on_one_line(why));
    }
    let seconds = std::time::Duration::from_micros(ended.duration_us);
    line + &format!(
        " ({} bytes in, {} bytes out, {}.{:03} s)",
        ended.bytes_in,
        ended.bytes_out,
        seconds.as_secs(),
        seconds.subsec_millis()
    )
}
