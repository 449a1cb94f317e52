//! Several sessions over one connection: `ControlMaster`.

use std::process::Stdio;

use crate::support::postgres::free_port;
use crate::support::process::{Running, wait_until};
use crate::way::{Case, NAME, Seen, Way, fed, noise, same, seen};

/// A master, and a control command's or a session's answer through it.
struct Master<'a> {
    way: &'a Way<'a>,
    client: Running,
}

impl<'a> Master<'a> {
    fn start(way: &'a Way<'a>) -> Self {
        let options = ["-M", "-N", "-S", &way.place("control"), NAME];
        let client = Running::start(way.ssh(&options).stderr(Stdio::null()));
        wait_until("the master is there", || way.path("control").exists());
        Self { way, client }
    }

    fn ssh(&self, arguments: &[&str]) -> std::process::Command {
        let mut ssh = self.way.ssh(&["-S", &self.way.place("control")]);
        ssh.args(arguments);
        ssh
    }

    fn run(&self, arguments: &[&str]) -> Seen {
        seen(&mut self.ssh(arguments))
    }
}

const CASES: &[Case] = &[
    ("sessions one after another", |way| {
        let master = Master::start(way);
        let shown = [0, 3, 255].map(|status| {
            master.run(&[NAME, &format!("echo {status}; exit {status}")]).gives(status, format!("{status}\n"))
        });
        shown.join("\n")
    }),
    ("sessions beside each other", |way| {
        let master = Master::start(way);
        let mut waits =
            Running::start(master.ssh(&[NAME, "cat; echo end"]).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let shown = fed(&mut master.ssh(&[NAME, "cat"]), noise(3_000_000, 41)).gives(0, noise(3_000_000, 41));
        drop(waits.child().stdin.take());
        assert_eq!(waits.finish().stdout, "end\n");
        shown
    }),
    ("100 at a time", |way| {
        let master = Master::start(way);
        let start = |n: usize| {
            let line = format!("read -r x; echo {n} $x; exit {n}");
            Running::start(
                master
                    .ssh(&[NAME, &line])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped()),
            )
        };
        let mut all: Vec<_> = (0..100).map(start).collect();
        for client in &mut all {
            std::io::Write::write_all(client.child().stdin.as_mut().unwrap(), b"go\n").unwrap();
        }
        let end = |(n, client): (usize, Running)| {
            let finished = client.finish();
            assert_eq!(
                (finished.code(), finished.stdout),
                (i32::try_from(n).unwrap(), format!("{n} go\n")),
                "{}",
                finished.stderr
            );
        };
        all.into_iter().enumerate().for_each(end);
        "100".into()
    }),
    ("-O check, forward, cancel, exit", |way| {
        let mut master = Master::start(way);
        let (local, remote, target) = (free_port(), free_port(), way.hosts.sshd.port);
        let pid = master.client.pid().to_string();
        let plain = |seen: Seen| seen.to_string().replace(&pid, "PID");
        let mut said = vec![plain(master.run(&["-O", "check", NAME]))];
        let greets = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        for (option, port) in [("-L", local), ("-R", remote)] {
            let forward = format!("{port}:127.0.0.1:{target}");
            said.push(plain(master.run(&["-O", "forward", option, &forward, NAME])));
            wait_until("the forward is there", || greets(port));
            said.push(plain(master.run(&["-O", "cancel", option, &forward, NAME])));
            wait_until("the forward is gone", || !greets(port));
        }
        said.push(plain(master.run(&["-O", "exit", NAME])));
        wait_until("the master has ended", || !master.client.is_running());
        said.join("\n")
    }),
    ("one session that dies leaves the others", |way| {
        let master = Master::start(way);
        let mut lives = Running::start(
            master.ssh(&[NAME, "cat; echo lived"]).stdin(Stdio::piped()).stdout(Stdio::piped()),
        );
        let shown = master.run(&[NAME, "kill -KILL $$"]).gives(255, "");
        let killed = Running::start(master.ssh(&[NAME, "sleep 600"]).stdout(Stdio::null()));
        drop(killed);
        drop(lives.child().stdin.take());
        assert_eq!(lives.finish().stdout, "lived\n");
        master.run(&[NAME, "echo on"]).gives(0, "on\n") + &shown
    }),
    ("a master of its own accord, which stays", |way| {
        let options = ["-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-S", &way.place("control")];
        let run = |line: &str| fed(way.ssh(&options).args([NAME, line]).stderr(Stdio::null()), Vec::new());
        let mut first = way.ssh(&options);
        // The master keeps the first one's standard error: nobody here waits for its end.
        let status =
            first.args([NAME, "exit 4"]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let second = run("echo second; exit 5").gives(5, "second\n");
        seen(way.ssh(&["-S", &way.place("control")]).args(["-O", "exit", NAME])).success();
        format!("{status} {second}")
    }),
];

#[test]
fn one_connection_carries_many_sessions_through_the_gateway_as_it_does_directly() {
    let hosts = crate::hosts();
    same(&hosts, CASES);
    hosts.bastion.verify().success();
}

/// Directly, the host's process for the connection is one; here each session has its own.
#[test]
fn a_target_that_ends_one_sessions_connection_leaves_the_others_of_the_master() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let master = Master::start(&way);
    let mut lives =
        Running::start(master.ssh(&[NAME, "cat; echo lived"]).stdin(Stdio::piped()).stdout(Stdio::piped()));
    // The parent of a session's shell is the process that has its connection.
    let died = master.run(&[NAME, "kill -KILL $PPID; sleep 600"]);
    assert_eq!(died.status, "exit status: 255", "{died}");
    drop(lives.child().stdin.take());
    assert_eq!(lives.finish().stdout, "lived\n");
    assert_eq!(hosts.records("opened").len(), 1);
}
