//! DT-002: what was done is found again: who, what, where, when, across recordings, as it was written and as a screen showed
//! it; by those who may read it and by nobody else; and that somebody looked for it is on record.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

mod support;

use serde_json::{Value, json};
use support::calls::text;
use support::sshd::{ACCESS, HOST};
use support::{Bastion, Hosts, Options, Postgres, Terminal};

/// What a search as somebody finds, through the API.
fn search(bastion: &Bastion, who: &str, query: &str) -> Value {
    let (status, found) = bastion.api(Some(who), "GET", &format!("/pam/search?{query}"), None);
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["behind"], false, "{found}");
    found
}

/// Who, where, kind and excerpt of what compliance finds, newest first.
fn hits(bastion: &Bastion, query: &str) -> Vec<Value> {
    let found = search(bastion, "frank", query);
    assert_eq!(found["withheld"], false, "{found}");
    let hit = |hit: &Value| json!([hit["principal"]["name"], hit["target"], hit["kind"], hit["excerpt"]]);
    found["items"].as_array().unwrap().iter().map(hit).collect()
}

/// What the files alone give for the same question.
fn offline(bastion: &Bastion, arguments: &[&str]) -> Value {
    let dir = bastion.audit_dir();
    let mut all = vec!["audit", "search", "--json", "--audit-dir", dir.to_str().unwrap()];
    all.extend(arguments);
    bastion.operator(&all).success().json()
}

#[test]
fn statements_are_found_by_what_who_where_and_when() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant("alice", "ledger-dev", "dba", 3600, &[]);
    bastion.grant("olga", "ledger-uat", "dba", 3600, &["bob"]);
    bastion
        .psql(
            "alice",
            "ledger-dev",
            "CREATE TABLE payments (iban text);\nINSERT INTO   payments VALUES ('DE89370400440532013000')",
        )
        .success();
    bastion.ended_recording_with("CREATE TABLE payments");
    bastion.advance(3600 / 2);
    search(&bastion, "frank", "limit=1");
    let later = text(&bastion.events("searched").pop().unwrap()["at"]);
    bastion.psql("olga", "ledger-uat", "SELECT 'Quarterly Payments' AS headline").success();
    bastion.ended_recording_with("Quarterly");
    bastion.psql("olga", "ledger-uat", "SELECT 'x' || 1 / 0").failure();
    let driver = bastion.driver("olga", "ledger-uat");
    let (word, number) = ("bound-to-be-found", 4_711_815_i64);
    let query = async { driver.client.query_one("SELECT $1::text, $2::bigint", &[&word, &number]).await };
    driver.runtime.block_on(query).unwrap();

    let insert = "CREATE TABLE payments (iban text); INSERT INTO payments VALUES ('DE89370400440532013000')";
    let alices = json!(["alice", "ledger-dev", "statement", insert]);
    let olgas = json!(["olga", "ledger-uat", "statement", "SELECT 'Quarterly Payments' AS headline"]);
    assert_eq!(hits(&bastion, "text=PAYMENTS"), [olgas.clone(), alices.clone()]);
    assert_eq!(hits(&bastion, "text=insert+into+payments"), std::slice::from_ref(&alices));
    assert_eq!(hits(&bastion, "text=40044053201"), std::slice::from_ref(&alices));
    assert_eq!(hits(&bastion, "text=payments&principal=olga"), std::slice::from_ref(&olgas));
    assert_eq!(hits(&bastion, "text=payments&target=ledger-dev"), std::slice::from_ref(&alices));
    assert_eq!(hits(&bastion, &format!("text=payments&from={later}")), [olgas]);
    assert_eq!(hits(&bastion, &format!("text=payments&to={later}")), [alices]);
    assert_eq!(
        hits(&bastion, "text=bound-to-be"),
        [json!(["olga", "ledger-uat", "statement", "bound-to-be-found"])]
    );
    assert_eq!(hits(&bastion, "text=4711815"), [json!(["olga", "ledger-uat", "statement", "4711815"])]);
    assert_eq!(
        hits(&bastion, "text=division+by+zero"),
        [json!(["olga", "ledger-uat", "statement_end", "22012 division by zero"])]
    );
    assert_eq!(hits(&bastion, "text=nobody+wrote+this"), [] as [Value; 0]);

    // The files alone say the same, and so does the index after it was lost.
    let found = search(&bastion, "frank", "text=payments");
    assert_eq!(offline(&bastion, &["payments"]), found);
    let table = bastion.run_as("frank", &["search", "payments", "--principal", "alice"]).success();
    assert!(
        table.stdout.contains("DE89370400440532013000") && table.stderr.contains("→ sallyport replay con-"),
        "{table:?}"
    );
    let one = bastion.run_as("frank", &["search", "payments", "--limit", "1", "--json"]).success().json();
    assert_eq!((&one["items"][0], one["items"].as_array().unwrap().len()), (&found["items"][0], 1));
    let next = one["next"].to_string();
    let other =
        bastion.run_as("frank", &["search", "payments", "--before", &next, "--json"]).success().json();
    assert_eq!(other["items"], json!([found["items"][1]]));
    bastion.verify().success();
}

#[test]
fn an_index_that_is_lost_is_made_anew_from_the_log() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "frank"]);
    bastion.grant("alice", "ledger-dev", "dba", 3600, &[]);
    bastion.psql("alice", "ledger-dev", "SELECT 'needle'").success();
    bastion.ended_recording_with("needle");
    let found = search(&bastion, "frank", "text=needle");
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
    for damage in [b"".as_slice(), b"not a database, whatever it is that this is"] {
        bastion.kill();
        for suffix in ["-wal", "-shm"] {
            let _may_be_gone = std::fs::remove_file(bastion.data().join(format!("search.db{suffix}")));
        }
        std::fs::write(bastion.data().join("search.db"), damage).unwrap();
        bastion.boot();
        assert_eq!(search(&bastion, "frank", "text=needle"), found);
    }
}

#[test]
fn who_may_not_read_finds_nothing_and_every_search_is_on_record() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "bob", "erin", "frank"]);
    bastion.grant("alice", "ledger-dev", "dba", 3600, &[]);
    bastion.psql("alice", "ledger-dev", "SELECT 'needle'").success();
    bastion.ended_recording_with("needle");
    for who in ["alice", "bob", "erin"] {
        for text in ["needle", "nothing+of+the+kind"] {
            let found = search(&bastion, who, &format!("text={text}&target=ledger-dev"));
            assert_eq!(found, json!({ "items": [], "withheld": true, "behind": false }), "{who}");
        }
    }
    let (status, _) = bastion.api(None, "GET", "/pam/search?text=needle", None);
    assert_eq!(status, 401);
    let before = bastion.events("searched").len();
    assert_eq!(before, 6, "theirs too");
    let found = search(&bastion, "frank", "text=needle&principal=alice&kind=statement");
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let event = bastion.events("searched").pop().unwrap();
    assert_eq!(event["principal"]["name"], "frank");
    let detail =
        json!({ "text": "needle", "of": "alice", "kind": "statement", "hits": 1, "withheld": false });
    assert_eq!(event["detail"], detail);
    // What makes no sense is said.
    let (status, problem) = bastion.api(Some("frank"), "GET", "/pam/search?kind=nonsense", None);
    assert_eq!((status, &problem["code"]), (400, &json!("malformed")), "{problem}");
}

#[test]
fn terminals_are_searched_as_they_were_seen() {
    let hosts = Hosts::start_for(Options::default(), &["alice", "olga", "frank"]);
    hosts.grant();
    hosts.bastion.grant("olga", HOST, ACCESS, 3600, &[]);
    let shell = "PS1='at-work> ' exec bash --noprofile --norc -i";
    let mut terminal = Terminal::start(hosts.through("ssh", "alice", HOST).args(["-tt", "localhost", shell]));
    terminal.shows("at-work> ");
    // A word in colours, in two pieces; one that is corrected while it is typed; one on another screen.
    terminal.types("printf 'find-\\033[1;31mcol'; printf 'oured\\033[0m-word\\n'\r");
    terminal.shows("-word\r\n");
    terminal.types("echo misspelt\x7fled-right\r");
    terminal.shows("misspelled-right\r\n");
    terminal.types(
        "tput -T xterm smcup; printf '\\033[5;7Hon-the-other\\033[5;19H-screen'; tput -T xterm rmcup\r",
    );
    terminal.shows("-screen");
    terminal.types("exit\r");
    assert_eq!(terminal.finish().0, 0);
    hosts.run("echo plain-output; echo plain-error >&2");
    let olgas = hosts.through("ssh", "olga", HOST).args(["localhost", "echo olga-was-here"]).output();
    assert!(olgas.unwrap().status.success());
    hosts.ended(3);

    let found = |query: &str| hits(&hosts.bastion, query);
    let seen = |text: &str| json!(["alice", HOST, "output", text]);
    assert_eq!(found("text=find-coloured-word"), [seen("find-coloured-word")]);
    assert_eq!(
        found("text=echo+misspelled-right"),
        [seen("at-work> echo misspelled-right"), json!(["alice", HOST, "input", "echo misspelled-right"])]
    );
    assert_eq!(found("text=echo+misspelt"), [] as [Value; 0], "what was corrected");
    assert_eq!(found("text=on-the-other-screen"), [seen("      on-the-other-screen".trim())]);
    assert_eq!(found("text=plain-error&kind=output"), [seen("plain-error")]);
    assert_eq!(found("text=olga-was&kind=output"), [json!(["olga", HOST, "output", "olga-was-here"])]);
    assert_eq!(found("text=olga-was&kind=program"), [json!(["olga", HOST, "program", "echo olga-was-here"])]);
    for text in ["coloured", "misspelled", "plain", "other-screen"] {
        let found = search(&hosts.bastion, "frank", &format!("text={text}"));
        assert_eq!(offline(&hosts.bastion, &[text]), found, "{text}");
    }
}
