//! Cuts what a peer could make arbitrarily long and what no record is for; what is left out is known
//! by its length and hash.

use super::record::{
    Body, ChannelOpened, ChannelRefused, CopyEnd, Credential, Data, File, Notice, StatementEnd,
};
use crate::crypto::{hex, sha256};

/// Longest name (of a prepared statement, a database, an algorithm), in bytes; a database server's own
/// are 63.
pub(super) const NAME: usize = 1 << 10;
/// Longest free text (an error message, a path, a variable's value), in bytes.
pub(super) const TEXT: usize = 16 << 10;
/// Longest command line, in bytes: no Linux shell is given a longer one (`MAX_ARG_STRLEN`).
const COMMAND: usize = 128 << 10;

pub(super) fn clip(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mark = mark(text.as_bytes());
        text.truncate(text.floor_char_boundary(limit));
        text.push_str(&mark);
    }
}

pub(super) fn clip_some(text: &mut Option<String>, limit: usize) {
    if let Some(text) = text {
        clip(text, limit);
    }
}

fn mark(whole: &[u8]) -> String {
    format!("… ({} bytes, sha256 {})", whole.len(), hex(&sha256(&[whole])))
}

/// Of bytes that are not text, the head becomes text with escapes.
fn clip_data(data: &mut Data, limit: usize) {
    match data {
        Data::Text { txt } => clip(txt, limit),
        Data::Bytes { .. } => {
            let whole = data.bytes();
            if let Some(head) = whole.get(..limit).filter(|head| head.len() < whole.len()) {
                // An escape takes four characters for one.
                let mut txt = head.escape_ascii().to_string();
                txt.truncate(limit);
                *data = Data::Text { txt: txt + &mark(&whole) };
            }
        }
    }
}

/// The body with everything cut that [`super::encode`] does not split instead.
pub(super) fn clipped(mut body: Body) -> Body {
    match &mut body {
        Body::SqlPart(_)
        | Body::ParameterPart(_)
        | Body::Input(_)
        | Body::Output(_)
        | Body::Resize(_)
        | Body::Eof(_) => {}
        Body::Statement(statement) => {
            clip_some(&mut statement.name, NAME);
            clip_some(&mut statement.portal, NAME);
            clip_some(&mut statement.fingerprint, NAME);
        }
        Body::StatementEnd(end) => statement_end(end),
        Body::CopyEnd(end) => copy_end(end),
        Body::Cancel(cancel) => clip(&mut cancel.why, TEXT),
        Body::Notice(notice) => self::notice(notice),
        Body::Credential(credential) => self::credential(credential),
        Body::ChannelOpened(opened) => channel_opened(opened),
        Body::ChannelRefused(refused) => channel_refused(refused),
        Body::Pty(pty) => clip(&mut pty.term, NAME),
        Body::Env(env) => {
            clip(&mut env.name, NAME);
            clip_data(&mut env.value, TEXT);
        }
        Body::Program(program) => {
            if let Some(command) = &mut program.command {
                clip_data(command, COMMAND);
            }
            clip_some(&mut program.hint, NAME);
        }
        Body::Signal(signal) => clip(&mut signal.name, NAME),
        Body::StreamEnd(sum) | Body::StreamSoFar(sum) => clip(&mut sum.sha256, NAME),
        Body::File(file) => self::file(file),
        Body::Listen(listen) => clip(&mut listen.address, TEXT),
        Body::ChannelEnded(ended) => {
            clip_some(&mut ended.exit_signal, NAME);
            clip_some(&mut ended.why, TEXT);
        }
    }
    body
}

fn statement_end(end: &mut StatementEnd) {
    clip_some(&mut end.tag, NAME);
    clip_some(&mut end.sqlstate, NAME);
    clip_some(&mut end.message, TEXT);
}

/// Whether [`clipped`] would leave it as it is.
pub(super) fn is_clipped(end: &StatementEnd) -> bool {
    let within = |text: &Option<String>, limit| text.as_ref().is_none_or(|text| text.len() <= limit);
    within(&end.tag, NAME) && within(&end.sqlstate, NAME) && within(&end.message, TEXT)
}

fn copy_end(end: &mut CopyEnd) {
    clip_some(&mut end.table, NAME);
    end.columns.iter_mut().for_each(|column| clip(column, NAME));
    clip(&mut end.sha256, NAME);
}

fn notice(notice: &mut Notice) {
    clip(&mut notice.text, TEXT);
    notice.sets.iter_mut().for_each(|name| clip(name, NAME));
}

fn credential(credential: &mut Credential) {
    clip(&mut credential.step, NAME);
    clip(&mut credential.mark.handle, NAME);
    clip_some(&mut credential.detail, TEXT);
}

fn channel_opened(opened: &mut ChannelOpened) {
    clip_some(&mut opened.destination, TEXT);
    clip_some(&mut opened.originator, TEXT);
    if let Some(mark) = &mut opened.credential {
        clip(&mut mark.handle, NAME);
    }
}

fn channel_refused(refused: &mut ChannelRefused) {
    clip(&mut refused.what, NAME);
    clip_some(&mut refused.destination, TEXT);
    clip(&mut refused.rule, NAME);
    clip(&mut refused.needs, TEXT);
}

fn file(file: &mut File) {
    for name in [&mut file.tool, &mut file.op] {
        clip(name, NAME);
    }
    clip_data(&mut file.path, TEXT);
    if let Some(to) = &mut file.to {
        clip_data(to, TEXT);
    }
    for text in [&mut file.flags, &mut file.attributes, &mut file.message] {
        clip_some(text, TEXT);
    }
    clip_some(&mut file.sha256, NAME);
    clip_some(&mut file.outcome, NAME);
}
