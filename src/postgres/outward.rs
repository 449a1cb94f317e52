//! Client to target: whole messages are taken as they come, observed, recorded, and only when their records are durable
//! forwarded, as one write. One wait serves all that came together. What the rules refuse does not go on.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use crate::gateway::scratch;

use super::codec::encode;
use super::codec::frame::{Piece, Splitter};
use super::guard::{self, Guard};
use super::observe::{Event, Observed};
use super::pump::{Shared, Stop};
use super::{ClientStream, TargetStream};

/// How much is gathered before it is recorded and forwarded, in bytes.
const BATCH: usize = 256 * 1024;
/// A longer piece is not copied to those before it: it is written by itself.
const COPIED: usize = 16 * 1024;

/// Client to target.
pub(super) struct Outward<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) guard: Guard<'a>,
    pub(super) read: ReadHalf<ClientStream>,
    pub(super) write: WriteHalf<TargetStream>,
    pub(super) splitter: Splitter,
    pub(super) buffer: BytesMut,
    pub(super) batch: Batch,
    pub(super) events: Vec<Event>,
    /// Whether what was written to the target ends where a message ends.
    pub(super) between_messages: bool,
}

/// Observed, not yet forwarded: many small pieces become one, so that they are one write, and one record of TLS.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pieces: Vec<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() <= COPIED {
            self.small.extend_from_slice(&piece);
        } else {
            self.end_small();
            self.pieces.push(piece);
        }
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.end_small();
        // Nothing is kept for what comes next, perhaps in hours.
        std::mem::take(self).pieces
    }
}

impl Outward<'_> {
    pub(super) async fn run(&mut self) -> Stop {
        loop {
            if let Err(stop) = self.pass_on().await {
                return stop;
            }
            if self.buffer.is_empty() {
                // An idle connection holds no memory of what went through it.
                self.buffer = BytesMut::new();
            }
            match scratch::read_into(&mut self.read, &mut self.buffer).await {
                Ok(0) | Err(_) => return Stop::ClientGone,
                Ok(read) => self.shared.seen(&self.shared.from_client, read),
            }
        }
    }

    /// Observes, records and forwards every message that is there.
    async fn pass_on(&mut self) -> Result<(), Stop> {
        loop {
            // What came before a message that we cannot accept is still forwarded.
            let next = self.splitter.next(&mut self.buffer);
            let piece = match next {
                Ok(Some(piece)) => piece,
                Ok(None) => return self.forward().await,
                Err(error) => {
                    self.forward().await?;
                    return Err(error.into());
                }
            };
            let stand_in = match self.observe(&piece).await {
                Ok(stand_in) => stand_in,
                Err(error) => {
                    self.forward().await?;
                    return Err(error);
                }
            };
            let terminate = matches!(&piece, Piece::Frame(frame) if frame.tag == b'X');
            if terminate {
                self.batch.push(piece.raw().clone());
                self.forward().await?;
                return Err(Stop::ClientDone);
            }
            self.batch.push(stand_in.unwrap_or_else(|| piece.raw().clone()));
            if self.batch.bytes >= BATCH {
                self.forward().await?;
            }
        }
    }

    /// Waits with a message whose meaning depends on answers that have not come. Gives what goes on in its place where it
    /// is refused.
    async fn observe(&mut self, piece: &Piece) -> Result<Option<Bytes>, Stop> {
        loop {
            let answered = self.shared.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            let (observed, stand_in) = {
                let mut observer = self.shared.observer();
                let mut stand_in = None;
                if let Piece::Frame(frame) = piece {
                    let refusal = self.guard.refusal(frame, &mut observer, self.shared.settings());
                    stand_in = refusal.as_ref().map(|refusal| guard::stand_in(frame, refusal));
                    observer.refuse_next(refusal);
                }
                (observer.piece(piece, self.shared.now_us(), &mut self.events)?, stand_in)
            };
            match observed {
                Observed::Forward => {
                    self.guard.passed();
                    return Ok(stand_in);
                }
                Observed::Hold { flush } => {
                    if flush {
                        self.batch.push(encode::flush());
                    }
                    self.forward().await?;
                    answered.await;
                }
            }
        }
    }

    /// Makes the records of the batch durable, then writes the batch to the target.
    async fn forward(&mut self) -> Result<(), Stop> {
        self.shared.observer().flush(self.shared.now_us(), &mut self.events);
        let bodies = self.shared.bodies(&mut self.events);
        if !bodies.is_empty() {
            self.shared.recorder.record(&bodies).await?;
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        self.between_messages = false;
        for bytes in self.batch.take() {
            self.write.write_all(&bytes).await.map_err(|_| Stop::TargetGone)?;
        }
        self.write.flush().await.map_err(|_| Stop::TargetGone)?;
        self.between_messages = self.splitter.at_boundary();
        Ok(())
    }
}
