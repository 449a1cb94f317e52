use std::process::Stdio;

use super::support::Terminal;
use super::support::process::Running;
use super::support::sshd::{ACCESS, HOST};

use super::{NO_SESSION, requests, shell, start};

#[test]
fn a_pick_from_the_list_a_reason_and_a_duration_make_a_shell_in_the_same_window() {
    let hosts = start();
    let mut terminal = Terminal::start_sized(&shell(&hosts, ""), 100, 30);
    for line in ["web-1  (dev)  deploy", "web-prod  (prod)  deploy", "web-uat  (uat)  deploy"] {
        terminal.shows(line);
    }
    terminal.answers("host: ", "17");
    terminal.shows("give a number of the list, or a name");
    terminal.answers("host: ", "web-2\x7f1");
    terminal.shows("you have no active session for `web-1`.");
    terminal.answers("reason: ", "   ");
    terminal.shows("approvers and auditors will read it");
    terminal.answers("reason: ", "gr\u{fc}\u{df}e\u{20ac}\x7f \u{6f22}");
    terminal.answers("for how long [1h]: ", "soon");
    terminal.resize(132, 43);
    terminal.answers("for how long [1h]: ", "25m");
    super::wait_until("the shell runs", || !hosts.records("program").is_empty());
    terminal.types("stty size; echo \"$LC_NOTE/$TERM\" shell-$((6*7)); exit 9\r");
    terminal.shows("43 132");
    terminal.shows("a note/xterm shell-42");
    let (status, shown) = terminal.finish();
    assert_eq!(status, 9, "{shown}");

    let request = &requests(&hosts)[0];
    assert_eq!(request["reason"], "gr\u{fc}\u{df}e \u{6f22}", "{request}");
    assert_eq!(request["duration_seconds"], 25 * 60, "{request}");
    let opened = &hosts.records("opened")[0];
    assert_eq!((opened["target"].as_str(), opened["access"].as_str()), (Some(HOST), Some(ACCESS)));
    assert_eq!(opened["reason"], request["reason"]);
    let pty = &hosts.records("pty")[0];
    assert_eq!((&pty["term"], &pty["cols"], &pty["rows"]), (&"xterm".into(), &132.into(), &43.into()));
    assert_eq!(hosts.records("program")[0]["how"], "shell");
    let passed = hosts.records("env").into_iter().find(|env| env["name"] == "LC_NOTE").unwrap();
    assert_eq!((&passed["txt"], &passed["passed"]), (&"a note".into(), &true.into()));
    assert_eq!(hosts.ended(1)[0]["exit_status"], 9);
    hosts.bastion.verify().success();
}

#[test]
fn pasted_lines_answer_one_question_after_the_other() {
    let hosts = start();
    for (count, paste) in
        ["1\rpasted\r30m\r", "web-2\r\npasted\r\n30m\r\n", "web-3\npasted\n\n"].into_iter().enumerate()
    {
        let mut terminal = Terminal::start(&shell(&hosts, ""));
        terminal.shows("host: ");
        terminal.types(paste);
        super::wait_until("the shell runs", || hosts.records("program").len() > count);
        terminal.types("exit\r");
        let (status, shown) = terminal.finish();
        assert_eq!(status, 0, "{paste:?}: {shown}");
        assert_eq!(requests(&hosts).last().unwrap()["reason"], "pasted", "{paste:?}");
    }
}

#[test]
fn whoever_breaks_off_has_asked_for_nothing() {
    let hosts = start();
    for keys in ["\x03", "\x04", "web\x03", "1\rwhy not\r\x03"] {
        let mut terminal = Terminal::start(&shell(&hosts, ""));
        terminal.shows("host: ");
        terminal.types(keys);
        terminal.shows("sallyport: nothing was asked for");
        let (status, shown) = terminal.finish();
        assert_eq!(status, NO_SESSION, "{keys:?}: {shown}");
    }
    assert_eq!(requests(&hosts).len(), 0);
    // What the rules refuse is said with the rule.
    let mut terminal = Terminal::start(&shell(&hosts, HOST));
    terminal.answers("reason: ", "long work");
    terminal.answers("for how long [1h]: ", "5h");
    terminal.shows("FR-281");
    assert_eq!(terminal.finish().0, NO_SESSION);
    // Bytes that are no text are asked for again.
    let mut terminal = Terminal::start(&shell(&hosts, ""));
    terminal.shows("host: ");
    terminal.types_bytes(b"\xff\xfe\r");
    terminal.shows("no text in UTF-8");
    terminal.answers("host: ", "\x1b[A\x1b[C1");
    terminal.shows("you have no active session");
}

#[test]
fn the_agent_goes_along_with_the_shell_that_was_asked_for() {
    let mut hosts = start();
    let target = hosts.sshd.target("web-agent", "dev", "agent-forwarding = \"allowed\"");
    hosts.bastion.kill();
    hosts.bastion.set_targets(&target);
    hosts.bastion.boot();
    let socket = hosts.bastion.scratch().join("agent");
    let mut agent = std::process::Command::new("ssh-agent");
    let mut agent = Running::start(agent.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()));
    super::wait_until("the agent is there", || socket.exists());
    let mut ssh = shell(&hosts, "web-agent");
    let mut terminal = Terminal::start(ssh.arg("-A").env("SSH_AUTH_SOCK", &socket));
    terminal.answers("reason: ", "a look");
    terminal.answers("for how long [1h]: ", "");
    super::wait_until("the shell runs", || !hosts.records("program").is_empty());
    // 1: an agent without keys; 2: no agent.
    terminal.types("ssh-add -l; echo agent-$((40+$?)); exit\r");
    terminal.shows("agent-41");
    assert_eq!(terminal.finish().0, 0);
    assert!(agent.is_running());
}
