//! Search as a whole, through journals: what is there is found, by the index as by reading everything, whatever happens to
//! the index in between.

mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::audit::record::{
    Body, Context, Data, File, FilePhase, Format, How, Input, Opened, Output, Parameter, Program,
    ProgramKind, Pty, Sql, SqlPart, Statement, Totals,
};
use crate::audit::{Journal, JournalOptions, Opening, Recorder, SigningKey};
use crate::clock::Clock;
use crate::domain::deny::EndReason;
use crate::domain::id::{NodeId, RequestId};
use crate::domain::target::Environment;

const START: Timestamp = Timestamp::from_micros(1_795_468_800_000_000);

fn opening(number: u8, who: &str, target: &str) -> Opening {
    let id = who.bytes().next().unwrap_or_default();
    Opening {
        context: Context {
            principal: Actor { id: PrincipalId::from_random([id; 10]), name: who.parse().unwrap() },
            session: SessionId::from_random([number; 10]),
            request: RequestId::from_random([4; 10]),
            connection: ConnectionId::from_random([number; 10]),
            target: target.parse().unwrap(),
            access: "readonly".parse().unwrap(),
            environment: Environment::Prod,
            domain: "bank-core".parse().unwrap(),
            client: "192.0.2.7:40000".parse().unwrap(),
            break_glass: false,
        },
        opened: Opened {
            reason: "incident INC-4711".to_owned(),
            ticket: None,
            approvals: Vec::new(),
            granted_at: START,
            ends_at: START.plus(Duration::from_hours(1)),
            policy_hash: "00".to_owned(),
            application: None,
            database: None,
            credential: None,
            client_tls: None,
            client_ssh: None,
            target_tls: None,
        },
    }
}

fn statement(n: u64, sql: &str) -> Body {
    Body::Statement(Statement::new(n, How::Simple, sql.as_bytes()))
}

fn pty(ch: u32) -> Body {
    Body::Pty(Pty { ch, term: "xterm".to_owned(), cols: 80, rows: 24, modes: BTreeMap::new() })
}

fn shown(ch: u32, bytes: &[u8]) -> Body {
    Body::Output(Output { ch, data: Data::new(bytes), err: false })
}

fn typed(ch: u32, bytes: &[u8]) -> Body {
    Body::Input(Input { ch, data: Data::new(bytes), masked: None })
}

/// A log with its journal and an index.
struct House {
    home: TempDir,
    clock: Clock,
    journal: Journal,
    index: Index,
}

impl House {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let key = SigningKey::from_pem(&SigningKey::generate(), NodeId::from_random([1; 10])).unwrap();
        let clock = Clock::manual(START);
        let options = JournalOptions { file_size: 256 << 10, reserve: 8 << 10, ..JournalOptions::new(key) };
        let (journal, _) = Journal::open(&home.path().join("audit"), clock.clone(), options).unwrap();
        let index =
            Index::new(&home.path().join("search.db"), &home.path().join("audit")).in_steps(4_000, u64::MAX);
        Self { home, clock, journal, index }
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("audit")
    }

    /// Another process's, of the same file.
    fn reopen(&mut self) {
        self.index = Index::new(&self.home.path().join("search.db"), &self.log()).in_steps(4_000, u64::MAX);
    }

    async fn begin(&self, number: u8, who: &str, target: &str) -> Recorder {
        self.journal.begin(opening(number, who, target)).await.unwrap()
    }

    async fn record(&self, recorder: &Recorder, bodies: &[Body]) {
        for body in bodies {
            self.clock.advance(Duration::from_secs(1));
            recorder.record(std::slice::from_ref(body)).await.unwrap();
        }
    }

    /// What the index finds, after making sure that reading everything finds the same.
    fn find(&self, query: &Query) -> Vec<Hit> {
        assert_eq!(self.index.update(u64::MAX).unwrap(), Progress::UpToDate);
        let mut found = self.index.search(query.clone(), &mut |_, _| true).unwrap();
        let scanned = scan(&self.log(), query.clone()).unwrap();
        if let (Some(before), None) = (found.next, scanned.next) {
            // The index tells that there may be more; who goes on finds out that there is nothing.
            let rest = Query { before: Some(before), ..query.clone() };
            let rest = self.index.search(rest, &mut |_, _| true).unwrap();
            assert_eq!((rest.hits, rest.next), (Vec::new(), None), "{query:?}");
            found.next = None;
        }
        assert_eq!(found, scanned, "{query:?}");
        assert!(!found.withheld);
        found.hits
    }

    fn excerpts(&self, text: &str) -> Vec<String> {
        self.find(&Query::new(text, 100)).into_iter().map(|hit| hit.excerpt).collect()
    }
}

async fn end(recorder: Recorder) {
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
}

#[tokio::test]
async fn a_text_is_found_wherever_somebody_wrote_or_saw_it() {
    let house = House::new();
    let one = house.begin(1, "alice", "ledger-prod").await;
    let mut bound =
        Statement::new(2, How::Extended, b"UPDATE accounts SET owner = $1 WHERE iban = $2 AND id = $3");
    bound.params = vec![
        Parameter::new(Some("Gr\u{fc}nwald".as_bytes()), Format::Text, 25),
        Parameter::new(Some(b"DE89370400440532013000"), Format::Text, 25),
        Parameter::new(Some(&4_711_815_i64.to_be_bytes()), Format::Binary, 20),
    ];
    house.record(&one, &[statement(1, "DROP\n   TABLE accounts"), Body::Statement(bound)]).await;
    let two = house.begin(2, "bob", "web-1").await;
    let command = Some(Data::new(b"cat /etc/shadow"));
    let file = File {
        ch: 3,
        n: 1,
        phase: FilePhase::Answered,
        tool: "sftp".to_owned(),
        op: "rename".to_owned(),
        path: Data::new(b"/srv/payroll.csv"),
        to: Some(Data::new(b"/tmp/x")),
        flags: None,
        attributes: None,
        read: None,
        written: None,
        sha256: None,
        outcome: None,
        message: None,
    };
    let bodies = [
        pty(1),
        shown(1, b"\x1b[1malice@web\x1b[0m:~$ "),
        typed(1, b"sudp\x7fo id\r"),
        shown(1, b"sudp\x08 \x08o id\r\nuid=0(\x1b[31mro"),
        shown(1, b"ot\x1b[0m)\r\n$ half a li"),
        Body::Program(Program { ch: 2, how: ProgramKind::Exec, command, hint: None }),
        shown(2, b"root:$6$salt:19\nbin"),
        Body::File(file),
    ];
    house.record(&two, &bodies).await;
    for (text, expected) in [
        ("drop table ACCOUNTS", "DROP TABLE accounts"),
        ("gr\u{dc}nwald", "Gr\u{fc}nwald"),
        ("0532013", "DE89370400440532013000"),
        ("4711815", "4711815"),
        ("@web:~$ sudo id", "alice@web:~$ sudo id"),
        ("0(root)", "uid=0(root)"),
        ("half a li", "$ half a li"),
        ("/shadow", "cat /etc/shadow"),
        ("$6$salt", "root:$6$salt:19"),
        ("payroll", "sftp rename /srv/payroll.csv /tmp/x"),
    ] {
        assert_eq!(house.excerpts(text), [expected], "{text}");
    }
    assert_eq!(house.excerpts("sudo id"), ["alice@web:~$ sudo id", "sudo id"], "as seen and as typed");
    assert_eq!(house.excerpts("inc-4711"), ["incident INC-4711"; 2]);
    assert_eq!(house.excerpts("sudp"), [] as [&str; 0]);
    end(one).await;
    end(two).await;
    assert_eq!(house.excerpts("half a li"), ["$ half a li"], "also when the recording ends");
}

#[tokio::test]
async fn filters_leave_out_what_they_say() {
    let house = House::new();
    let mut times = Vec::new();
    for (number, who, target) in
        [(1, "alice", "ledger-prod"), (2, "bob", "ledger-prod"), (3, "alice", "web-1")]
    {
        let recorder = house.begin(number, who, target).await;
        house.record(&recorder, &[statement(1, "SELECT 'needle'"), pty(1), shown(1, b"needle\r\n")]).await;
        times.push(house.clock.now());
        end(recorder).await;
    }
    let connections = |query: Query| -> Vec<u8> {
        let number =
            |hit: Hit| (1..4).find(|n| ConnectionId::from_random([*n; 10]) == hit.connection).unwrap();
        house.find(&query).into_iter().map(number).collect()
    };
    let query = || Query::new("needle", 100);
    assert_eq!(connections(query()), [3, 3, 2, 2, 1, 1]);
    assert_eq!(connections(Query { principal: Some("alice".to_owned()), ..query() }), [3, 3, 1, 1]);
    let id = PrincipalId::from_random([b'b'; 10]).to_string();
    assert_eq!(connections(Query { principal: Some(id), ..query() }), [2, 2]);
    assert_eq!(connections(Query { target: Some("web-1".parse().unwrap()), ..query() }), [3, 3]);
    assert_eq!(connections(Query { session: Some(SessionId::from_random([2; 10])), ..query() }), [2, 2]);
    assert_eq!(connections(Query { kind: Some("output".to_owned()), ..query() }), [3, 2, 1]);
    assert_eq!(
        connections(Query { from: Some(times[0].plus(Duration::from_micros(1))), ..query() }),
        [3, 3, 2, 2]
    );
    assert_eq!(connections(Query { to: Some(times[0]), ..query() }), [1, 1]);
    assert_eq!(connections(Query { target: Some("nowhere".parse().unwrap()), ..query() }), Vec::<u8>::new());
    let everything = connections(Query { principal: Some("bob".to_owned()), ..Query::new("", 100) });
    assert_eq!(everything, [2, 2, 2], "without a text, all that they did");
    let unknown = scan(&house.log(), Query { kind: Some("x".to_owned()), ..query() });
    assert!(matches!(unknown, Err(SearchError::UnknownKind { .. })));
    assert!(matches!(scan(&house.log(), Query::new(&"x".repeat(201), 1)), Err(SearchError::TooLong)));
}

#[tokio::test]
async fn what_may_not_be_read_is_not_found_and_it_is_said_whatever_the_text() {
    let house = House::new();
    for (number, who) in [(1, "alice"), (2, "bob")] {
        let recorder = house.begin(number, who, "ledger-prod").await;
        house.record(&recorder, &[statement(1, &format!("SELECT '{who}s needle'"))]).await;
        end(recorder).await;
    }
    house.index.update(u64::MAX).unwrap();
    let alice = PrincipalId::from_random([b'a'; 10]);
    let search = |query| house.index.search(query, &mut |who, _| *who == alice).unwrap();
    for (query, hits, withheld) in [
        (Query::new("needle", 9), 1, true),
        (Query::new("bobs needle", 9), 0, true),
        (Query::new("nobody wrote this", 9), 0, true),
        (Query { principal: Some("alice".to_owned()), ..Query::new("needle", 9) }, 1, false),
        (Query { to: Some(Timestamp::from_micros(0)), ..Query::new("needle", 9) }, 0, false),
    ] {
        let found = search(query.clone());
        assert_eq!((found.hits.len(), found.withheld), (hits, withheld), "{query:?}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap_or_a_hit_twice() {
    let house = House::new();
    let (one, two) = (house.begin(1, "alice", "a").await, house.begin(2, "bob", "b").await);
    for n in 1..40 {
        let recorder = if n % 3 == 0 { &one } else { &two };
        house.record(recorder, &[statement(n, &format!("SELECT needle {n}, '{}'", "x".repeat(3_000)))]).await;
    }
    let all = house.find(&Query::new("needle", 1_000));
    assert_eq!(all.len(), 39);
    assert!(all.windows(2).all(|pair| pair[0].n > pair[1].n && pair[0].at >= pair[1].at), "newest first");
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let query = Query { before, ..Query::new("needle", 7) };
        let found = house.index.search(query.clone(), &mut |_, _| true).unwrap();
        assert!(found.hits.len() <= 7);
        assert_eq!(found.hits, scan(&house.log(), query).unwrap().hits);
        pages.extend(found.hits);
        before = found.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(pages, all);
}

#[tokio::test]
async fn a_search_that_looked_at_enough_goes_on_where_it_stopped() {
    let house = House::new();
    let (one, two) = (house.begin(1, "alice", "a").await, house.begin(2, "bob", "b").await);
    for n in 1..200 {
        let recorder = if n % 3 == 0 { &one } else { &two };
        let text = if n % 50 == 0 { "needle" } else { "hay" };
        house
            .record(recorder, &[statement(n, &format!("SELECT {text} '{}'", "needl eedle ".repeat(200)))])
            .await;
    }
    let all = house.find(&Query::new("needle", 100));
    assert_eq!(all.len(), 3);
    let index = Index::new(&house.home.path().join("search.db"), &house.log()).in_steps(4_000, 1);
    let (mut found, mut before, mut looks) = (Vec::new(), None, 0);
    loop {
        let page = index.search(Query { before, ..Query::new("needle", 2) }, &mut |_, _| true).unwrap();
        found.extend(page.hits);
        looks += 1;
        assert!(page.next.is_none_or(|next| before.is_none_or(|before| next < before)), "it gets on");
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(found, all);
    assert!(looks > 5, "{looks} looks");
}

#[tokio::test]
async fn what_stands_before_damage_in_the_log_is_found() {
    let mut house = House::new();
    let recorder = house.begin(1, "alice", "a").await;
    house.record(&recorder, &[statement(1, "SELECT needle"), statement(2, "SELECT other")]).await;
    let path = house.log().join("journal-00000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|part| part == b"other").unwrap();
    let line = bytes[..at].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    bytes[line] = b'x';
    std::fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        assert!(matches!(house.index.update(u64::MAX), Err(SearchError::Damaged { .. })));
        assert_eq!(house.index.search(Query::new("needle", 9), &mut |_, _| true).unwrap().hits.len(), 1);
        house.reopen();
    }
}

#[tokio::test]
async fn a_search_in_the_files_alone_takes_no_altered_record() {
    let house = House::new();
    let recorder = house.begin(1, "alice", "a").await;
    house.record(&recorder, &[statement(1, "SELECT needle"), statement(2, "SELECT other")]).await;
    assert_eq!(scan(&house.log(), Query::new("needle", 9)).unwrap().hits.len(), 1);
    let path = house.log().join("journal-00000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|part| part == b"needle").unwrap();
    bytes[at] = b'N';
    std::fs::write(&path, bytes).unwrap();
    for text in ["needle", "other", "nothing"] {
        let found = scan(&house.log(), Query::new(text, 9));
        assert!(
            matches!(&found, Err(SearchError::Damaged { what }) if what.contains("audit verify")),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn an_index_that_is_damaged_foreign_or_of_another_log_is_made_anew() {
    let mut house = House::new();
    let recorder = house.begin(1, "alice", "a").await;
    house.record(&recorder, &[statement(1, "SELECT needle")]).await;
    let expected = house.excerpts("needle");
    let path = house.home.path().join("search.db");
    let other = {
        let other = House::new();
        let recorder = other.begin(9, "zoe", "z").await;
        other.record(&recorder, &[statement(1, "SELECT other")]).await;
        other.excerpts("other");
        other.index.search(Query::new("x", 1), &mut |_, _| true).unwrap();
        let sql = rusqlite::Connection::open(other.home.path().join("search.db")).unwrap();
        sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        std::fs::read(other.home.path().join("search.db")).unwrap()
    };
    for (what, bytes) in [
        ("nothing", None),
        ("no database", Some(vec![b'x'; 20_000])),
        ("another log's", Some(other.clone())),
        ("a damaged one", Some(other[..9_000].to_vec())),
    ] {
        house.reopen();
        schema::discard(&path).unwrap();
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        assert_eq!(house.excerpts("needle"), expected, "{what}");
        assert_eq!(house.excerpts("other"), [] as [&str; 0], "{what}");
    }
    // Another program's is not taken for ours either.
    house.reopen();
    schema::discard(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
    assert_eq!(house.excerpts("needle"), expected);
}

#[tokio::test]
async fn files_of_the_log_that_were_moved_away_are_not_missed_silently() {
    let mut house = House::new();
    let (one, two) = (house.begin(1, "alice", "a").await, house.begin(2, "bob", "b").await);
    house.record(&one, &[statement(1, "SELECT needle")]).await;
    end(one).await;
    for n in 1..40 {
        house.record(&two, &[statement(n, &"filling ".repeat(3_000))]).await;
    }
    house.record(&two, &[statement(40, "SELECT needle")]).await;
    assert_eq!(house.excerpts("needle").len(), 2);
    std::fs::remove_file(house.log().join("journal-00000001.log")).unwrap();
    let found = house.index.search(Query::new("needle", 9), &mut |_, _| true).unwrap();
    assert_eq!((found.hits.len(), found.moved), (1, true));
    // One that is made anew begins with what there is.
    house.reopen();
    schema::discard(&house.home.path().join("search.db")).unwrap();
    assert_eq!(house.index.update(u64::MAX).unwrap(), Progress::UpToDate);
    let all = Query::new("needle", 9);
    for (query, moved) in [
        (all.clone(), true),
        (Query { from: Some(START.plus(Duration::from_secs(40))), ..all.clone() }, false),
        (Query { limit: 1, ..Query::new("filling", 1) }, false),
    ] {
        let found = house.index.search(query.clone(), &mut |_, _| true).unwrap();
        assert_eq!((found.hits.len(), found.moved), (1, moved), "{query:?}");
        assert_eq!(scan(&house.log(), query).unwrap(), found);
    }
    // One that had not come so far when the files went begins anew too.
    std::fs::remove_file(house.log().join("journal-00000002.log")).unwrap();
    house.reopen();
    assert_eq!(house.index.update(u64::MAX).unwrap(), Progress::UpToDate);
}

#[tokio::test]
async fn an_index_taken_away_while_it_is_open_comes_back() {
    let house = House::new();
    let recorder = house.begin(1, "alice", "a").await;
    house.record(&recorder, &[statement(1, "SELECT needle")]).await;
    assert_eq!(house.excerpts("needle").len(), 1);
    // Its content no longer is what the log holds there.
    let sql = rusqlite::Connection::open(house.home.path().join("search.db")).unwrap();
    let mut elsewhere = places::Places::default();
    elsewhere.push(crate::audit::files::Place { file: 1, offset: 5 });
    sql.execute("UPDATE content SET places = ?1", [elsewhere.as_bytes()]).unwrap();
    drop(sql);
    let wrong = house.index.search(Query::new("needle", 9), &mut |_, _| true);
    assert!(matches!(wrong, Err(SearchError::Index { .. })), "{wrong:?}");
    assert_eq!(house.excerpts("needle").len(), 1, "made anew");
}

#[tokio::test]
async fn a_word_that_two_parts_of_a_statement_share_is_found() {
    let house = House::new();
    let recorder = house.begin(1, "alice", "a").await;
    let sql = format!("SELECT '{} needle in the middle {}'", "é".repeat(65_520), "x".repeat(200_000));
    house.record(&recorder, &[statement(1, &sql)]).await;
    assert_eq!(house.find(&Query::new("needle in the middle", 9)).len(), 1);
    let part = |part, sql: &[u8]| Body::SqlPart(SqlPart { n: 2, part, sql: Sql::new(sql) });
    house
        .record(&recorder, &[part(0, b"SELECT 'gr\xc3"), part(1, b"\xbcn nee"), statement(2, "dle two'")])
        .await;
    assert_eq!(house.excerpts("gr\u{fc}n needle two"), ["SELECT 'gr\u{fc}n needle two'"]);
}
