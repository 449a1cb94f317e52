use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::support::process::Running;
use super::support::sshd::HOST;
use super::support::{Finished, Terminal, wait_until};
use super::{Jumps, find};

#[test]
fn every_client_of_openssh_jumps_and_both_connections_are_on_record() {
    let jumps = Jumps::start();
    let finished = jumps.run(&[HOST, "echo out; exit 7"]);
    assert_eq!((finished.code(), finished.stdout.as_str()), (7, "out\n"), "{finished:?}");
    // By the name with its environment, whatever the user inside is called.
    jumps.run(&["web-1.dev", "true"]).success();
    jumps.run(&["anybody@web-1", "true"]).success();
    jumps.run(&["alice+web-1+deploy@web-1", "true"]).success();
    jumps.run(&["-p", &jumps.hosts.sshd.port.to_string(), HOST, "true"]).success();
    jumps.run(&["-p", &jumps.solo.port.to_string(), "127.0.0.1", "true"]).success();

    let (from, to) = (jumps.path("from"), jumps.path("to"));
    fs::write(&from, "some bytes").unwrap();
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let remote = format!("{HOST}:{to}");
    let batch = jumps.path("batch");
    fs::write(&batch, format!("put {from} {to}\n")).unwrap();
    let copy = |program: &str, options: &[&str], places: &[&str]| {
        let mut command = jumps.client(program);
        command.args(["-q", "-J", "gateway"]).args(options).args(places);
        command
    };
    let shell = format!("ssh -F {} -J gateway", jumps.path("config").display());
    let mut rsync = Command::new("rsync");
    rsync.args(["-e", &shell, "--ignore-times", from, &remote]);
    let copies = [
        copy("scp", &[], &[from, &remote]),
        copy("scp", &["-O"], &[from, &remote]),
        copy("sftp", &["-b", batch.to_str().unwrap()], &[HOST]),
        rsync,
    ];
    for mut command in copies {
        let finished = Finished::from(command.output().unwrap());
        assert_eq!(finished.code(), 0, "{command:?}: {finished:?}");
        assert_eq!(fs::read_to_string(to).unwrap(), "some bytes", "{command:?}");
        fs::remove_file(to).unwrap();
    }

    let opened = jumps.hosts.records("opened");
    assert_eq!(opened.len(), 10);
    for record in &opened {
        assert_eq!(find(record, "name").unwrap(), "alice", "{record}");
        let outer = &record["client_ssh"]["jump"];
        assert_eq!(
            (&record["client_ssh"]["auth"], &outer["auth"]),
            (&outer["auth"], &record["client_ssh"]["auth"])
        );
        assert_eq!(outer["auth"], "certificate", "{record}");
        assert!(outer["software"].as_str().unwrap().contains("OpenSSH"), "{record}");
    }
    assert_eq!(opened[5]["target"], "solo");
    wait_until("every recording has its end", || jumps.hosts.bastion.events("connection_ended").len() == 10);
    jumps.hosts.bastion.verify().success();
}

#[test]
fn a_configuration_makes_it_plain_ssh_and_muxes_go_through_one_another() {
    let jumps = Jumps::start();
    let sockets = jumps.path("mux");
    fs::create_dir(&sockets).unwrap();
    let own = format!(
        "Host web-1\nProxyJump gateway\n\nHost web-1 gateway\nControlMaster auto\nControlPersist yes\n\
         ControlPath {}/%n\n",
        sockets.display()
    );
    jumps.configure("alice", &own);
    for text in ["one", "two", "three"] {
        let output = jumps.client("ssh").args([HOST, &format!("echo {text}")]).output().unwrap();
        assert_eq!(Finished::from(output).success().stdout, format!("{text}\n"));
    }
    assert_eq!(jumps.hosts.records("opened").len(), 1, "one connection inside");
    assert_eq!(jumps.hosts.records("program").len(), 3, "and three channels");
    // A second jump through the master that is there.
    jumps
        .client("ssh")
        .args(["-J", "gateway", "solo", "true"])
        .output()
        .map(Finished::from)
        .unwrap()
        .success();
    // The outer master goes, and with it what it carries.
    for host in ["gateway", HOST] {
        let output = jumps.client("ssh").args(["-O", "exit", host]).output().unwrap();
        assert!(host == HOST || output.status.success(), "{host}: {output:?}");
    }
    wait_until("both recordings have their ends", || {
        jumps.hosts.bastion.events("connection_ended").len() == 2
    });
}

/// One connection to the gateway may carry all three: a jump, a pick from the list, and another list.
#[test]
fn a_jump_goes_on_when_its_connection_becomes_a_hosts() {
    let jumps = Jumps::start();
    let socket = jumps.path("outer");
    jumps.configure("alice", &format!("Host gateway\nControlPath {}\n", socket.display()));
    let mut master = jumps.client("ssh");
    let _master = Running::start(master.args(["-M", "-N", "gateway"]));
    wait_until("the master is there", || socket.exists());
    let mut jumped = jumps.client("ssh");
    jumped.args(["-J", "gateway", "solo", "read line; echo $line"]);
    let mut jumped = Running::start(jumped.stdin(Stdio::piped()).stdout(Stdio::piped()));
    wait_until("the jump is there", || jumps.hosts.records("program").len() == 1);

    let list = || {
        let mut command = jumps.client("ssh");
        command.args(["-tt", "gateway"]);
        Terminal::start(&command)
    };
    let (mut other, mut picked) = (list(), list());
    other.shows("host: ");
    picked.answers("host: ", HOST);
    picked.types("echo in-$((6*7)); exit\r");
    picked.shows("in-42");
    assert_eq!(picked.finish().0, 0);
    other.types(&format!("{HOST}\r"));
    other.shows("your session has come on another channel: open this one again");
    assert_eq!(other.finish().0, 75);
    jumped.child().stdin.take().unwrap().write_all(b"still there\n").unwrap();
    assert_eq!(jumped.finish().success().stdout, "still there\n");
}

#[test]
fn raw_bytes_reach_a_host_as_ssh_speaks_and_no_other() {
    let jumps = Jumps::start();
    let mut command = jumps.client("ssh");
    command.args(["-W", "web-1:22", "gateway"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(&mut command);
    let mut banner = String::new();
    BufReader::new(running.child().stdout.take().unwrap()).read_line(&mut banner).unwrap();
    assert_eq!(banner, "SSH-2.0-Sallyport\r\n");
}

#[test]
fn a_jump_to_nowhere_or_without_a_session_says_what_to_do() {
    let jumps = Jumps::start();
    let port = jumps.hosts.sshd.port.to_string();
    for (arguments, told, code) in [
        (&["nowhere", "true"][..], "there is no SSH target `nowhere`, port 22", "unknown_target"),
        (&["-p", "2", HOST, "true"], "there is no SSH target `web-1`, port 2", "unknown_target"),
        (
            &["-p", &port, "127.0.0.1", "true"],
            "is the address of several targets: name one of",
            "ambiguous_target",
        ),
    ] {
        let finished = jumps.run(arguments);
        assert_eq!(finished.code(), 255, "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(told), "{arguments:?}: {finished:?}");
        let refused = jumps.hosts.bastion.events("connection_refused").pop().unwrap();
        assert_eq!(find(&refused, "code").unwrap(), code, "{refused}");
        assert_eq!(find(&refused, "name").unwrap(), "alice", "{refused}");
    }
    let finished = jumps.run(&["web-closed", "true"]);
    assert_eq!(finished.code(), 77, "{finished:?}");
    finished.says("sallyport request web-closed deploy --reason");
    // And a gateway with a certificate of somebody else's is not believed.
    let known = jumps.path("strangers");
    let stranger = fs::read_to_string(jumps.hosts.sshd.path("direct.pub")).unwrap();
    fs::write(&known, format!("@cert-authority * {stranger}")).unwrap();
    jumps.configure("alice", &format!("Host web-1\nUserKnownHostsFile {}\n", known.display()));
    let finished = jumps.run(&[HOST, "true"]);
    assert_eq!(finished.code(), 255, "{finished:?}");
    finished.says("Host key verification failed");
}
