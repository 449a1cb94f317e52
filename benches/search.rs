//! What a search costs: the index's size beside the recordings', how fast it is made, how long an answer takes.
//!
//! Recordings are made through the real journal: sessions of psql, shells with every key and its echo, logs and
//! lists that scroll by. `SEARCH_BENCH_MB` says how much (64 without it). Prints a table; asserts that what was hidden in them
//! is found, never a time.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sallyport::audit::record::{
    Context, Data, Format, How, Input, Opened, Output, Parameter, Pty, Statement, StatementEnd,
    StatementOutcome,
};
use sallyport::audit::search::{Index, Progress, Query, scan};
use sallyport::audit::{Body, Journal, JournalOptions, Opening, Recorder, SigningKey, Totals};
use sallyport::clock::Clock;
use sallyport::domain::deny::EndReason;
use sallyport::domain::id::{ConnectionId, NodeId, PrincipalId, RequestId, SessionId};
use sallyport::domain::principal::Actor;
use sallyport::domain::target::Environment;
use sallyport::domain::time::Timestamp;

const START: Timestamp = Timestamp::from_micros(1_795_468_800_000_000);
/// Connections that are open at the same time.
const AT_ONCE: usize = 40;
/// Records in one call of the journal: the disk's own speed is not what is measured.
const TOGETHER: usize = 100;
/// How many words are hidden, evenly over the log, and how often each question is asked.
const HIDDEN: u64 = 50;

/// Numbers that are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(most).unwrap()).unwrap()
    }

    fn pick<'a>(&mut self, from: &'a [String]) -> &'a str {
        // Few words are frequent, most are rare, as in any language.
        let (one, two) = (self.below(from.len()), self.below(from.len()));
        &from[one * two / from.len()]
    }

    fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'0' + u8::try_from(self.below(10)).unwrap())).collect()
    }

    fn base64(&mut self, count: usize) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..count).map(|_| char::from(LETTERS[self.below(64)])).collect()
    }

    fn id(&mut self) -> [u8; 10] {
        std::array::from_fn(|_| u8::try_from(self.below(256)).unwrap())
    }
}

struct World {
    dice: Dice,
    words: Vec<String>,
    people: Vec<Actor>,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        let mut dice = Dice(0x1234_5678_9abc_def1);
        let syllables = [
            "ac", "count", "pay", "ment", "led", "ger", "tra", "ns", "fer", "user", "id", "bal", "ance",
            "re", "port",
        ];
        let words =
            (0..4_000).map(|_| (0..2 + dice.below(3)).map(|_| syllables[dice.below(15)]).collect()).collect();
        let person = |n: usize, dice: &mut Dice| Actor {
            id: PrincipalId::from_random(dice.id()),
            name: format!("person-{n}").parse().unwrap(),
        };
        let people = (0..40).map(|n| person(n, &mut dice)).collect();
        Self { dice, words, people, clock: Clock::manual(START) }
    }

    fn opening(&mut self) -> Opening {
        let who = self.dice.below(self.people.len());
        let now = self.clock.now();
        Opening {
            context: Context {
                principal: self.people[who].clone(),
                session: SessionId::from_random(self.dice.id()),
                request: RequestId::from_random(self.dice.id()),
                connection: ConnectionId::from_random(self.dice.id()),
                target: format!("target-{}", self.dice.below(60)).parse().unwrap(),
                access: "readonly".parse().unwrap(),
                environment: Environment::Prod,
                domain: "bank-core".parse().unwrap(),
                client: "192.0.2.7:40000".parse().unwrap(),
                break_glass: false,
            },
            opened: Opened {
                reason: format!("INC-{}: {}", self.dice.digits(5), self.sentence(6)),
                ticket: None,
                approvals: Vec::new(),
                granted_at: now,
                ends_at: now.plus(Duration::from_hours(1)),
                policy_hash: "00".repeat(32),
                application: Some("psql".to_owned()),
                database: None,
                credential: None,
                client_tls: None,
                client_ssh: None,
                target_tls: None,
            },
        }
    }

    fn sentence(&mut self, words: usize) -> String {
        (0..words).map(|_| self.dice.pick(&self.words).to_owned()).collect::<Vec<_>>().join(" ")
    }

    /// A statement with what came of it.
    fn statement(&mut self, n: u64) -> [Body; 2] {
        let (table, column, other) = (self.sentence(1), self.sentence(1), self.sentence(1));
        let sql = match self.dice.below(4) {
            0 => format!("SELECT {column}, {other} FROM {table} WHERE id = {}", self.dice.digits(8)),
            1 => format!("UPDATE {table} SET {column} = '{}' WHERE {other} = $1", self.sentence(3)),
            2 => format!(
                "INSERT INTO {table} ({column}, {other}) VALUES ('DE{}', {})",
                self.dice.digits(20),
                self.dice.digits(6)
            ),
            _ => format!(
                "SELECT t.{column}, sum(t.{other}) FROM {table} t JOIN {} u ON u.id = t.id\nGROUP BY 1 ORDER BY 2 DESC -- {}",
                self.sentence(1),
                self.sentence(8)
            ),
        };
        let mut statement = Statement::new(n, How::Extended, sql.as_bytes());
        statement.params = vec![Parameter::new(Some(self.dice.digits(9).as_bytes()), Format::Text, 25)];
        let mut end = StatementEnd::new(n, StatementOutcome::Done);
        (end.tag, end.rows, end.duration_us) = (Some("SELECT 1".to_owned()), Some(1), Some(731));
        [Body::Statement(statement), Body::StatementEnd(end)]
    }

    /// A command, key by key with its echo, and what the host says to it.
    fn command(&mut self) -> Vec<Body> {
        let line = format!(
            "{} --{} /srv/{}/{}",
            self.sentence(1),
            self.sentence(1),
            self.sentence(1),
            self.sentence(1)
        );
        let mut bodies = Vec::new();
        for key in line.chars() {
            let key = key.to_string();
            bodies.push(Body::Input(Input { ch: 1, data: Data::new(key.as_bytes()), masked: None }));
            bodies.push(output(&key));
        }
        bodies.push(Body::Input(Input { ch: 1, data: Data::new(b"\r"), masked: None }));
        let lines = 1 + self.dice.below(40);
        let mut shown = String::from("\r\n");
        for _ in 0..lines {
            shown += &self.log_line();
            shown += "\r\n";
        }
        bodies.push(output(&shown));
        bodies.push(output("\u{1b}[01;32mperson@target\u{1b}[00m:\u{1b}[01;34m~\u{1b}[00m$ "));
        bodies
    }

    fn log_line(&mut self) -> String {
        let (pid, port) = (self.dice.digits(5), self.dice.digits(5));
        let at = format!(
            "Nov {:02} {:02}:{:02}:{:02}",
            1 + self.dice.below(30),
            self.dice.below(24),
            self.dice.below(60),
            self.dice.below(60)
        );
        let host = self.dice.below(60);
        match self.dice.below(4) {
            0 => format!(
                "{at} target-{host} sshd[{pid}]: Accepted publickey for person-{} from 10.{}.{}.{} port {port} ssh2: ED25519 SHA256:{}",
                self.dice.below(40),
                self.dice.below(256),
                self.dice.below(256),
                self.dice.below(256),
                self.dice.base64(43)
            ),
            1 => format!(
                "{at} target-{host} kernel: [{}.{}] {}",
                self.dice.digits(7),
                self.dice.digits(6),
                self.sentence(7)
            ),
            2 => format!(
                "-rw-r--r-- 1 root root {:>9} {at} {}-{}.{}",
                self.dice.digits(6),
                self.sentence(1),
                self.dice.digits(4),
                self.sentence(1)
            ),
            _ => format!(
                "{at} target-{host} {}[{pid}]: {} error={} id={}",
                self.sentence(1),
                self.sentence(9),
                self.dice.below(3),
                self.dice.digits(12)
            ),
        }
    }

    /// Something long that scrolls by.
    fn scroll(&mut self) -> Body {
        let lines: Vec<String> = (0..200).map(|_| self.log_line()).collect();
        output(&(lines.join("\r\n") + "\r\n"))
    }
}

fn output(text: &str) -> Body {
    Body::Output(Output { ch: 1, data: Data::new(text.as_bytes()), err: false })
}

/// A connection under way.
struct Live {
    recorder: Recorder,
    is_shell: bool,
    left: usize,
    n: u64,
}

async fn begin(world: &mut World, journal: &Journal) -> Live {
    let recorder = journal.begin(world.opening()).await.unwrap();
    let is_shell = world.dice.below(2) == 0;
    if is_shell {
        let pty = Pty { ch: 1, term: "xterm".to_owned(), cols: 132, rows: 43, modes: BTreeMap::new() };
        recorder.record(&[Body::Pty(pty)]).await.unwrap();
    }
    let left = 2 + world.dice.below(60);
    Live { recorder, is_shell, left, n: 0 }
}

fn doings(world: &mut World, live: &mut Live) -> Vec<Body> {
    let mut bodies = Vec::new();
    while bodies.len() < TOGETHER && live.left > 0 {
        live.left -= 1;
        match (live.is_shell, world.dice.below(12)) {
            (true, 0) => bodies.push(world.scroll()),
            (true, _) => bodies.extend(world.command()),
            (false, _) => {
                live.n += 1;
                bodies.extend(world.statement(live.n));
            }
        }
    }
    bodies
}

/// Bytes of records in the journal's files, without what is allocated ahead.
fn written(log: &Path) -> u64 {
    let files = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let journal = files.filter(|path| path.to_str().unwrap().contains("journal-"));
    let data = |path: std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    };
    journal.map(|path| u64::try_from(data(path)).unwrap()).sum()
}

fn hidden(number: u64) -> String {
    format!("Hidden{number:03}Needle")
}

async fn fill(world: &mut World, log: &Path, most: u64) {
    let key = SigningKey::from_pem(&SigningKey::generate(), NodeId::from_random(world.dice.id())).unwrap();
    let (journal, _) = Journal::open(log, world.clock.clone(), JournalOptions::new(key)).unwrap();
    let (mut live, mut made, mut hid) = (Vec::new(), 0_u64, 0);
    while made < most {
        while live.len() < AT_ONCE {
            live.push(begin(world, &journal).await);
        }
        let at = world.dice.below(live.len());
        let mut bodies = doings(world, &mut live[at]);
        if made >= hid * most / HIDDEN {
            bodies.push(output(&format!("\r\nsaid {} once\r\n", hidden(hid))));
            hid += 1;
        }
        world.clock.advance(Duration::from_millis(700));
        // What a record takes: its own fields and some 500 bytes of context.
        made += bodies.iter().map(|body| serde_json::to_vec(body).unwrap().len() as u64 + 560).sum::<u64>();
        live[at].recorder.record(&bodies).await.unwrap();
        if live[at].left == 0 {
            let over = live.swap_remove(at);
            over.recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
        }
    }
    journal.close().await.unwrap();
}

/// Nearest rank, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1].as_secs_f64() * 1000.0
}

fn ask(index: &Index, what: &str, queries: impl Iterator<Item = Query>, expected: Option<usize>) {
    let (mut times, mut hits) = (Vec::new(), 0);
    for query in queries {
        let asked = Instant::now();
        let mut found = index.search(query.clone(), &mut |_, _| true).unwrap();
        let mut count = found.hits.len();
        // To the end, however many pages: what is rare is known only then.
        while let Some(before) = found.next.filter(|_| count < query.limit) {
            found = index.search(Query { before: Some(before), ..query.clone() }, &mut |_, _| true).unwrap();
            count += found.hits.len();
        }
        times.push(asked.elapsed());
        assert!(expected.is_none_or(|expected| expected == count), "{query:?}: {count}");
        hits += count;
    }
    times.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| percentile(&times, percent));
    let each = hits as f64 / times.len() as f64;
    println!("{what:<58} {:>4} {p50:>9.1} {p99:>9.1} {each:>7.1}", times.len());
}

fn main() {
    let megabytes: u64 = std::env::var("SEARCH_BENCH_MB").map_or(64, |text| text.parse().unwrap());
    let home = tempfile::TempDir::new().unwrap();
    let (log, path) = (home.path().join("audit"), home.path().join("search.db"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut world = World::new();
    runtime.block_on(fill(&mut world, &log, megabytes * 1_000_000));
    let size = written(&log);

    let index = Index::new(&path, &log);
    let begun = Instant::now();
    while index.update(64 << 20).unwrap() == Progress::Behind {}
    let took = begun.elapsed();
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    sqlite.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(sqlite);
    let index_size = std::fs::metadata(&path).unwrap().len();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!("recordings: {:.0} MB in the log", mb(size));
    let share = 100.0 * index_size as f64 / size as f64;
    println!("index: {:.1} MB, {share:.1} % of them", mb(index_size));
    println!("made in {:.1} s: {:.0} MB/s", took.as_secs_f64(), mb(size) / took.as_secs_f64());

    println!("{:<58} {:>4} {:>9} {:>9} {:>7}", "milliseconds", "n", "p50", "p99", "hits");
    let hide = |number| Query::new(&hidden(number), 50);
    ask(&index, "a word that is there once", (0..HIDDEN).map(hide), Some(1));
    ask(&index, "… a part of it", (0..HIDDEN).map(|number| Query::new(&hidden(number)[3..11], 50)), Some(1));
    ask(
        &index,
        "a word that is not there",
        (0..20).map(|n| Query::new(&format!("Absent{n}Word"), 50)),
        Some(0),
    );
    let number = |n: u64| Query::new(&format!("DE{:020}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 50);
    ask(&index, "an account number that is not there", (0..20).map(number), Some(0));
    let mut common = Dice(7);
    let words: Vec<String> = (0..50).map(|_| common.pick(&world.words).to_owned()).collect();
    ask(&index, "words as they come, the newest 50", words.iter().map(|word| Query::new(word, 50)), None);
    let of = |word: &String| Query { principal: Some("person-7".to_owned()), ..Query::new(word, 50) };
    ask(&index, "… of one person", words.iter().map(of), None);
    let on = |word: &String| Query {
        target: Some("target-7".parse().unwrap()),
        kind: Some("statement".to_owned()),
        ..Query::new(word, 50)
    };
    ask(&index, "… in statements on one target", words.iter().map(on), None);
    ask(&index, "two letters, the newest 50", (0..20).map(|_| Query::new("pa", 50)), Some(50));
    ask(
        &index,
        "three letters that are hardly there, all of them",
        (0..1).map(|_| Query::new("qqq", 50)),
        None,
    );

    let begun = Instant::now();
    assert_eq!(scan(&log, hide(3)).unwrap().hits.len(), 1);
    let took = begun.elapsed();
    println!(
        "without an index, all of the log: {:.1} s, {:.0} MB/s",
        took.as_secs_f64(),
        mb(size) / took.as_secs_f64()
    );
}
