//! Clients that are not OpenSSH: libraries, other programs, and what is built upon them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::amazon::python;
use crate::way::{Case, NAME, Seen, Way, noise, same, seen};

/// Where a client connects to, as whom, with which key and, through the gateway, certificate.
struct Door {
    host: &'static str,
    port: u16,
    user: String,
    key: PathBuf,
    certificate: Option<PathBuf>,
}

fn door(way: &Way<'_>) -> Door {
    let hosts = way.hosts;
    if !way.through {
        let user = crate::support::sshd::login();
        return Door {
            host: "127.0.0.1",
            port: hosts.sshd.port,
            user,
            key: hosts.sshd.path("direct"),
            certificate: None,
        };
    }
    let key = hosts.bastion.home("alice").join("ssh/id_ed25519");
    let certificate = Some(key.with_file_name("id_ed25519-cert.pub"));
    let user = format!("alice+{}", crate::support::sshd::HOST);
    Door { host: "localhost", port: hosts.bastion.ssh_port, user, key, certificate }
}

fn script(way: &Way<'_>, name: &str) -> String {
    let Door { host, port, user, key, certificate } = door(way);
    fs::write(way.path("local"), noise(5_000_000, 51)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ssh_clients").join(name);
    let mut command = way.program(python("python"));
    command.arg(script).args([host, &port.to_string(), &user]).arg(key);
    command.arg(certificate.unwrap_or_default()).arg(way.dir.path());
    seen(&mut command).success().to_string()
}

/// With a key that is registered: these clients know no certificates.
fn plain_key(way: &Way<'_>) -> Door {
    let mut door = door(way);
    if way.through {
        door.certificate = None;
        door.key = way.hosts.bastion.scratch().join("plain");
    }
    door
}

fn plink(way: &Way<'_>, arguments: &[&str]) -> Command {
    let Door { host, port, user, key, .. } = plain_key(way);
    let converted = way.path("key.ppk");
    let convert = ["-O", "private", "-o"];
    seen(way.program("puttygen").arg(key).args(convert).arg(&converted)).success();
    let fingerprint = if way.through {
        way.hosts.bastion.data().join("ssh/host_ed25519.pub")
    } else {
        way.hosts.sshd.path("host.pub")
    };
    let shown = seen(way.program("ssh-keygen").arg("-lf").arg(fingerprint)).success().text();
    let mut command = way.program("plink");
    command.args([
        "-batch",
        "-ssh",
        "-P",
        &port.to_string(),
        "-l",
        &user,
        "-hostkey",
        shown.split(' ').nth(1).unwrap(),
        "-i",
    ]);
    command.arg(converted).arg(host).args(arguments);
    command
}

fn dbclient(way: &Way<'_>, options: &[&str], line: &str) -> Command {
    let Door { host, port, user, key, .. } = plain_key(way);
    let converted = way.path("key.dropbear");
    seen(way.program("dropbearconvert").args(["openssh", "dropbear"]).arg(key).arg(&converted)).success();
    let mut command = way.program("dbclient");
    command.args(["-y", "-y", "-p", &port.to_string(), "-l", &user, "-i"]).arg(converted).args(options);
    command.args([host, line]);
    command
}

fn ansible(way: &Way<'_>, arguments: &[&str]) -> Seen {
    let mut command = way.program(python("ansible"));
    let ssh = format!("-F {} -o ControlMaster=auto -o ControlPersist=5s", way.config.display());
    let inventory = format!("{NAME} ansible_ssh_args='{ssh}' ansible_python_interpreter=auto_silent\n");
    fs::write(way.path("inventory"), inventory).unwrap();
    command
        .env("ANSIBLE_REMOTE_TMP", way.path("remote-tmp"))
        .env("ANSIBLE_LOCAL_TEMP", way.path("local-tmp"));
    command
        .env("ANSIBLE_SSH_CONTROL_PATH_DIR", way.path("cp"))
        .env("ANSIBLE_NOCOLOR", "1")
        .env("LC_ALL", "C.UTF-8");
    command.args(["-i", &way.place("inventory"), NAME]).args(arguments);
    seen(&mut command).success()
}

const CASES: &[Case] = &[
    ("paramiko", |way| script(way, "with_paramiko.py")),
    ("asyncssh", |way| script(way, "with_asyncssh.py")),
    ("ansible", |way| {
        let ping = ansible(way, &["-m", "ping"]).to_string();
        fs::write(way.path("local"), noise(1_000_000, 52)).unwrap();
        let copy = format!("src={} dest={} mode=0640", way.place("local"), way.place("there"));
        ansible(way, &["-m", "copy", "-a", &copy]);
        assert_eq!(fs::read(way.path("there")).unwrap(), noise(1_000_000, 52));
        let shell = ansible(way, &["-m", "shell", "-a", "echo out; echo err >&2"]).to_string();
        let pipelined =
            ansible(way, &["-m", "command", "-a", "echo piped", "-e", "ansible_ssh_pipelining=true"])
                .to_string();
        [ping, shell, pipelined].join("\n")
    }),
    ("plink", |way| {
        let shown = seen(&mut plink(way, &["echo out; echo err >&2; exit 7"])).complains(7, "err\n");
        let bytes = noise(5_000_000, 53);
        shown + &crate::way::fed(&mut plink(way, &["cat"]), bytes.clone()).gives(0, bytes)
    }),
    ("dbclient", |way| {
        let shown = seen(&mut dbclient(way, &[], "echo out; echo err >&2; exit 7")).complains(7, "err\n");
        // One way at a time: both at once, it hangs now and then when all has been said, directly too.
        let bytes = noise(5_000_000, 54);
        let sum = format!("{}  -\n", crate::way::sha256(&bytes));
        assert_eq!(crate::way::fed(&mut dbclient(way, &[], "sha256sum"), bytes).text(), sum);
        // Into a file: into a pipe it hangs once in a hundred times when all has been said, directly too.
        let many = dbclient(way, &[], "yes | head -c 5000000");
        let mut sh = way.program("sh");
        sh.args(["-c", "exec \"$0\" \"$@\" >many"]).arg(many.get_program()).args(many.get_args());
        seen(&mut sh).success();
        assert_eq!(fs::read(way.path("many")).unwrap().len(), 5_000_000);
        let old =
            seen(&mut dbclient(way, &["-c", "chacha20-poly1305@openssh.com"], "echo old")).success().text();
        // It names the host in its messages.
        shown.split("stderr").next().unwrap().to_owned() + &old
    }),
];

#[test]
fn other_clients_notice_nothing_but_another_address() {
    let hosts = crate::hosts();
    let key = hosts.bastion.scratch().join("plain");
    seen(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "plain", "-f"]).arg(&key))
        .success();
    let config = hosts.bastion.config_file();
    let public = key.with_extension("pub");
    let arguments =
        ["user", "key", "add", "alice", "--config", config.to_str().unwrap(), public.to_str().unwrap()];
    hosts.bastion.operator(&arguments).success();
    same(&hosts, CASES);
    let signals = hosts.records("signal");
    let names: Vec<_> = signals.iter().map(|signal| signal["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["TERM", "INT", "USR1"], "{signals:?}");
    hosts.bastion.verify().success();
}
