//! What leads through the host: `-L`, `-R`, `-D`, `-W`, sockets, the agent; and what is refused.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::postgres::free_port;
use crate::support::process::{Running, wait_until};
use crate::support::sshd::HOST;
use crate::way::{CLOSED, Case, NAME, Way, brief, fed, noise, same, seen};

/// Answers each connection with what came, then `!`, when its input ends.
trait Echo: Read + Write + Send + Sized + 'static {
    fn half_close(&self);

    fn echo(mut self) {
        let mut bytes = Vec::new();
        let _broken = self.read_to_end(&mut bytes);
        bytes.push(b'!');
        let _gone = self.write_all(&bytes);
    }

    /// Says `bytes`, ends its side, and gives the answer.
    fn say(mut self, bytes: &[u8]) -> Vec<u8> {
        self.write_all(bytes).unwrap();
        self.half_close();
        let mut answer = Vec::new();
        self.read_to_end(&mut answer).unwrap();
        answer
    }
}

impl Echo for TcpStream {
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Echo for UnixStream {
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

/// A server on a port of its own; ends with the test's process.
fn tcp_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        listener.incoming().for_each(|stream| drop(std::thread::spawn(|| stream.unwrap().echo())));
    });
    port
}

fn path_server(at: &std::path::Path) {
    let listener = UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        listener.incoming().for_each(|stream| drop(std::thread::spawn(|| stream.unwrap().echo())));
    });
}

/// `ssh -N` with these options, as soon as `ready` holds.
fn forwarding(way: &Way<'_>, options: &[&str], ready: impl FnMut() -> bool) -> Running {
    let mut ssh = way.ssh(&["-N", "-o", "ExitOnForwardFailure=yes"]);
    let client = Running::start(ssh.args(options).arg(NAME).stderr(Stdio::piped()));
    wait_until(&format!("{options:?} is there"), ready);
    client
}

fn listens(port: u16) -> impl FnMut() -> bool {
    move || TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A socket's path is there before anybody can connect to it.
fn accepts(path: std::path::PathBuf) -> impl FnMut() -> bool {
    move || UnixStream::connect(&path).is_ok()
}

fn tcp(port: u16, bytes: &[u8]) -> Vec<u8> {
    TcpStream::connect(("127.0.0.1", port)).unwrap().say(bytes)
}

const BULK: usize = 10_000_000;

const CASES: &[Case] = &[
    ("-L", |way| {
        let (server, local) = (tcp_server(), free_port());
        let _client = forwarding(way, &["-L", &format!("{local}:127.0.0.1:{server}")], listens(local));
        assert_eq!(tcp(local, b"hello"), b"hello!");
        brief(&tcp(local, &noise(BULK, 31)))
    }),
    ("-L: many at a time", |way| {
        let (server, local) = (tcp_server(), free_port());
        let _client = forwarding(way, &["-L", &format!("{local}:127.0.0.1:{server}")], listens(local));
        let one = |n: u64| {
            std::thread::spawn(move || {
                tcp(local, &noise(100_000, n)) == [noise(100_000, n), b"!".into()].concat()
            })
        };
        let all: Vec<_> = (0..30).map(one).collect();
        all.into_iter().map(|one| one.join().unwrap().to_string()).collect()
    }),
    ("-L: nobody listens there", |way| {
        let (closed, local) = (free_port(), free_port());
        let _client = forwarding(way, &["-L", &format!("{local}:127.0.0.1:{closed}")], listens(local));
        brief(&tcp(local, b""))
    }),
    ("-R", |way| {
        let (server, remote) = (tcp_server(), free_port());
        let _client = forwarding(way, &["-R", &format!("{remote}:127.0.0.1:{server}")], listens(remote));
        assert_eq!(tcp(remote, b"hello"), b"hello!");
        brief(&tcp(remote, &noise(BULK, 32)))
    }),
    ("-R with a port of the host's choice", |way| {
        let server = tcp_server();
        let mut ssh = way.ssh(&["-N", "-o", "LogLevel=INFO", "-R", &format!("0:127.0.0.1:{server}"), NAME]);
        let mut client = Running::start(ssh.stderr(Stdio::piped()));
        let mut said = String::new();
        let mut stderr = client.child().stderr.take().unwrap();
        while !said.contains(" for remote forward") {
            let mut byte = [0];
            stderr.read_exact(&mut byte).unwrap();
            said.push(byte[0].into());
        }
        let port = said.split("Allocated port ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        brief(&tcp(port, b"hello"))
    }),
    ("-R: a port that is taken", |way| {
        let server = tcp_server();
        let options = [
            "-o",
            "ExitOnForwardFailure=yes",
            "-R",
            &format!("127.0.0.1:{server}:127.0.0.1:{server}"),
            NAME,
            "true",
        ];
        seen(&mut way.ssh(&options))
            .complains(255, "remote port forwarding failed")
            .replace(&server.to_string(), "PORT")
    }),
    ("-D", |way| {
        let (server, local) = (web_server(), free_port());
        let _client = forwarding(way, &["-D", &local.to_string()], listens(local));
        let fetch = |scheme: &str| {
            let mut curl = way.program("curl");
            curl.args(["-sS", "--proxy", &format!("{scheme}://127.0.0.1:{local}")]);
            seen(curl.arg(format!("http://localhost:{server}/"))).gives(0, "web\n")
        };
        ["socks4", "socks5", "socks5h"].map(fetch).join("\n")
    }),
    ("-R as a SOCKS server on the host", |way| {
        let (server, remote) = (web_server(), free_port());
        let _client = forwarding(way, &["-R", &remote.to_string()], listens(remote));
        let proxy = format!("socks5h://127.0.0.1:{remote}");
        let url = format!("http://localhost:{server}/");
        seen(way.program("curl").args(["-sS", "--proxy", &proxy, &url])).gives(0, "web\n")
    }),
    ("-W", |way| {
        let server = tcp_server();
        let bytes = noise(BULK, 33);
        let expected = [bytes.clone(), b"!".into()].concat();
        fed(&mut way.ssh(&["-W", &format!("127.0.0.1:{server}"), NAME]), bytes).gives(0, expected)
    }),
    ("-W: nobody listens there", |way| {
        let seen = seen(&mut way.ssh(&["-W", &format!("127.0.0.1:{}", free_port()), NAME]));
        seen.complains(255, "stdio forwarding failed")
    }),
    ("-L from socket to socket", |way| {
        path_server(&way.path("server"));
        let option = format!("{}:{}", way.place("local"), way.place("server"));
        let _client = forwarding(way, &["-L", &option], accepts(way.path("local")));
        brief(&UnixStream::connect(way.path("local")).unwrap().say(&noise(BULK, 34)))
    }),
    ("-R from socket to socket", |way| {
        path_server(&way.path("server"));
        let option = format!("{}:{}", way.place("remote"), way.place("server"));
        let _client = forwarding(way, &["-R", &option], accepts(way.path("remote")));
        brief(&UnixStream::connect(way.path("remote")).unwrap().say(&noise(BULK, 35)))
    }),
    ("an agent that the host asks and signs with", |way| {
        with_agent(way, |ssh, key| {
            let line = format!(
                "ssh-add -l | cut -d' ' -f1,3-; cd {}; echo text > text; ssh-keygen -q -Y sign -n file -f {key}.pub text && \
             ssh-keygen -Y check-novalidate -n file -s text.sig < text | cut -d' ' -f1-3",
                way.place(""),
            );
            let seen = seen(ssh.args(["-A", NAME, &line])).success();
            assert!(
                seen.text().contains("the agent's key") && seen.text().contains("Good \"file\" signature"),
                "{seen}"
            );
            seen.to_string()
        })
    }),
    ("no agent that was not offered", |way| {
        with_agent(way, |ssh, _| seen(ssh.args(["-a", NAME, "ssh-add -l"])).complains(2, "agent"))
    }),
];

fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            if stream.read(&mut asked).unwrap_or(0) > 0 {
                let _gone = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nweb\n");
            }
        }
    });
    port
}

/// With an agent that has one key; gives `ssh` and the key's path.
fn with_agent(way: &Way<'_>, run: impl Fn(&mut Command, &str) -> String) -> String {
    let (socket, key) = (way.place("agent"), way.place("key"));
    let mut agent =
        Running::start(way.program("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()));
    wait_until("the agent is there", || UnixStream::connect(&socket).is_ok());
    seen(way.program("ssh-keygen").args([
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        "the agent's key",
        "-f",
        &key,
    ]))
    .success();
    seen(way.program("ssh-add").env("SSH_AUTH_SOCK", &socket).args(["-q", &key])).success();
    fs::remove_file(&key).unwrap();
    let said = run(way.ssh(&[]).env("SSH_AUTH_SOCK", &socket), &key);
    assert!(agent.is_running());
    let fingerprint = said.split("SHA256:").nth(1).and_then(|rest| rest.split([' ', '\\', '"']).next());
    said.replace(fingerprint.unwrap_or("no fingerprint"), "…")
}

#[test]
fn forwards_do_through_the_gateway_what_they_do_directly() {
    let hosts = crate::hosts();
    same(&hosts, CASES);
    hosts.bastion.verify().success();
}

#[test]
fn forwards_are_on_record_by_destination_and_bytes() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let (server, local, remote) = (tcp_server(), free_port(), free_port());
    let options =
        ["-L", &format!("{local}:127.0.0.1:{server}"), "-R", &format!("{remote}:127.0.0.1:{server}")];
    // Only looked at: a connection of its own would be on record as well.
    let up =
        || fs::read_to_string("/proc/net/tcp").unwrap().contains(&format!(":{remote:04X} 00000000:0000 0A"));
    let client = forwarding(&way, &options, up);
    assert_eq!((tcp(local, b"123").len(), tcp(remote, b"12345").len()), (4, 6));
    wait_until("both have ended", || hosts.records("channel_ended").len() == 2);
    client.signal(rustix::process::Signal::TERM);
    wait_until("the connection has ended", || !hosts.records("ended").is_empty());
    let opened = hosts.records("channel_opened");
    let of = |kind: &str| {
        opened.iter().find(|opened| opened["channel"] == kind).unwrap_or_else(|| panic!("{opened:?}"))
    };
    assert_eq!(of("direct_tcpip")["destination"], format!("127.0.0.1:{server}"));
    assert_eq!(of("forwarded_tcpip")["destination"], format!("localhost:{remote}"));
    let ended = hosts.records("channel_ended");
    let bytes = |kind: &str| {
        let ended = ended.iter().find(|ended| ended["ch"] == of(kind)["ch"]).unwrap();
        (ended["bytes_in"].as_u64().unwrap(), ended["bytes_out"].as_u64().unwrap())
    };
    assert_eq!((bytes("direct_tcpip"), bytes("forwarded_tcpip")), ((3, 4), (6, 5)));
    let listen = &hosts.records("listen")[0];
    assert_eq!((&listen["port"], &listen["granted"]), (&Value::from(remote), &Value::from(true)), "{listen}");
}

#[test]
fn what_a_target_does_not_open_is_refused_with_the_rule_and_on_record() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let server = tcp_server();
    let destination = format!("127.0.0.1:{server}");
    let refused = seen(&mut way.ssh(&["-o", "LogLevel=INFO", "-W", &destination, CLOSED]));
    refused.complains(255, "`forward`");
    let forward = hosts.records("channel_refused").pop().unwrap();
    assert_eq!((&forward["what"], &forward["destination"]), (&"forward".into(), &destination.into()));
    let option = format!("0:127.0.0.1:{server}");
    seen(&mut way.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", &option, CLOSED, "true"]))
        .complains(255, "forwarding failed");
    assert_eq!(hosts.records("channel_refused").pop().unwrap()["what"], "listen");
    with_agent(&way, |ssh, _| seen(ssh.args(["-A", CLOSED, "ssh-add -l; true"])).complains(0, "agent"));
    assert_eq!(hosts.records("channel_refused").pop().unwrap()["what"], "agent");
    assert_eq!(hosts.records("channel_refused").len(), 3);
    // Everything else works there.
    seen(&mut way.ssh(&[CLOSED, "echo ok"])).gives(0, "ok\n");
}

/// The one difference that is meant: a host with X11 forwarding would offer it.
#[test]
fn x11_is_refused_and_the_command_runs_without() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let mut ssh = way.ssh(&["-X", NAME, "echo \"[$DISPLAY]\""]);
    let seen = seen(ssh.env("DISPLAY", "127.0.0.1:9"));
    assert_eq!((seen.status.as_str(), seen.text().as_str()), ("exit status: 0", "[]\n"), "{seen}");
    let refused = &hosts.records("channel_refused")[0];
    assert_eq!((&refused["what"], &refused["target"]), (&"x11".into(), &HOST.into()), "{refused}");
}

/// A client stays as long as any channel of its connection is open.
#[test]
fn a_session_ends_though_a_program_on_the_host_still_holds_the_agent() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let program = "import os, socket, time\ns = socket.socket(socket.AF_UNIX)\n\
        s.connect(os.environ['SSH_AUTH_SOCK'])\nif os.fork() == 0:\n os.closerange(0, 3)\n time.sleep(60)\n";
    let line = format!("python3 -c \"{program}\"; echo done");
    with_agent(&way, |ssh, _| seen(ssh.args(["-A", NAME, &line])).gives(0, "done\n"));
    wait_until("both channels are on record", || hosts.records("channel_ended").len() == 2);
}
