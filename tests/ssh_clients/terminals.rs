//! Channels with a terminal: sizes, modes, keys, and what is on record of them.

use serde_json::Value;

use crate::support::process::wait_until;
use crate::support::terminal::Terminal;
use crate::way::{Case, NAME, Way, fed, same, seen};

/// A shell that says nothing of itself: no start files, an empty prompt.
const SHELL: &str = "PS1= exec bash --noprofile --norc --noediting -i";

/// Says the terminal's size, and each time that it is another.
const WATCH: &str =
    "while :; do now=$(stty size); [ \"$now\" = \"$was\" ] || echo \"$now\"; was=$now; sleep 0.1; done";

fn terminal(way: &Way<'_>, options: &[&str], command: &str) -> Terminal {
    let mut ssh = way.ssh(options);
    if command.is_empty() {
        ssh.arg(NAME)
    } else {
        ssh.args([NAME, command])
    };
    Terminal::start_sized(&ssh, 101, 37)
}

const CASES: &[Case] = &[
    ("-tt without a terminal of one's own", |way| {
        let seen = seen(&mut way.ssh(&["-tt", NAME, "tty | sed s/[0-9]*$/N/; echo err >&2; exit 4"]));
        seen.gives(4, "/dev/pts/N\r\nerr\r\n")
    }),
    ("without a terminal there is none", |way| way.run("tty").gives(1, "not a tty\n")),
    ("-T has none either", |way| fed(&mut way.ssh(&["-T", NAME]), b"tty\n".into()).gives(1, "not a tty\n")),
    ("the terminal's size and kind", |way| {
        let (status, screen) = terminal(way, &["-t"], "stty size; echo $TERM").finish();
        assert!(screen.starts_with("37 101\r\nxterm-256color\r\n"), "{screen}");
        status.to_string()
    }),
    ("the terminal's modes", |way| {
        let (status, screen) = terminal(way, &["-t"], "stty -a").finish();
        assert!(screen.contains("intr = ^C"), "{screen}");
        format!("{status} {screen}")
    }),
    ("modes that somebody changed", |way| {
        let line = format!(
            "stty intr ^X erase ^H -ixon -iutf8 -onlcr; {} -t {NAME} 'stty -a'; echo [$?]",
            way.ssh_line()
        );
        let mut command = way.program("sh");
        let (status, screen) = Terminal::start(command.args(["-c", &line])).finish();
        assert!(
            screen.contains("intr = ^X") && screen.contains("-ixon") && screen.contains("[0]"),
            "{screen}"
        );
        format!("{status} {screen}")
    }),
    ("a window that changes its size", |way| {
        let mut terminal = terminal(way, &["-t"], WATCH);
        terminal.shows("37 101\r\n");
        terminal.resize(120, 50);
        terminal.shows("50 120\r\n");
        terminal.resize(7, 3);
        terminal.shows("3 7\r\n");
        terminal.types("\x03");
        let (status, screen) = terminal.finish();
        format!("{status} {screen}")
    }),
    ("^C interrupts the program and not the session", |way| {
        // What says that it is up is what is interrupted: else it might not run yet.
        let program = "trap 'echo caught' INT; (echo up; exec sleep 600); echo after";
        let mut terminal = terminal(way, &["-t"], program);
        terminal.shows("up\r\n");
        terminal.types("\x03");
        let (status, screen) = terminal.finish();
        assert!(screen.contains("^Ccaught\r\nafter\r\n"), "{screen}");
        format!("{status} {screen}")
    }),
    ("^C ends a program", |way| {
        let mut terminal = terminal(way, &["-t"], "echo up; exec sleep 600");
        terminal.shows("up\r\n");
        terminal.types("\x03");
        let (status, screen) = terminal.finish();
        format!("{status} {screen}")
    }),
    ("^Z, jobs, fg, ^D", |way| {
        let mut terminal = terminal(way, &["-t"], SHELL);
        terminal.types("stty -echo; echo u''p\n");
        terminal.shows("up\r\n");
        terminal.types("sh -c 'echo as''leep; exec sleep 600'\n");
        terminal.shows("asleep\r\n");
        terminal.types("\x1a");
        terminal.shows("Stopped");
        terminal.types("jobs %1 | sed 's/^/job /'\n");
        terminal.shows("job ");
        terminal.shows("sleep 600'\r\n");
        terminal.types("fg\n");
        terminal.shows("sleep 600'\r\n");
        terminal.types("\x03");
        // What is typed too early goes with what ^C throws away.
        terminal.shows("\r\n");
        terminal.types("echo on''ward\n");
        terminal.shows("onward\r\n");
        terminal.types("\x04");
        terminal.finish().0.to_string()
    }),
    ("an interactive login shell", |way| {
        let mut terminal = terminal(way, &[], "");
        terminal.types("stty -echo; PS1=; shopt -q login_shell && echo lo''gin $-\n");
        terminal.shows("login himB");
        terminal.types("exit 6\n");
        terminal.finish().0.to_string()
    }),
    ("the escape that disconnects", |way| {
        let mut terminal = terminal(way, &["-t"], "stty -echo; echo up; cat");
        terminal.shows("up\r\n");
        terminal.types("line\n");
        terminal.shows("line\r\n");
        terminal.types("~.");
        terminal.finish().0.to_string()
    }),
    ("a client that is killed hangs the terminal up", |way| {
        let mark = way.place("hung-up");
        let mut up = terminal(
            way,
            &["-t"],
            &format!("trap 'touch {mark}; exit' HUP; echo up; while :; do sleep 0.1; done"),
        );
        up.shows("up\r\n");
        drop(up);
        wait_until("the program is told", || way.path("hung-up").exists());
        "hung up".into()
    }),
    ("much output in a terminal", |way| {
        let seen = seen(&mut way.ssh(&["-tt", NAME, "seq 1 100000"]));
        assert!(seen.text().ends_with("99999\r\n100000\r\n"));
        seen.success().to_string()
    }),
    ("a paste of 100 kB", |way| {
        let mut terminal = terminal(way, &["-t"], "stty raw -echo; echo up; head -c 100000 | cksum");
        terminal.shows("up\n");
        terminal.types(&"0123456789abcdef".repeat(6250));
        let (status, screen) = terminal.finish();
        format!("{status} {screen}")
    }),
];

#[test]
fn a_terminal_is_through_the_gateway_what_it_is_directly() {
    let hosts = crate::hosts();
    same(&hosts, CASES);
    hosts.bastion.verify().success();
}

#[test]
fn what_is_typed_and_shown_in_a_terminal_is_on_record_with_its_sizes() {
    let hosts = crate::hosts();
    let way = Way::through(&hosts);
    let mut ssh = terminal(&way, &["-t"], SHELL);
    ssh.types("stty -echo; echo u''p\n");
    ssh.shows("up\r\n");
    ssh.resize(120, 50);
    ssh.types("trap 'stty size' WINCH; stty size\n");
    ssh.shows("50 120\r\n");
    ssh.types("\x04");
    assert_eq!(ssh.finish().0, 0);
    wait_until("its end is on record", || !hosts.records("channel_ended").is_empty());
    let pty = &hosts.records("pty")[0];
    assert_eq!(
        (&pty["cols"], &pty["rows"], &pty["term"]),
        (&101.into(), &37.into(), &"xterm-256color".into())
    );
    assert_eq!((&pty["modes"]["VINTR"], &pty["modes"]["ECHO"]), (&3.into(), &1.into()), "{pty}");
    let resize = &hosts.records("resize")[0];
    assert_eq!((&resize["cols"], &resize["rows"]), (&120.into(), &50.into()));
    let text = |kind| {
        hosts
            .records(kind)
            .iter()
            .filter_map(|record| record["txt"].as_str().map(str::to_owned))
            .collect::<String>()
    };
    assert!(text("output").contains("50 120\r\n"), "{}", text("output"));
    assert!(text("input").contains("stty -echo; echo u''p"), "{}", text("input"));
    let ended = hosts.records("channel_ended");
    assert_eq!(ended.iter().map(|ended| &ended["exit_status"]).collect::<Vec<_>>(), [&Value::from(0)]);
    hosts.bastion.verify().success();
}
