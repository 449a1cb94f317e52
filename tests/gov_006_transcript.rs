//! GOV-006: whatever a statement's text is, psql reads a transcript as it was written: no text swallows what comes
//! behind it, and none is a command of psql's, under any settings that move where strings end.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

#[path = "support/log.rs"]
mod log;
mod support;

use std::collections::BTreeSet;
use std::fs;

use sallyport::audit::export::{self, Filter, Format, Order};
use sallyport::audit::record::{How, Statement, StatementEnd, StatementOutcome};
use sallyport::audit::{Body, Journal, JournalOptions, SigningKey, Totals};
use sallyport::clock::Clock;
use sallyport::domain::deny::EndReason;
use sallyport::domain::id::{RequestId, SessionId};
use support::{Finished, Postgres};
use tempfile::TempDir;

use log::{START, connection, node, opening};

/// What texts are made of: all that decides where something ends, and a command to be kept from running. The last byte
/// of `あ` is in other encodings the first of a character, which takes what follows with it.
const PIECES: [&str; 38] = [
    "'",
    "''",
    "\"",
    "$$",
    "$a$",
    "$",
    "\\",
    "\\'",
    "E'",
    "e",
    "U&'",
    "--",
    "/*",
    "*/",
    "\n",
    " ",
    "a",
    "1",
    "(",
    ")",
    ":x",
    "::",
    ":'x'",
    "é",
    "あ",
    "あ1",
    ";",
    "select ",
    "\\echo SEIZED\n",
    "x'",
    "]",
    "$é$",
    "E'あ\\'",
    "あ~E'\\'",
    "あ\\",
    "'あ'",
    "\"あ\"",
    "--あ\n",
];
const TEXTS: usize = 3000;

/// Texts, the same at every run.
fn texts() -> Vec<String> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    // Their last character, in a comment before what is run, must not take the line's end with it.
    let chosen = ["select length($$\n\\echo SEIZED\n$$ ) --あ", "select length('\n\\echo SEIZED\n') --あ1"]
        .map(str::to_owned);
    let made = (0..TEXTS - chosen.len()).map(|_| {
        let length = 1 + next(9);
        let text: String = (0..length).map(|_| PIECES[next(PIECES.len())]).collect();
        // Half of them end as many of these do.
        text + ["", "", "", "'", "'", "\"", "$$", "*/"][next(8)]
    });
    chosen.into_iter().chain(made).collect()
}

/// A log in which each text was done, and behind it a statement that shows that it is read as one.
async fn transcript(texts: &[String]) -> String {
    let dir = TempDir::new().unwrap();
    let signing = SigningKey::from_pem(&SigningKey::generate(), node()).unwrap();
    let (journal, _) = Journal::open(dir.path(), Clock::manual(START), JournalOptions::new(signing)).unwrap();
    let session = SessionId::from_random([3; 10]);
    let opening = opening(connection(1), session.clone(), RequestId::from_random([4; 10]));
    let recorder = journal.begin(opening).await.unwrap();
    let mut bodies = Vec::new();
    let both =
        texts.iter().enumerate().flat_map(|(n, text)| [text.clone(), format!("SELECT 'mark {n} ends'")]);
    for (n, sql) in (1..).zip(both) {
        bodies.push(Body::Statement(Statement::new(n, How::Simple, sql.as_bytes())));
        bodies.push(Body::StatementEnd(StatementEnd::new(n, StatementOutcome::Done)));
    }
    recorder.record(&bodies).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    let filter = Filter { session: Some(session), ..Filter::default() };
    let order = Order { directory: dir.path(), format: Format::Sql, filter: &filter, size: None };
    let mut written = Vec::new();
    export::write(&order, &mut |_| true, &mut written).unwrap();
    String::from_utf8(written).unwrap()
}

#[test]
fn psql_reads_no_text_otherwise_than_it_was() {
    let postgres = Postgres::start();
    let texts = texts();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sql = runtime.block_on(transcript(&texts));
    let run =
        sql.lines().filter(|line| line.contains(": done") && !line.contains("not run here")).count() - TEXTS;
    assert!(run > TEXTS / 20, "{run} of {TEXTS} are run at all");
    let dir = TempDir::new().unwrap();
    for (encoding, standard) in [
        ("UTF8", "on"),
        ("UTF8", "off"),
        ("SJIS", "on"),
        ("SJIS", "off"),
        ("GB18030", "on"),
        ("JOHAB", "on"),
        ("BIG5", "on"),
    ] {
        let file = dir.path().join(format!("{encoding}-{standard}.sql"));
        // As if a statement had set this.
        let settings =
            format!("SET client_encoding = '{encoding}';\nSET standard_conforming_strings = {standard};");
        let usual = "SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;";
        let text = sql.replacen(usual, &settings, 1);
        assert!(text.contains(&settings));
        fs::write(&file, text).unwrap();
        let mut psql = postgres.client("psql", "ledger");
        let done = psql.args(["-XAtq", "-v", "ON_ERROR_STOP=0", "-f"]).arg(&file).output().unwrap();
        let done = Finished::from(done);
        assert!(!done.stdout.contains("SEIZED"), "{encoding} {standard}: {}", done.stdout);
        let seen: BTreeSet<&str> = done.stdout.lines().filter(|line| line.starts_with("mark ")).collect();
        let lost: Vec<&String> = texts
            .iter()
            .enumerate()
            .filter(|(n, _)| !seen.contains(format!("mark {n} ends").as_str()))
            .map(|(_, text)| text)
            .collect();
        assert!(lost.is_empty(), "{encoding} {standard}: these swallowed what follows: {lost:#?}");
    }
}
