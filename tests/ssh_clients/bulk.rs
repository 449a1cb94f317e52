//! Much data: through changes of keys, to readers that pause, past programs that do not read.

use std::io::{Read as _, Write as _};
use std::process::{ChildStdout, Command, Stdio};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

use crate::support::process::{Running, wait_until};
use crate::way::{Case, NAME, Seen, Way, brief, fed, noise, same, seen};

const MIB: usize = 1024 * 1024;

/// One that both hosts have: by default each would take its best, and one of them takes longer.
const KEX: &str = "-oKexAlgorithms=curve25519-sha256";

const CASES: &[Case] = &[
    ("64 MB in with a change of keys each megabyte", |way| {
        let bytes = noise(64 * MIB, 11);
        let sum = format!("{}  -\n", crate::way::sha256(&bytes));
        fed(&mut way.ssh(&["-o", "RekeyLimit=1M", KEX, NAME, "sha256sum"]), bytes).gives(0, sum)
    }),
    ("64 MB out with a change of keys each megabyte", |way| {
        let seen =
            seen(&mut way.ssh(&["-o", "RekeyLimit=1M", KEX, NAME, "yes 0123456789 | head -c 67108864"]));
        assert_eq!(seen.stdout.len(), 64 * MIB);
        seen.success().to_string()
    }),
    ("64 MB both ways with a change of keys each megabyte", |way| {
        let bytes = noise(64 * MIB, 12);
        fed(&mut way.ssh(&["-o", "RekeyLimit=1M", KEX, NAME, "cat"]), bytes.clone()).gives(0, bytes)
    }),
    ("a change of keys each second", |way| {
        let line = "for n in 1 2 3 4 5; do echo $n; sleep 0.7; done";
        seen(&mut way.ssh(&["-o", "RekeyLimit=default 1", NAME, line])).gives(0, "1\n2\n3\n4\n5\n")
    }),
    ("much more out than in", |way| {
        let bytes = vec![b'z'; 30_000_000];
        let seen = fed(&mut way.ssh(&[NAME, "od -An -v -tx1"]), bytes).success();
        assert_eq!(seen.stdout.len(), 30_000_000 / 16 * 49);
        brief(&seen.stdout)
    }),
    ("output of a program that has not read its input yet", |way| {
        let mut command = way.ssh(&[NAME, "for n in 1 2 3; do sleep 0.3; echo $n; done; read -r go; wc -c"]);
        let mut client = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (mut stdin, mut stdout) = ends(&mut client);
        let feeding =
            std::thread::spawn(move || stdin.write_all(&[b"\n".to_vec(), vec![b'x'; 30_000_000]].concat()));
        let mut three = [0; 6];
        stdout.read_exact(&mut three).unwrap();
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        feeding.join().unwrap().unwrap();
        wait_until("the client ends", || !client.is_running());
        assert_eq!((&three, rest.as_str()), (b"1\n2\n3\n", "30000000\n"));
        rest
    }),
];

fn ends(client: &mut Running) -> (std::process::ChildStdin, ChildStdout) {
    let child = client.child();
    (child.stdin.take().unwrap(), child.stdout.take().unwrap())
}

#[test]
fn bulk_arrives_through_the_gateway_as_it_does_directly() {
    let hosts = crate::hosts();
    same(&hosts, CASES);
    hosts.bastion.verify().success();
}

/// More than 4 GiB: numbers of 32 bits wrap, and keys change 64 times.
#[test]
fn four_gib_pass_whole_through_changes_of_keys() {
    // A build without optimisation takes minutes for all of it.
    let whole = std::env::var_os("SALLYPORT_TEST_4GIB").is_some();
    let size: u64 = if whole { (4 << 30) + 12_345 } else { (256 << 20) + 12_345 };
    let limit = if whole { "RekeyLimit=64M" } else { "RekeyLimit=8M" };
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let source = format!("yes 0123456789abcdef | head -c {size}");
    let expected = Command::new("sh").args(["-c", &format!("{source} | sha256sum")]).output().unwrap();
    let expected = Seen::from(expected).text();
    let down = way
        .program("sh")
        .args(["-c", &format!("{} -o {limit} {NAME} '{source}' | sha256sum", way.ssh_line())])
        .output()
        .unwrap();
    assert_eq!(Seen::from(down).text(), expected);
    let up = way
        .program("sh")
        .args(["-c", &format!("{source} | {} -o {limit} {NAME} sha256sum", way.ssh_line())])
        .output()
        .unwrap();
    assert_eq!(Seen::from(up).text(), expected);
    wait_until("both are on record", || hosts.records("channel_ended").len() == 2);
    let ended = hosts.records("channel_ended");
    assert_eq!((&ended[0]["bytes_out"], &ended[1]["bytes_in"]), (&size.into(), &size.into()));
    let streams = hosts.records("stream_end");
    let sums: Vec<_> = streams
        .iter()
        .filter(|end| end["bytes"] == size)
        .map(|end| format!("{}  -\n", end["sha256"].as_str().unwrap()))
        .collect();
    assert_eq!(sums, [expected.clone(), expected]);
}

#[test]
fn a_client_that_pauses_loses_nothing_and_the_gateway_keeps_little() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let before = hosts.bastion.resident_kib();
    let mut command = way.ssh(&[NAME, "yes 0123456789abcdef | head -c 300000000"]);
    let mut client = Running::start(command.stdout(Stdio::piped()));
    let mut stdout = client.child().stdout.take().unwrap();
    let mut sum = digest::Context::new(&digest::SHA256);
    let mut read = |bytes: usize| {
        let mut buffer = vec![0; bytes];
        stdout.read_exact(&mut buffer).unwrap();
        sum.update(&buffer);
    };
    read(1_000_000);
    settle(&client);
    let grown = hosts.bastion.resident_kib().saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB for a client that does not read");
    (0..299).for_each(|_| read(1_000_000));
    let expected = Command::new("sh")
        .args(["-c", "yes 0123456789abcdef | head -c 300000000 | sha256sum"])
        .output()
        .unwrap();
    assert_eq!(format!("{}  -\n", HEXLOWER.encode(sum.finish().as_ref())), Seen::from(expected).text());
}

#[test]
fn a_program_that_does_not_read_keeps_its_client_back_and_no_other_channel() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let control = format!("ControlPath={}", way.place("control"));
    let mut master = Running::start(&mut way.ssh(&["-o", &control, "-M", "-N", NAME]));
    wait_until("the master is there", || way.path("control").exists());
    let before = hosts.bastion.resident_kib();
    let mark = way.place("go");
    let line = format!("until [ -e {mark} ]; do sleep 0.1; done; sha256sum");
    let mut command = way.ssh(&["-o", &control, NAME, &line]);
    let mut stalled = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (mut stdin, mut stdout) = ends(&mut stalled);
    let bytes = noise(100_000_000, 13);
    let sum = format!("{}  -\n", crate::way::sha256(&bytes));
    let feeding = std::thread::spawn(move || stdin.write_all(&bytes));
    settle(&master);
    for n in 0..5 {
        let line = format!("read -r x; echo {n} $x");
        fed(&mut way.ssh(&["-o", &control, NAME, &line]), b"typed\n".into()).gives(0, format!("{n} typed\n"));
    }
    let grown = hosts.bastion.resident_kib().saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB for a program that does not read");
    std::fs::write(way.path("go"), "").unwrap();
    let mut told = String::new();
    stdout.read_to_string(&mut told).unwrap();
    assert_eq!(told, sum);
    feeding.join().unwrap().unwrap();
    assert!(master.is_running());
}

/// Waits until a client moves next to no bytes any more.
fn settle(client: &Running) {
    let moved = || -> u64 {
        let counters = std::fs::read_to_string(format!("/proc/{}/io", client.pid())).unwrap();
        counters.lines().take(2).filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum()
    };
    let (mut last, mut polls) = (moved(), 0);
    wait_until("next to nothing moves", || {
        polls += 1;
        let now = moved();
        if now - last > 100_000 {
            (polls, last) = (0, now);
        }
        polls > 50
    });
}
