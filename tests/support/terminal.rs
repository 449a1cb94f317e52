//! A terminal that a test sits at: a program that thinks a person types, and everything that the
//! person would see.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::process::{Running, wait_until};

#[derive(Debug)]
pub struct Terminal {
    child: Running,
    person: File,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Up to where [`Terminal::shows`] has looked.
    looked: usize,
}

impl Terminal {
    pub fn start(command: &Command) -> Self {
        Self::start_sized(command, 80, 24)
    }

    pub fn start_sized(command: &Command, cols: u16, rows: u16) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let path = ptsname(&person, Vec::new()).unwrap();
        let path = std::ffi::OsStr::from_bytes(path.as_bytes());
        let not_ours = i32::try_from(OpenptFlags::NOCTTY.bits()).unwrap();
        let program = OpenOptions::new().read(true).write(true).custom_flags(not_ours).open(path).unwrap();
        let person = File::from(person);
        tcsetwinsize(&person, size(cols, rows)).unwrap();
        // A session of its own, so that the program's terminal is this one.
        let mut wrapped = Command::new("setsid");
        wrapped.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped.stdin(Stdio::from(program.try_clone().unwrap()));
        wrapped.stdout(Stdio::from(program.try_clone().unwrap())).stderr(Stdio::from(program));
        let child = Running::start(&mut wrapped);
        // The program must hold its side alone: its end is then the terminal's.
        drop(wrapped);
        let shown = Arc::new(Mutex::new(Vec::new()));
        watch(person.try_clone().unwrap(), Arc::clone(&shown));
        Self { child, person, shown, looked: 0 }
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until the text is shown, after what was waited for before.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let deadline = std::time::Instant::now() + super::process::PATIENCE;
        loop {
            {
                let shown = self.shown.lock().unwrap();
                let found = shown[self.looked..].windows(text.len()).position(|part| part == text.as_bytes());
                if let Some(at) = found {
                    self.looked += at + text.len();
                    return;
                }
            }
            assert!(
                std::time::Instant::now() < deadline,
                "`{text}` is not shown after byte {}:\n{}\n{:?}",
                self.looked,
                self.text(),
                self.text()
            );
            super::process::pause();
        }
    }

    pub fn types(&mut self, text: &str) {
        self.types_bytes(text.as_bytes());
    }

    pub fn types_bytes(&mut self, bytes: &[u8]) {
        self.person.write_all(bytes).unwrap();
    }

    /// Waits for a question and answers it.
    #[track_caller]
    pub fn answers(&mut self, question: &str, answer: &str) {
        self.shows(question);
        self.types(&format!("{answer}\r"));
    }

    pub fn resize(&self, cols: u16, rows: u16) {
        tcsetwinsize(&self.person, size(cols, rows)).unwrap();
    }

    /// The window is closed without a word.
    pub fn kill(self) {
        drop(self);
    }

    /// Waits for the end: its status and everything that was shown.
    #[track_caller]
    pub fn finish(mut self) -> (i32, String) {
        let shown = Arc::clone(&self.shown);
        wait_until(&format!("the program ends: {}", self.text()), || !self.child.is_running());
        let status = self.child.child().wait().unwrap();
        // What it said last may still be on its way.
        wait_until("the terminal is read to its end", || Arc::strong_count(&shown) == 2);
        (status.code().unwrap_or(-1), String::from_utf8_lossy(&shown.lock().unwrap()).into_owned())
    }
}

const fn size(cols: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Reads until the program's side is closed, which Linux calls an error.
fn watch(mut terminal: File, shown: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = terminal.read(&mut buffer) {
            shown.lock().unwrap().extend(&buffer[..count]);
        }
    });
}
