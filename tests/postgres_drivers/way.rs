//! The two ways to one database, and the comparison of what a client sees on each.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::process::{PATIENCE, Running, wait_for};
use crate::support::{Bastion, Finished, Options, Postgres};

const ROLE: &str = "CREATE ROLE direct LOGIN PASSWORD 'past the gateway' IN ROLE ledger_owner";
/// The target's log names every statement, with no more of its parameters than fits a line.
const LOGGED: [&str; 3] = ["log_statement=all", "log_line_prefix=%u|", "log_parameter_max_length=100"];
/// A longer statement is recorded in parts; it is compared where it is tested.
const LONGEST_COMPARED: usize = 8_000;

/// Where a script's client connects to, and as whom.
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) ca_file: PathBuf,
}

pub(crate) struct Ways {
    pub(crate) postgres: Postgres,
    pub(crate) bastion: Bastion,
}

/// What a script says, for two runs to be compared.
#[derive(Default)]
pub(crate) struct Said(pub(crate) String);

impl Said {
    pub(crate) fn show(&mut self, name: &str, value: impl Debug) {
        let text = format!("{value:?}");
        let text = if text.len() > 2_000 { format!("{} bytes of it", text.len()) } else { text };
        _ = writeln!(self.0, "{name}: {text}");
    }
}

/// The directory with the scripts.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres_drivers")
}

impl Ways {
    pub(crate) fn open() -> Self {
        let postgres = Postgres::start_with(&LOGGED);
        postgres.query("ledger", ROLE).success();
        let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
        bastion.ask("alice", "ledger-dev", "dba", 3600);
        // The session's role comes into being with the first connection.
        bastion.psql("alice", "ledger-dev", "SELECT 1").success();
        Self { postgres, bastion }
    }

    /// The direct way, and that through the gateway.
    fn places(&self) -> [Place; 2] {
        let direct = Place {
            port: self.postgres.port,
            user: "direct".to_owned(),
            password: "past the gateway".to_owned(),
            ca_file: self.postgres.ca_file(),
        };
        let gateway = Place {
            port: self.bastion.postgres_port,
            user: "alice+ledger-dev".to_owned(),
            password: self.bastion.token("alice"),
            ca_file: self.bastion.ca_file(),
        };
        [direct, gateway]
    }

    /// Runs `command` on both ways, which it finds in its environment as libpq does.
    #[track_caller]
    pub(crate) fn the_same(&self, command: impl Fn() -> Command) {
        let [direct, proxied] = self.places().map(|place| self.run(&command(), &place).success());
        same(&direct.stderr, &proxied.stderr);
        self.compare(&direct.stdout, &proxied.stdout);
    }

    /// As [`Self::the_same`], in this process.
    #[track_caller]
    pub(crate) fn the_same_here(&self, script: impl Fn(&Place) -> String) {
        let [direct, proxied] = self.places().map(|place| script(&place));
        self.compare(&direct, &proxied);
    }

    #[track_caller]
    fn compare(&self, direct: &str, proxied: &str) {
        same(direct, proxied);
        assert!(!direct.is_empty(), "the script says nothing");
        self.bastion.verify().success();
        self.record_is_complete();
    }

    fn run(&self, client: &Command, place: &Place) -> Finished {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(client.get_program()).args(client.get_args());
        command.envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PGHOST", "localhost").env("PGPORT", place.port.to_string());
        command.env("PGUSER", &place.user).env("PGPASSWORD", &place.password).env("PGDATABASE", "ledger");
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &place.ca_file);
        command.env("PGCHANNELBINDING", "require").env("PYTHONDONTWRITEBYTECODE", "1").env("TZ", "UTC");
        let output = |name: &str| self.bastion.scratch().join(name);
        let file = |name: &str| fs::File::create(output(name)).unwrap();
        command.env("HOME", self.bastion.scratch()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let mut running = Running::start(command.stdout(file("stdout")).stderr(file("stderr")));
        wait_for("the script ends", PATIENCE * 4, || !running.is_running());
        let read = |name: &str| String::from_utf8_lossy(&fs::read(output(name)).unwrap()).into_owned();
        Finished { status: running.finish().status, stdout: read("stdout"), stderr: read("stderr") }
    }

    /// The parameters of each execution of `sql`, in order.
    pub(crate) fn executions(&self, sql: &str) -> Vec<Vec<Value>> {
        let is_it = |record: &Value| record["how"] == "extended" && record["sql"] == sql;
        let statements = self.bastion.statements();
        statements.iter().filter(|record| is_it(record)).map(parameters).collect()
    }

    /// What the target logged of a session's statements is on record, as often as it was executed.
    #[track_caller]
    fn record_is_complete(&self) {
        let mut left = BTreeMap::<String, usize>::new();
        let logged = logged(&self.postgres.log());
        assert!(logged.len() > 20, "the target has logged {} statements", logged.len());
        for sql in logged.into_iter().filter(|sql| sql.len() < LONGEST_COMPARED) {
            *left.entry(sql).or_default() += 1;
        }
        let mut by_bytes = 0;
        for record in self.bastion.statements().iter().filter(|record| record["how"] != "prepare") {
            // What a client with another encoding sends is recorded by its bytes; the target logs its meaning.
            by_bytes += usize::from(record["b64"].is_string());
            let count = record["sql"].as_str().and_then(|sql| left.get_mut(sql.trim_end()));
            if let Some(count) = count {
                *count = count.saturating_sub(1);
            }
        }
        left.retain(|_, count| *count > 0);
        let is_text = left.keys().any(|sql| sql.is_ascii());
        assert!(
            !is_text && left.values().sum::<usize>() <= by_bytes,
            "not recorded as often as executed: {left:#?}"
        );
    }
}

/// Text, `true` for NULL, or base64.
fn parameters(record: &Value) -> Vec<Value> {
    let form = |parameter: &Value| {
        let forms = ["text", "b64", "null"].map(|form| parameter[form].clone());
        forms.into_iter().find(|form| !form.is_null()).unwrap()
    };
    record["params"].as_array().map(|each| each.iter().map(form).collect()).unwrap_or_default()
}

/// The statements of session roles in the server's log; lines after the first begin with a tab.
fn logged(log: &str) -> Vec<String> {
    let mut statements = Vec::<String>::new();
    let mut is_statement = false;
    for line in log.lines() {
        if let Some(more) = line.strip_prefix('\t') {
            if let Some(last) = statements.last_mut().filter(|_| is_statement) {
                *last += "\n";
                *last += more;
            }
            continue;
        }
        let said = line.strip_prefix("sp_").and_then(|line| line.split_once("|LOG:  "));
        let sql = said.and_then(|(_, said)| {
            let execute = || said.strip_prefix("execute ")?.split_once(": ").map(|(_, sql)| sql);
            said.strip_prefix("statement: ").or_else(execute)
        });
        is_statement = sql.is_some();
        statements.extend(sql.map(str::to_owned));
    }
    // What ends a statement may be cut from its last line.
    statements.iter().map(|sql| sql.trim_end().to_owned()).collect()
}

#[track_caller]
fn same(direct: &str, proxied: &str) {
    let mut lines = direct.lines().zip(proxied.lines());
    let differing = lines.find(|(direct, proxied)| direct != proxied);
    assert_eq!(differing, None, "directly, and through the gateway");
    assert_eq!(direct.lines().count(), proxied.lines().count(), "directly: {direct}\nproxied: {proxied}");
}
