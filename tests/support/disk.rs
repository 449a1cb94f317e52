//! A small disk of the test's own, in a mount namespace that nobody else sees.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::{Finished, Running};

#[derive(Debug)]
pub struct Disk {
    /// Keeps the namespace.
    holder: Running,
    mount_point: TempDir,
}

impl Disk {
    /// A disk of `kib` KiB; `None` where one may not be mounted.
    pub fn new(kib: u32) -> Option<Self> {
        let mount_point = tempfile::Builder::new().prefix("disk").tempdir().unwrap();
        let root = rustix::process::geteuid().is_root();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", if root { "-m" } else { "-Urm" }]);
        command.args([
            "sh",
            "-c",
            "mount -t tmpfs -o \"size=$1k\" none \"$2\" && echo mounted && exec cat",
            "sh",
        ]);
        command.arg(kib.to_string()).arg(mount_point.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = Running::start(&mut command);
        let mut line = String::new();
        let stdout = holder.child().stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        (line == "mounted\n").then_some(Self { holder, mount_point })
    }

    /// Where the disk is for those inside.
    pub fn path(&self) -> &Path {
        self.mount_point.path()
    }

    /// Where the test finds it from outside.
    pub fn outside(&self) -> PathBuf {
        let inside = self.path().strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(inside)
    }

    /// Runs a command inside: goes before it.
    pub fn wrapper(&self) -> Vec<String> {
        let mut line = vec!["nsenter".to_owned(), "--target".into(), self.holder.pid().to_string()];
        line.push("--mount".into());
        if !rustix::process::geteuid().is_root() {
            line.extend(["--user".into(), "--preserve-credentials".into()]);
        }
        line.push("--".into());
        line
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, kib: u32) {
        self.try_resize(kib).success();
    }

    pub fn try_resize(&self, kib: u32) -> Finished {
        let mut line = self.wrapper();
        line.extend(["mount".into(), "-o".into(), format!("remount,size={kib}k")]);
        Command::new(&line[0]).args(&line[1..]).arg(self.path()).output().unwrap().into()
    }
}
