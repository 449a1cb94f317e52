//! Runs the player on the viewer's terminal: raw while it plays, put back however it ends.

use std::io;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::player::{Player, keys};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::out;

/// Columns and rows of the viewer's terminal, when they are known.
pub(super) fn size() -> Option<(u32, u32)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// Plays to the end, or until the viewer or a signal says stop.
pub(super) async fn play(mut player: Player, from: Duration) -> Outcome {
    let unusable = |error: io::Error| {
        Failure::of("cannot use the terminal", &error).hint("give --format text to read the recording")
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(unusable)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(unusable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unusable)?;
    let mut raw = Raw::enter().map_err(unusable)?;
    let began = Instant::now();
    let mut written = show(&player.start(from, Duration::ZERO));
    while written.is_ok() && !player.is_over() {
        let due = async {
            match player.deadline() {
                Some(deadline) => tokio::time::sleep_until(began + deadline).await,
                None => std::future::pending().await,
            }
        };
        let pressed = tokio::select! {
            () = due => Vec::new(),
            pressed = raw.read() => match pressed {
                Ok(pressed) => pressed,
                // The terminal has gone.
                Err(_) => break,
            },
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
            _ = interrupt.recv() => break,
        };
        let now = began.elapsed();
        let mut shown = player.tick(now);
        for key in keys(&pressed) {
            shown.extend(player.press(key, now));
        }
        written = show(&shown);
    }
    let restored = show(&player.restore());
    drop(raw);
    written.and(restored)?;
    out::line("")?;
    Ok(Exit::Done)
}

fn show(bytes: &[u8]) -> Result<(), Failure> {
    out::bytes(bytes)?;
    out::flush()
}

/// The terminal without echo, lines and signals, as a shell over SSH leaves it. Put back on drop.
#[derive(Debug)]
struct Raw {
    /// A terminal is read as a pipe is.
    terminal: pipe::Receiver,
    before: Termios,
}

impl Raw {
    /// Opens the terminal anew: reading it without blocking must not change what the shell holds.
    fn enter() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open("/dev/tty", flags, Mode::empty())?;
        let terminal = pipe::Receiver::from_file_unchecked(terminal.into())?;
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }

    /// What was typed. Cancel-safe.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 64];
        match self.terminal.read(&mut buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
