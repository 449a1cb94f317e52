//! Commands without a terminal: statuses, streams, environment.

use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use crate::support::process::{Running, wait_until};
use crate::way::{Case, NAME, Way, brief, fed, noise, same, seen};

const CASES: &[Case] = &[
    ("exit statuses are the command's", |way| {
        let statuses = [0, 1, 2, 7, 64, 77, 126, 127, 128, 130, 254, 255];
        statuses.map(|status| way.run(&format!("exit {status}")).gives(status, "")).join("\n")
    }),
    ("a program that is not there", |way| way.run("no-such-program-here").complains(127, "not found")),
    ("death by a signal", |way| {
        let signals = ["TERM", "KILL", "HUP", "INT", "USR1", "SEGV", "ABRT", "XCPU"];
        signals
            .map(|name| format!("{name} {}", way.run(&format!("kill -{name} $$")).gives(255, "")))
            .join("\n")
    }),
    ("standard error stays apart", |way| {
        let seen = way.run("for n in 1 2 3 4 5 6 7 8 9; do echo out$n; echo err$n >&2; done; exit 3");
        assert_eq!((seen.stdout.len(), seen.stderr.len()), (45, 45), "{seen}");
        seen.complains(3, "err9\n")
    }),
    ("much on standard error", |way| {
        let seen = way.run("yes error | head -c 3000000 >&2; yes out | head -c 3000000");
        assert_eq!((seen.stdout.len(), seen.stderr.len()), (3_000_000, 3_000_000), "{seen}");
        seen.success().to_string()
    }),
    ("no output at all", |way| way.run("true").gives(0, "")),
    ("an empty command is a shell", |way| {
        fed(&mut way.ssh(&[NAME, ""]), b"echo shell\n".into()).gives(0, "shell\n")
    }),
    ("standard input to its end, then output", |way| {
        fed(&mut way.ssh(&[NAME, "cat; echo done"]), b"in\n".into()).gives(0, "in\ndone\n")
    }),
    ("every byte both ways", |way| {
        let bytes: Vec<u8> = (0..=255).cycle().take(256 * 1000 + 7).collect();
        fed(&mut way.ssh(&[NAME, "cat"]), bytes.clone()).gives(0, bytes)
    }),
    ("every byte on standard error", |way| {
        let bytes: Vec<u8> = (0..=255).cycle().take(256 * 100 + 7).collect();
        let seen = fed(&mut way.ssh(&[NAME, "cat >&2"]), bytes.clone());
        assert!(seen.stderr == bytes, "{seen}");
        seen.to_string()
    }),
    ("50 MB in", |way| {
        let bytes = noise(50_000_000, 1);
        let sum = format!("{}  -\n", crate::way::sha256(&bytes));
        fed(&mut way.ssh(&[NAME, "sha256sum"]), bytes).gives(0, sum)
    }),
    ("50 MB out", |way| {
        let seen = way.run("yes 0123456789abcdef | head -c 50000000").success();
        assert_eq!(seen.stdout.len(), 50_000_000);
        brief(&seen.stdout)
    }),
    ("50 MB both ways at once", |way| {
        let bytes = noise(50_000_000, 2);
        fed(&mut way.ssh(&[NAME, "cat"]), bytes.clone()).gives(0, bytes)
    }),
    ("a program that stops reading", |way| {
        fed(
            &mut way.ssh(&[NAME, "head -c 10; echo; exec 0<&-; echo still here"]),
            noise(10_000_000, 3).repeat(1),
        )
        .status
    }),
    ("a program that closes its output and goes on", |way| {
        way.run("echo first; exec 1>&- 2>&-; sleep 0.3; exit 9").gives(9, "first\n")
    }),
    ("variables that are let through, and others", |way| {
        let mut command = way.ssh(&["-o", "SendEnv=LC_ALL LC_MARK FOO", NAME]);
        command.arg("echo \"[$LC_ALL] [$LC_MARK] [$FOO]\"");
        command.env("LC_ALL", "C.UTF-8").env("LC_MARK", "a b\"c' ü").env("FOO", "no");
        seen(&mut command).gives(0, "[C.UTF-8] [a b\"c' ü] []\n")
    }),
    ("variables set by option", |way| {
        let arguments = ["-o", "SetEnv=LC_MARK=set FOO=no", NAME, "echo \"[$LC_MARK] [$FOO]\""];
        seen(&mut way.ssh(&arguments)).gives(0, "[set] []\n")
    }),
    ("the names of all variables", |way| way.run("env | cut -d= -f1 | sort").success().to_string()),
    ("-n leaves standard input alone", |way| {
        fed(&mut way.ssh(&["-n", NAME, "cat; echo end"]), b"unread\n".into()).gives(0, "end\n")
    }),
    ("a script to a shell without a terminal", |way| {
        let script =
            "shopt -q login_shell && echo login\necho $-\nread line\nthe line\necho \"$line\" >&2\nexit 5\n";
        fed(&mut way.ssh(&["-T", NAME]), script.into()).complains(5, "the line")
    }),
    ("a long command", |way| {
        let long = "x".repeat(100_000);
        way.run(&format!("printf %s {long} | wc -c")).gives(0, "100000\n")
    }),
    ("a command of several lines, with bytes that are no text", |way| {
        let mut command = way.ssh(&[NAME]);
        command
            .arg(std::ffi::OsStr::from_bytes(b"printf '%s' '\xff\xfe \"q\" $HOME'\nprintf ' ; ' \\\n end"));
        seen(&mut command).gives(0, b"\xff\xfe \"q\" $HOME ;  end".as_slice().strip_suffix(b" end").unwrap())
    }),
    ("output after the shell has ended", |way| {
        way.run("(sleep 0.4; echo late) & echo early; exit 3").gives(3, "early\nlate\n")
    }),
    ("a background job that holds nothing", |way| {
        way.run("sleep 20 </dev/null >/dev/null 2>&1 & echo gone").gives(0, "gone\n")
    }),
    ("a client that is killed ends the program's input", |way| {
        let mark = way.place("ended");
        let mut command = way.ssh(&[NAME, &format!("echo up; cat; touch {mark}")]);
        let mut client = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut up = [0; 3];
        std::io::Read::read_exact(client.child().stdout.as_mut().unwrap(), &mut up).unwrap();
        drop(client);
        wait_until("the program has ended", || way.path("ended").exists());
        "ended".into()
    }),
    ("-f goes to the background", |way| {
        let mark = way.place("made");
        let mut command = way.ssh(&["-f", NAME, &format!("touch {mark}")]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        wait_until("the command has run", || way.path("made").exists());
        status.to_string()
    }),
    ("a subsystem that is not there", |way| {
        seen(&mut way.ssh(&["-s", NAME, "no-such-thing"])).complains(255, "subsystem request failed")
    }),
    ("a quiet session with keepalives of the client's", |way| {
        let options = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"];
        seen(way.ssh(&options).args([NAME, "sleep 4; echo awake"])).gives(0, "awake\n")
    }),
    ("compression is asked for", |way| {
        fed(&mut way.ssh(&["-C", NAME, "cat"]), vec![b'x'; 100_000]).gives(0, vec![b'x'; 100_000])
    }),
    ("ciphers, new and old", |way| {
        let ciphers = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];
        let old = ["aes128-ctr", "aes256-ctr"];
        let all = ciphers.iter().chain(&old);
        let all = all.map(|cipher| {
            let bytes = noise(300_000, 4);
            fed(&mut way.ssh(&["-c", cipher, NAME, "cat"]), bytes.clone()).gives(0, bytes)
        });
        all.collect::<Vec<_>>().join("\n")
    }),
    ("key exchanges", |way| {
        ["curve25519-sha256", "curve25519-sha256@libssh.org"]
            .map(|kex| {
                seen(&mut way.ssh(&["-o", &format!("KexAlgorithms={kex}"), NAME, "echo ok"])).gives(0, "ok\n")
            })
            .join("\n")
    }),
];

#[test]
fn a_command_does_through_the_gateway_what_it_does_directly() {
    let mut hosts = crate::hosts();
    // The host asks now and then whether its client is there: our leg has to answer.
    hosts.sshd.configure("ClientAliveInterval 1\nClientAliveCountMax 1");
    hosts.sshd.restart();
    same(&hosts, CASES);
    hosts.bastion.verify().success();
}

#[test]
fn a_client_that_knows_the_gateway_by_its_key_needs_no_authority() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let key = std::fs::read_to_string(hosts.bastion.data().join("ssh/host_ed25519.pub")).unwrap();
    let known = way.path("known");
    std::fs::write(&known, format!("[localhost]:{} {key}", hosts.bastion.ssh_port)).unwrap();
    let known = format!("UserKnownHostsFile={}", known.display());
    let arguments = ["-o", &known, "-o", "HostKeyAlgorithms=ssh-ed25519", NAME, "echo ok"];
    seen(&mut way.ssh(&arguments)).gives(0, "ok\n");
}
