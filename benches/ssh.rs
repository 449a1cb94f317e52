//! What the SSH gateway costs beside `ssh` straight to the host and `ssh -J` through a stock sshd:
//! connecting, bytes down and up, a keystroke's echo, memory of an idle shell.
//!
//! Real `ssh`, real `sshd`, the real binary; key exchange pinned to curve25519 and the cipher to
//! AES-128-GCM on every way, rounds of the three ways interleaved. Figures are medians, and ratios to
//! the direct way in the same run. With `--plot FILE` also as a picture. Asserts results, never times.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "shared/plot.rs"]
mod plot;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::sshd::{HOST, Sshd};
use support::{Hosts, Options};

const CONNECTS: usize = 40;
const TRANSFERS: usize = 5;
const TRANSFER: u64 = 1 << 30;
const KEYSTROKES: usize = 1_000;
const SHELLS: usize = 200;
/// Shells that are there before memory is measured, so that what is allocated once does not count.
const WARM_UP: usize = 20;
const PINNED: [&str; 4] = ["-o", "KexAlgorithms=curve25519-sha256", "-o", "Ciphers=aes128-gcm@openssh.com"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Gateway,
    Jump,
}

const WAYS: [Way; 3] = [Way::Direct, Way::Gateway, Way::Jump];

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Gateway => "Sallyport",
            Self::Jump => "ssh -J, stock sshd",
        }
    }
}

struct World {
    hosts: Hosts,
    jump: Sshd,
}

impl World {
    fn ssh(&self, way: Way) -> Command {
        let mut command = match way {
            Way::Direct => self.hosts.sshd.direct("ssh"),
            Way::Gateway => self.hosts.through("ssh", "alice", HOST),
            Way::Jump => {
                let mut command = self.hosts.sshd.direct("ssh");
                let inner = self.jump.direct("ssh");
                let words = inner.get_args().map(|word| word.to_str().unwrap().to_owned());
                let words: Vec<String> = words.chain(PINNED.map(str::to_owned)).collect();
                command.arg("-o").arg(format!("ProxyCommand=ssh {} -W %h:%p 127.0.0.1", words.join(" ")));
                command
            }
        };
        command.args(PINNED).arg(if way == Way::Gateway { "localhost" } else { "127.0.0.1" });
        command
    }

    /// Processor time that what is in the middle has used so far, its finished children included.
    fn cpu(&self, way: Way) -> Duration {
        match way {
            Way::Direct => Duration::ZERO,
            Way::Gateway => cpu_of(self.hosts.bastion.pid()),
            Way::Jump => cpu_of(self.jump.pid()),
        }
    }
}

fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // proc(5): utime, stime, cutime, cstime, in hundredths of a second.
    let ticks: u64 = fields[11..15].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// One figure for each way, in the order of [`WAYS`].
struct Row {
    what: &'static str,
    unit: &'static str,
    figures: [f64; 3],
    /// Of what is in the middle.
    cpu: [f64; 3],
    cpu_unit: &'static str,
}

impl Row {
    fn print(&self) {
        for (index, way) in WAYS.into_iter().enumerate() {
            let ratio = self.figures[index] / self.figures[0];
            print!(
                "{:<28} {:<20} {:>10.3} {:<5} {ratio:>6.2}",
                self.what,
                way.name(),
                self.figures[index],
                self.unit
            );
            match way {
                Way::Direct => println!(),
                _ => println!("   {:>8.2} {}", self.cpu[index], self.cpu_unit),
            }
        }
    }
}

fn connects(world: &World) -> Row {
    let mut times: [Vec<Duration>; 3] = Default::default();
    let before = WAYS.map(|way| world.cpu(way));
    for _ in 0..CONNECTS {
        for (index, way) in WAYS.into_iter().enumerate() {
            let began = Instant::now();
            let status = world.ssh(way).arg("true").status().unwrap();
            times[index].push(began.elapsed());
            assert!(status.success(), "{}", way.name());
        }
    }
    let cpu = spent(world, before, CONNECTS as f64 / 1000.0);
    let figures = times.map(|mut times| median(&mut times).as_secs_f64() * 1000.0);
    Row { what: "connect, run `true`", unit: "ms", figures, cpu, cpu_unit: "CPU ms" }
}

fn spent(world: &World, before: [Duration; 3], per: f64) -> [f64; 3] {
    let mut spent = [0.0; 3];
    for (index, way) in WAYS.into_iter().enumerate() {
        spent[index] = world.cpu(way).saturating_sub(before[index]).as_secs_f64() / per;
    }
    spent
}

/// Throughput in MB/s.
fn transfers(world: &World, what: &'static str, run: impl Fn(&mut Command)) -> Row {
    let mut times: [Vec<Duration>; 3] = Default::default();
    let before = WAYS.map(|way| world.cpu(way));
    for _ in 0..TRANSFERS {
        for (index, way) in WAYS.into_iter().enumerate() {
            let mut command = world.ssh(way);
            let began = Instant::now();
            run(&mut command);
            times[index].push(began.elapsed());
        }
    }
    let gigabytes = TRANSFERS as f64 * TRANSFER as f64 / 1e9;
    let cpu = spent(world, before, gigabytes);
    let figures = times.map(|mut times| TRANSFER as f64 / 1e6 / median(&mut times).as_secs_f64());
    Row { what, unit: "MB/s", figures, cpu, cpu_unit: "CPU s/GB" }
}

fn down(command: &mut Command) {
    let mut child =
        command.arg(format!("head -c {TRANSFER} /dev/zero")).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut got, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match out.read(&mut buffer).unwrap() {
            0 => break,
            read => got += read as u64,
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(got, TRANSFER);
}

fn up(command: &mut Command) {
    let mut child = command.arg("wc -c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let chunk = vec![0; 1 << 20];
    for _ in 0..TRANSFER / (1 << 20) {
        input.write_all(&chunk).unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), TRANSFER.to_string());
}

/// A program on a terminal that echoes by itself, so that no line discipline is measured.
fn echoing(world: &World, way: Way) -> Child {
    let mut command = world.ssh(way);
    command.args(["-tt", "stty raw -echo; printf ready; cat"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut ready = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready");
    child
}

fn keystrokes(world: &World) -> Row {
    let mut shells: Vec<Child> = WAYS.iter().map(|way| echoing(world, *way)).collect();
    let mut times: [Vec<Duration>; 3] = Default::default();
    let before = WAYS.map(|way| world.cpu(way));
    for _ in 0..KEYSTROKES {
        for (index, shell) in shells.iter_mut().enumerate() {
            let began = Instant::now();
            shell.stdin.as_mut().unwrap().write_all(b"k").unwrap();
            shell.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            times[index].push(began.elapsed());
        }
    }
    let cpu = spent(world, before, KEYSTROKES as f64 / 1e6);
    for mut shell in shells {
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
    let figures = times.map(|mut times| median(&mut times).as_secs_f64() * 1e6);
    Row { what: "a keystroke's echo, p50", unit: "µs", figures, cpu, cpu_unit: "CPU µs" }
}

/// How long the disk takes to keep a few bytes, p50: what write-ahead must wait for.
fn fdatasync(world: &World) -> Duration {
    let path = world.hosts.bastion.audit_dir().join("fdatasync");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let mut times: Vec<Duration> = (0..500_u64)
        .map(|n| {
            file.write_all_at(&[2; 400], n * 400).unwrap();
            let began = Instant::now();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    fs::remove_file(path).unwrap();
    median(&mut times)
}

/// KiB of the gateway's memory per idle shell.
fn memory(world: &World) -> f64 {
    let mut shells: Vec<Child> = (0..WARM_UP).map(|_| echoing(world, Way::Gateway)).collect();
    let before = world.hosts.bastion.resident_kib();
    shells.extend((WARM_UP..SHELLS).map(|_| echoing(world, Way::Gateway)));
    let grown = world.hosts.bastion.resident_kib().saturating_sub(before);
    for shell in &mut shells {
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
    grown as f64 / (SHELLS - WARM_UP) as f64
}

fn main() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    hosts.grant();
    let world = World { hosts, jump: Sshd::start("") };
    println!("{:<28} {:<20} {:>16} {:>6}", "", "", "median", "ratio");
    let wanted = std::env::var("SSH_BENCH").unwrap_or_default();
    let wants = |name: &str| wanted.is_empty() || wanted.split(',').any(|part| part == name);
    let mut rows = Vec::new();
    let mut add = |row: Row| {
        row.print();
        rows.push(row);
    };
    if wants("connect") {
        add(connects(&world));
    }
    if wants("down") {
        add(transfers(&world, "1 GiB down", down));
    }
    if wants("up") {
        add(transfers(&world, "1 GiB up", up));
    }
    if wants("echo") {
        add(keystrokes(&world));
        println!("the disk's fdatasync, p50: {} µs", fdatasync(&world).as_micros());
    }
    if wants("memory") {
        println!("memory per idle shell: {:.0} KiB", memory(&world));
    }
    let mut arguments = std::env::args().skip_while(|argument| argument != "--plot").skip(1);
    if let Some(path) = arguments.next() {
        let bars = rows.iter().map(|row| (row.what, row.figures.map(|figure| figure / row.figures[0])));
        fs::write(path, plot::svg(&WAYS.map(Way::name), &bars.collect::<Vec<_>>())).unwrap();
    }
    world.hosts.bastion.verify().success();
}
