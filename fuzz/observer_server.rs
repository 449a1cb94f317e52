//! The server's side of the query protocols as a model, and what clients may send it.

use std::collections::{BTreeSet, HashMap, HashSet};

use sallyport::crypto::{Hash, sha256};
use sallyport::postgres::observe::Direction;

/// What the server does with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Select,
    CopyIn,
    CopyOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Parse(&'static str, Text),
    Bind(&'static str, &'static str),
    Describe(u8, &'static str),
    Execute(&'static str),
    Close(u8, &'static str),
    Sync,
    Query(Text),
    Function,
    Begin,
    Commit,
    /// SQL's own `DEALLOCATE` and `PREPARE` of a name.
    Deallocate(&'static str),
    Prepare(&'static str),
    /// So many bytes of copied data.
    Data(u8),
    CopyDone,
    CopyFail,
}

/// Every kind of operation, the commoner more than once.
pub(crate) const OPS: [Op; 47] = {
    use Op::*;
    use Text::*;
    [
        Parse("", Select),
        Parse("a", Select),
        Parse("a", Select),
        Parse("b", Select),
        Parse("", CopyIn),
        Parse("a", CopyIn),
        Parse("b", CopyOut),
        Bind("", ""),
        Bind("", "a"),
        Bind("", "a"),
        Bind("", "b"),
        Bind("p", ""),
        Bind("p", "a"),
        Bind("p", "b"),
        Describe(b'S', ""),
        Describe(b'S', "a"),
        Describe(b'P', ""),
        Describe(b'P', "p"),
        Execute(""),
        Execute(""),
        Execute(""),
        Execute(""),
        Execute("p"),
        Execute("p"),
        Execute("p"),
        Close(b'S', ""),
        Close(b'S', "a"),
        Close(b'P', ""),
        Close(b'P', "p"),
        Sync,
        Sync,
        Sync,
        Sync,
        Query(Select),
        Query(CopyIn),
        Query(CopyOut),
        Function,
        Begin,
        Commit,
        Data(1),
        Data(200),
        Data(200),
        CopyDone,
        CopyDone,
        CopyFail,
        Deallocate("a"),
        Prepare("a"),
    ]
};

impl Op {
    pub(crate) fn is_copying(self) -> bool {
        matches!(self, Self::Data(_) | Self::CopyDone | Self::CopyFail)
    }

    /// Whether SQL moves names that the protocol's messages use too.
    pub(crate) fn moves_names(self) -> bool {
        matches!(self, Self::Deallocate(_) | Self::Prepare(_))
    }
}

pub(crate) fn sql(op: Op, id: usize) -> String {
    match op {
        Op::Begin => "BEGIN".to_owned(),
        Op::Commit => "COMMIT".to_owned(),
        Op::Deallocate(name) => format!("DEALLOCATE {name} -- {id}"),
        Op::Prepare(name) => format!("PREPARE {name} AS SELECT {id}"),
        Op::Parse(_, Text::CopyIn) | Op::Query(Text::CopyIn) => format!("COPY t{id} FROM STDIN"),
        Op::Parse(_, Text::CopyOut) | Op::Query(Text::CopyOut) => format!("COPY t{id} TO STDOUT"),
        _ => format!("SELECT {id}"),
    }
}

fn text_of(sql: &str) -> Text {
    match sql {
        sql if sql.ends_with("FROM STDIN") => Text::CopyIn,
        sql if sql.ends_with("TO STDOUT") => Text::CopyOut,
        _ => Text::Select,
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + body.len()).unwrap_or_default();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn named(tag: u8, subject: u8, name: &str) -> Vec<u8> {
    message(tag, &[&[subject], name.as_bytes(), &[0]].concat())
}

fn error(sqlstate: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{sqlstate}\0Mno\0\0").as_bytes())
}

fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

/// A `CopyInResponse` or `CopyOutResponse` of one column.
fn copies(tag: u8) -> Vec<u8> {
    message(tag, &[0, 0, 1, 0, 0])
}

/// What the client puts in a `CopyData`.
fn data(id: usize, length: u8) -> Vec<u8> {
    format!("{id} ").into_bytes().into_iter().cycle().take(usize::from(length)).collect()
}

pub(crate) fn bytes(op: Op, id: usize) -> Vec<u8> {
    let text = sql(op, id);
    match op {
        Op::Parse(name, _) => message(b'P', format!("{name}\0{text}\0\0\0").as_bytes()),
        Op::Bind(portal, statement) => {
            message(b'B', &[portal.as_bytes(), b"\0", statement.as_bytes(), &[0; 7]].concat())
        }
        Op::Describe(subject, name) => named(b'D', subject, name),
        Op::Execute(portal) => message(b'E', &[portal.as_bytes(), &[0; 5]].concat()),
        Op::Close(subject, name) => named(b'C', subject, name),
        Op::Sync => message(b'S', b""),
        Op::Function => message(b'F', &[0, 0, 4, 210, 0, 0, 0, 0, 0, 0]),
        Op::Data(length) => message(b'd', &data(id, length)),
        Op::CopyDone => message(b'c', b""),
        Op::CopyFail => message(b'f', b"no\0"),
        Op::Query(_) | Op::Begin | Op::Commit | Op::Deallocate(_) | Op::Prepare(_) => {
            message(b'Q', format!("{text}\0").as_bytes())
        }
    }
}

/// What reached the server, perhaps in place of something else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) op: Op,
    pub(crate) id: usize,
    pub(crate) fails: bool,
    pub(crate) refused: bool,
}

#[derive(Debug)]
struct Copying {
    id: usize,
    sql: String,
    is_simple: bool,
    data: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    statements: HashMap<&'static str, String>,
    portals: HashMap<&'static str, String>,
    pub(crate) in_transaction: bool,
    skips: bool,
    copying: Option<Copying>,
    /// What was run, by who asked for it, and whether it succeeded.
    pub(crate) ran: HashMap<usize, (String, bool)>,
    /// What was copied to the end.
    pub(crate) copied: HashMap<usize, (Direction, Hash)>,
    /// COPYs from the client that began, and those that failed.
    pub(crate) reading: HashSet<usize>,
    pub(crate) failed: HashSet<usize>,
    /// Whose stand-in it could not parse.
    pub(crate) unparsed: BTreeSet<usize>,
}

impl Server {
    pub(crate) fn answer(&mut self, sent: Sent) -> Vec<u8> {
        if let Some(copying) = self.copying.take() {
            return self.copy(copying, sent);
        }
        if sent.op.is_copying() || (self.skips && sent.op != Op::Sync) {
            return Vec::new();
        }
        match sent.op {
            Op::Sync => {
                self.skips = false;
                self.ready()
            }
            Op::Parse(..) | Op::Bind(..) | Op::Describe(..) | Op::Execute(_) | Op::Close(..) => {
                let answer = if sent.refused { self.parse_garbage(sent) } else { self.extended(sent) };
                self.skips = answer.is_none();
                answer.unwrap_or_else(|| error(if sent.refused { "42601" } else { "XX000" }))
            }
            _ => self.simple(sent),
        }
    }

    /// What is refused is replaced by a `Parse` that fails: under its own name, or one of the gateway's.
    fn parse_garbage(&mut self, sent: Sent) -> Option<Vec<u8>> {
        if matches!(sent.op, Op::Parse("", _)) {
            self.statements.remove("");
        }
        self.unparsed.insert(sent.id);
        None
    }

    /// `None` is an error.
    fn extended(&mut self, sent: Sent) -> Option<Vec<u8>> {
        match sent.op {
            Op::Parse(name, _) => {
                if sent.fails || (!name.is_empty() && self.statements.contains_key(name)) {
                    if name.is_empty() {
                        self.statements.remove("");
                    }
                    return None;
                }
                self.statements.insert(name, sql(sent.op, sent.id));
                Some(message(b'1', b""))
            }
            Op::Execute(portal) => {
                let sql = self.portals.get(portal)?.clone();
                self.run(sent, sql, false)
            }
            _ if sent.fails => None,
            Op::Bind(portal, statement) => {
                if !portal.is_empty() && self.portals.contains_key(portal) {
                    return None;
                }
                self.portals.insert(portal, self.statements.get(statement)?.clone());
                Some(message(b'2', b""))
            }
            Op::Describe(b'S', name) => {
                self.statements.get(name)?;
                Some([message(b't', b"\0\0"), message(b'T', b"\0\0")].concat())
            }
            Op::Describe(_, name) => self.portals.get(name).map(|_| message(b'n', b"")),
            Op::Close(b'S', name) => {
                self.statements.remove(name);
                Some(message(b'3', b""))
            }
            Op::Close(_, name) => {
                self.portals.remove(name);
                Some(message(b'3', b""))
            }
            _ => None,
        }
    }

    /// Runs a text up to where the client has to say something; `None` is an error.
    fn run(&mut self, sent: Sent, sql: String, is_simple: bool) -> Option<Vec<u8>> {
        if sent.fails {
            self.ran.insert(sent.id, (sql, false));
            return None;
        }
        let text = text_of(&sql);
        if text == Text::CopyIn {
            self.reading.insert(sent.id);
            self.copying = Some(Copying { id: sent.id, sql, is_simple, data: Vec::new() });
            return Some(copies(b'G'));
        }
        self.ran.insert(sent.id, (sql, true));
        Some(match text {
            Text::CopyOut => {
                let row = data(sent.id, 90);
                self.copied.insert(sent.id, (Direction::Out, sha256(&[&row, &row])));
                let row = message(b'd', &row);
                [copies(b'H'), row.clone(), row, message(b'c', b""), complete("COPY 2")].concat()
            }
            _ => [message(b'D', b"\0\0"), complete("SELECT 1")].concat(),
        })
    }

    fn simple(&mut self, sent: Sent) -> Vec<u8> {
        if sent.op != Op::Function || sent.refused {
            self.statements.remove("");
            self.portals.remove("");
        }
        let answer = match sent.op {
            _ if sent.refused => {
                self.unparsed.insert(sent.id);
                error("42601")
            }
            Op::Function => {
                self.ran.insert(sent.id, (String::new(), !sent.fails));
                if sent.fails { error("XX000") } else { message(b'V', &[0, 0, 0, 1, b'7']) }
            }
            _ => {
                let answer = self.run(sent, sql(sent.op, sent.id), true);
                if self.copying.is_some() {
                    return answer.unwrap_or_default();
                }
                if answer.is_some() { self.done(sent.op) } else { None }
                    .or(answer)
                    .unwrap_or_else(|| error("XX000"))
            }
        };
        [answer, self.ready()].concat()
    }

    /// What SQL does to names and transactions.
    fn done(&mut self, op: Op) -> Option<Vec<u8>> {
        match op {
            Op::Deallocate(name) => {
                self.statements.remove(name);
                Some(complete("DEALLOCATE"))
            }
            Op::Prepare(name) => {
                self.statements.entry(name).or_insert_with(|| "moved".to_owned());
                Some(complete("PREPARE"))
            }
            Op::Begin | Op::Commit => {
                self.in_transaction = op == Op::Begin;
                Some(complete(if op == Op::Begin { "BEGIN" } else { "COMMIT" }))
            }
            _ => None,
        }
    }

    /// What comes while the server reads a COPY's data: a `Sync` means nothing then.
    fn copy(&mut self, mut copying: Copying, sent: Sent) -> Vec<u8> {
        let failure = match sent.op {
            Op::Data(length) if !sent.fails => {
                copying.data.extend(data(sent.id, length));
                self.copying = Some(copying);
                return Vec::new();
            }
            Op::CopyDone if !sent.fails => None,
            Op::Data(_) | Op::CopyDone => Some("22P04"),
            Op::CopyFail => Some("57014"),
            op => {
                assert_eq!(op, Op::Sync, "nothing else is forwarded");
                self.copying = Some(copying);
                return Vec::new();
            }
        };
        let Copying { id, sql, is_simple, data } = copying;
        self.ran.insert(id, (sql, failure.is_none()));
        if failure.is_none() {
            self.copied.insert(id, (Direction::In, sha256(&[&data])));
        } else {
            self.failed.insert(id);
        }
        self.skips = !is_simple && failure.is_some();
        let answer = failure.map_or_else(|| complete("COPY 1"), error);
        if is_simple { [answer, self.ready()].concat() } else { answer }
    }

    fn ready(&mut self) -> Vec<u8> {
        if !self.in_transaction {
            self.portals.clear();
        }
        message(b'Z', &[if self.in_transaction { b'T' } else { b'I' }])
    }
}
