//! A program that is talked to through pipes, such as `ssh -tt`: what it says is gathered as it comes.

use std::io::{Read, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::process::{PATIENCE, Running, wait_until};

/// How long before the end of everybody's patience it is said what was waited for.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Shell {
    running: Running,
    /// Taken to close it.
    pub input: Option<ChildStdin>,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl Shell {
    pub fn start(command: &mut Command) -> Self {
        let (mut shell, out) = Self::start_unread(command);
        shell.out = gather(out);
        shell
    }

    /// Its output is nobody's to read but the caller's.
    pub fn start_unread(command: &mut Command) -> (Self, ChildStdout) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(command);
        let child = running.child();
        let input = child.stdin.take();
        let out = child.stdout.take().unwrap();
        let err = gather(child.stderr.take().unwrap());
        (Self { running, input, out: Arc::default(), err }, out)
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock().unwrap()).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap()).into_owned()
    }

    pub fn types(&mut self, text: &str) {
        let input = self.input.as_mut().expect("the input is open");
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    #[track_caller]
    pub fn says(&self, text: &str) {
        self.wait_until(text, || (self.out().contains(text) || self.err().contains(text)).then_some(()));
    }

    /// Waits until `found` gives something; fails with all that was said.
    #[track_caller]
    fn wait_until<T>(&self, what: &str, found: impl Fn() -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut value = None;
        wait_until(what, || {
            value = found();
            value.is_some() || std::time::Instant::now() + MARGIN > deadline
        });
        value.unwrap_or_else(|| panic!("`{what}` is not in\n{}\n{}", self.out(), self.err()))
    }

    /// What stands in brackets behind `mark`, once it is said: `mark[…]`.
    #[track_caller]
    pub fn value(&self, mark: &str) -> String {
        self.wait_until(&format!("{mark}[…]"), || {
            let out = self.out();
            out.split(&format!("{mark}[")).skip(1).find_map(|rest| {
                let (value, _) = rest.split_once(']')?;
                // A terminal echoes what was typed: `mark[$$]`.
                (!value.contains('$')).then(|| value.to_owned())
            })
        })
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        self.running.signal(signal);
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Waits for its end; gives its status.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        wait_until("the program ends", || !self.running.is_running());
        self.running.child().wait().unwrap().code()
    }
}

fn gather(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let gathered = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&gathered);
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            into.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
    });
    gathered
}
