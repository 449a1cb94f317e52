//! Child processes that end with the test, and bounded waits.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes, short enough to fail before a test run's patience ends.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A finished command, as text.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn failure(self) -> Self {
        assert!(!self.status.success(), "succeeded\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stdout.contains(text) || self.stderr.contains(text),
            "`{text}` is in neither\nstdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A child that is killed when dropped.
#[derive(Debug)]
pub struct Running(Option<Child>);

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Self(Some(child))
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))))
    }

    /// With both outputs kept for [`Running::finish`].
    pub fn start_quietly(command: &mut Command) -> Self {
        Self::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("the child has not been waited for")
    }

    pub fn pid(&self) -> u32 {
        self.0.as_ref().expect("the child has not been waited for").id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child().try_wait().unwrap().is_none()
    }

    /// Waits for the end, [`PATIENCE`] at most. For children with little output.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        wait_until("the process ends", || !self.is_running());
        let mut child = self.0.take().unwrap();
        let read = |pipe: Option<&mut dyn Read>| {
            let mut text = Vec::new();
            if let Some(pipe) = pipe {
                pipe.read_to_end(&mut text).unwrap();
            }
            String::from_utf8_lossy(&text).into_owned()
        };
        let stdout = read(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read));
        let stderr = read(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
        Finished { status: child.wait().unwrap(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for a level, [`PATIENCE`] at most.
#[track_caller]
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, holds);
}

/// As [`wait_until`], as long as it may take where others are at work on the same machine.
#[track_caller]
pub fn wait_for(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        pause();
    }
}

pub fn pause() {
    pause_for(Duration::from_millis(10));
}

/// Lets time pass: between looks at another process, which has no event to wait for, before something is done at a
/// random moment, and as people do who type.
#[expect(clippy::disallowed_methods, reason = "no event is there to wait for")]
pub fn pause_for(duration: Duration) {
    std::thread::sleep(duration);
}

pub fn have(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|o| o.status.success())
}
