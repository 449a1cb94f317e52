//! A bastion with a database and a host behind it, and people who work there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::bastion::{Granted, target};
use crate::support::calls::text;
use crate::support::sshd::{HOST, OPEN};
use crate::support::{Bastion, Finished, Hosts, Options, Postgres, Sshd, wait_until};

/// A reason that a spreadsheet would run, if it were let.
pub(crate) const FORMULA: &str = "=HYPERLINK(\"http://example.com\",\"why\"), then\nsome";

/// A bastion with a database and a host behind it.
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) hosts: Hosts,
}

impl World {
    pub(crate) fn start(people: &[&str]) -> Self {
        Self::with_rules(people, None)
    }

    /// With a rule of the operator's own beside the usual ones.
    pub(crate) fn with_rules(people: &[&str], rule: Option<&str>) -> Self {
        let postgres = Postgres::start();
        let mut bastion = Bastion::prepare_hosts(None, Options::default());
        let authority = fs::read_to_string(bastion.data().join("ssh/login_ca.pub")).unwrap();
        let sshd = Sshd::start(&authority);
        let database =
            |name, environment| target(name, environment, "bank-core", &postgres, bastion.scratch());
        let targets = sshd.target(HOST, "dev", OPEN)
            + &database("ledger-dev", "dev")
            + &database("ledger-prod", "prod");
        bastion.set_targets(&targets);
        if let Some(rule) = rule {
            install(rule, &bastion);
        }
        bastion.boot();
        for name in people {
            bastion.log_in(name).success();
        }
        Self { postgres, hosts: Hosts { bastion, sshd } }
    }

    pub(crate) fn bastion(&self) -> &Bastion {
        &self.hosts.bastion
    }

    /// What an export gives, as somebody.
    #[track_caller]
    pub(crate) fn export(&self, who: &str, format: &str, rest: &[&str]) -> String {
        let arguments = [&["export", "--format", format], rest].concat();
        self.bastion().run_as(who, &arguments).success().stdout
    }

    /// As JSON lines.
    #[track_caller]
    pub(crate) fn export_lines(&self, who: &str, format: &str, rest: &[&str]) -> Vec<Value> {
        let lines = self.export(who, format, rest);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    pub(crate) fn register(&self, who: &str, format: &str, rest: &[&str]) -> Vec<BTreeMap<String, String>> {
        read_csv(&self.export(who, format, rest))
    }

    /// Alice at work on the development database: what succeeds and what does not.
    pub(crate) fn work(&self) -> Granted {
        let bastion = self.bastion();
        let ask =
            ["request", "ledger-dev", "dba", "--for", "1h", "--reason", FORMULA, "--ticket", "+1", "--json"];
        let asked = bastion.run_as("alice", &ask).success().json();
        let granted =
            Granted { request: text(&asked["request"]["id"]), session: text(&asked["session"]["id"]) };
        let mut command = bastion.psql_command("alice", "ledger-dev", &["-v", "ON_ERROR_STOP=0"]);
        for statement in [
            "CREATE TABLE t (id int PRIMARY KEY, name text, data bytea)",
            "INSERT INTO t VALUES (1, 'é ß 漢字 🏦 it''s', NULL), (2, E'tab\\there', NULL)",
            "INSERT INTO t VALUES (1, 'again', NULL)",
            "DO $body$ BEGIN INSERT INTO t VALUES (3, $$; -- 'not closed$$, NULL); END $body$",
            "SELECT count(*) FROM t -- it's",
            "BEGIN",
            "INSERT INTO t VALUES (4, 'rolled back', NULL)",
            "SELECT 1 / 0",
            "COMMIT",
        ] {
            command.args(["-c", statement]);
        }
        Finished::from(command.output().unwrap()).says("division by zero");
        let mut copy = bastion.psql_command("alice", "ledger-dev", &["-c", "COPY t (id, name) FROM STDIN"]);
        let mut child =
            copy.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"100\tcopied\n").unwrap();
        Finished::from(child.wait_with_output().unwrap()).success();
        bastion.ended_recording_with("COPY t");
        granted
    }

    /// A driver's statements: with parameters, and with texts that try to get out of a file.
    pub(crate) fn drive(&self, mark: &Path) {
        let driver = self.bastion().driver("alice", "ledger-dev");
        let escape = format!("SELECT '\\'; \\! touch {} #", mark.display());
        driver.runtime.block_on(async {
            let client = &driver.client;
            let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3)").await.unwrap();
            let odd = "o'hara; -- \\! touch x\n\u{202e}end";
            client.execute(&insert, &[&5_i32, &odd, &&[0_u8, 255, 10][..]]).await.unwrap();
            let none: Option<&str> = None;
            client.execute(&insert, &[&6_i32, &none, &None::<&[u8]>]).await.unwrap();
            client.query("UPDATE t SET name = name || $1 WHERE id = $2", &[&"!", &1_i32]).await.unwrap();
            client.simple_query("SET standard_conforming_strings = off").await.unwrap();
            // Whole to this server, and a command of psql's to one with the usual setting.
            client.simple_query(&format!("{escape}'")).await.unwrap();
            client.simple_query("INSERT INTO t VALUES (7, 'after', NULL) \n;\n-- \\q").await.unwrap();
        });
        drop(driver);
        self.bastion().ended_recording_with("touch");
    }

    /// Alice on the host: a terminal, a file, a forward.
    pub(crate) fn at_host(&self) -> String {
        let hosts = &self.hosts;
        hosts.grant();
        hosts.through("ssh", "alice", HOST).args(["-tt", "localhost", "echo shown"]).output().unwrap();
        let put =
            format!("put {} {}\n", self.bastion().config_file().display(), hosts.sshd.path("put").display());
        let batch = self.bastion().scratch().join("batch");
        fs::write(&batch, put).unwrap();
        let mut sftp = hosts.through("sftp", "alice", HOST);
        Finished::from(sftp.arg("-b").arg(&batch).arg("localhost").output().unwrap()).success();
        let to = format!("127.0.0.1:{}", hosts.sshd.port);
        let forwarded = hosts.through("ssh", "alice", HOST).args(["-W", &to, "localhost"]).output().unwrap();
        Finished::from(forwarded).says("SSH-2.0");
        wait_until("all recordings have ended", || {
            hosts.records("ended").len() == hosts.records("opened").len()
        });
        let terminal = hosts.records("pty").remove(0);
        text(&terminal["rec"])
    }
}

/// Puts a rule beside those that Sallyport comes with.
pub(crate) fn install(rule: &str, bastion: &Bastion) {
    let directory = bastion.data().join("policies");
    fs::create_dir_all(&directory).unwrap();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/policies")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|extension| extension != "md") {
            fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
        }
    }
    fs::write(directory.join("own.cedar"), rule).unwrap();
    let config = bastion.config_file();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("[policies]\ndirectory = \"policies\"\n\n{text}")).unwrap();
}

/// Reads CSV as another program does, strictly: every row has every cell.
pub(crate) fn read_csv(csv: &str) -> Vec<BTreeMap<String, String>> {
    const READ: &str = "import csv, io, json, sys\n\
        rows = csv.DictReader(io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8', newline=''), strict=True)\n\
        rows = list(rows)\n\
        assert all(None not in row and None not in row.values() for row in rows), rows\n\
        print(json.dumps(rows))";
    assert!(csv.ends_with("\r\n"), "{csv}");
    let mut python = Command::new("python3");
    let mut child = python.args(["-c", READ]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(csv.as_bytes()).unwrap();
    let read = Finished::from(child.wait_with_output().unwrap()).success();
    serde_json::from_str(&read.stdout).unwrap()
}
