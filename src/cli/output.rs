//! Where a command's result goes: to a new file, or to standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::exit::{Exit, Failure};

/// A new file that only its owner reads, or standard output. Unless it is [finished](Self::finish), the file goes
/// again: half of a result would only be mistaken for one.
#[derive(Debug)]
pub(super) struct Output {
    to: To,
    unfinished: Option<PathBuf>,
}

#[derive(Debug)]
enum To {
    File(BufWriter<File>),
    Standard(BufWriter<io::Stdout>),
}

impl Output {
    /// The file must not exist; none is standard output.
    pub(super) fn create(path: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self { to: To::Standard(BufWriter::new(io::stdout())), unfinished: None });
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let file =
            file.map_err(|error| Failure::of(format!("cannot create `{}`", path.display()), &error))?;
        Ok(Self { to: To::File(BufWriter::new(file)), unfinished: Some(path) })
    }

    /// What is written is there to stay.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.flush().map_err(|error| failure(&error))?;
        if let To::File(file) = &self.to {
            file.get_ref().sync_all().map_err(|error| failure(&error))?;
        }
        self.unfinished = None;
        Ok(())
    }
}

/// A closed pipe (`| head`) ends the command quietly.
pub(super) fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Exit::Done, ""),
        _ => Failure::of("cannot write the result", error),
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            To::File(file) => file.write(bytes),
            To::Standard(standard) => standard.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::File(file) => file.flush(),
            To::Standard(standard) => standard.flush(),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(path) = self.unfinished.take() {
            let _best_effort = std::fs::remove_file(path);
        }
    }
}
