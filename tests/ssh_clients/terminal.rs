//! A client in a pseudo-terminal of ours, whose size and keys are ours too.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::process::{PATIENCE, Running, pause, wait_until};

pub(crate) struct Terminal {
    client: Running,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    watching: JoinHandle<()>,
}

impl Terminal {
    /// Starts `command` as the leader of a session of its own in a terminal of this size.
    pub(crate) fn start(command: &Command, cols: u16, rows: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        resize(&ours, cols, rows);
        let mut line = Command::new("setsid");
        line.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => line.env(name, value),
                None => line.env_remove(name),
            };
        }
        line.env("TERM", "xterm-256color");
        let side = || Stdio::from(theirs.try_clone().unwrap());
        let client = Running::start(line.stdin(side()).stdout(side()).stderr(side()));
        drop(line);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let keyboard = File::from(ours);
        let (mut shown, kept) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        let watching = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last one to close the other side makes reading fail.
            while let Ok(read @ 1..) = shown.read(&mut bytes) {
                kept.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        });
        Self { client, keyboard, screen, watching }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, cols: u16, rows: u16) {
        resize(&self.keyboard, cols, rows);
    }

    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.screen().contains(text) {
            assert!(Instant::now() < deadline, "the terminal shows {:?}, not {text:?}", self.screen());
            pause();
        }
    }

    /// Waits for the client's end; gives its status and all that was shown.
    #[track_caller]
    pub(crate) fn ends(mut self) -> (String, String) {
        wait_until("the client has ended", || !self.client.is_running());
        wait_until("all that it said is here", || self.watching.is_finished());
        let status = self.client.child().wait().unwrap().to_string();
        (status, self.screen())
    }
}

fn resize(terminal: impl AsFd, cols: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}
