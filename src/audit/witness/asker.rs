//! Has a witness cosign the newest checkpoint, over HTTP (c2sp.org/tlog-witness, `add-checkpoint`).

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;

use super::Asked;
use super::follow::{Follower, NotShown};
use crate::audit::checkpoints;
use crate::audit::note::{BadCheckpoint, VerifyKey};
use crate::config::Witness;
use crate::crypto::cosign::WitnessVerifyKey;

/// How long a witness may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What a witness that knows another size answers with, besides the status 409.
pub const SIZE_TYPE: &str = "text/x.tlog.size";
/// Where a witness is asked.
pub const ADD_CHECKPOINT: &str = "/add-checkpoint";
/// No answer is longer, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum NotCosigned {
    #[error("the witness does not answer")]
    Silent(#[source] reqwest::Error),
    #[error("the witness answers with status {status}: {what}")]
    Status { status: StatusCode, what: String },
    /// What it saw is not what there is: the log was rewritten, or cut off.
    #[error("the witness refuses: {0}")]
    Refused(String),
    #[error("the witness's cosignature does not hold: is its key the right one?")]
    BadCosignature,
    #[error(transparent)]
    NotShown(#[from] NotShown),
    #[error("the log was not read to its end")]
    Stopped,
    #[error("there is no checkpoint yet")]
    NoCheckpoint,
    #[error(transparent)]
    BadCheckpoint(#[from] BadCheckpoint),
    #[error("cannot read or write in `{}`", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl NotCosigned {
    /// Whether it says that the log is not what it was.
    pub fn is_about_the_log(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::BadCheckpoint(_)
                | Self::NotShown(NotShown::Shorter { .. } | NotShown::Damaged { .. })
        )
    }
}

/// Asks one witness.
#[derive(Debug)]
pub struct Asker {
    directory: PathBuf,
    log: VerifyKey,
    peer: Witness,
    client: reqwest::Client,
    /// From what the witness saw last; `None` until it has said.
    follower: Option<Follower>,
    /// It did not answer, or not with a cosignature.
    was_silent: bool,
}

enum Answer {
    Cosigned(String),
    Knows { size: u64 },
}

impl Asker {
    pub fn new(directory: &Path, log: VerifyKey, peer: Witness) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { directory: directory.to_owned(), log, peer, client, follower: None, was_silent: false })
    }

    /// Has the newest checkpoint cosigned and keeps it; gives the number of records that it covers.
    pub async fn ask(&mut self) -> Result<u64, NotCosigned> {
        let note = checkpoints::newest(&self.directory)
            .map_err(|source| NotCosigned::File { path: self.directory.clone(), source })?
            .ok_or(NotCosigned::NoCheckpoint)?;
        let size = self.log.open(&note)?.size;
        // One of which nothing is known, or that was silent, is asked what it saw: that costs no reading.
        let first = Asked { old: 0, proof: Vec::new(), note: note.clone() };
        let mut asked = match &mut self.follower {
            Some(follower) if !self.was_silent => follower.ask(size, &note)?,
            _ => first,
        };
        self.was_silent = true;
        for again in [true, false] {
            match self.put(&asked).await? {
                Answer::Cosigned(lines) => {
                    self.keep(&note, &lines)?;
                    match &mut self.follower {
                        Some(follower) if asked.old > 0 => follower.seen(),
                        _ => self.follower = Some(self.follow(size).await?),
                    }
                    self.was_silent = false;
                    return Ok(size);
                }
                Answer::Knows { size: seen } if again && seen <= size => {
                    let known = self.follower.take().filter(|follower| follower.size() == seen);
                    let follower = match known {
                        Some(follower) => follower,
                        None => self.follow(seen).await?,
                    };
                    asked = self.follower.insert(follower).ask(size, &note)?;
                }
                Answer::Knows { size: seen } => {
                    let what = format!("it has seen {seen} records, and the newest checkpoint covers {size}");
                    return Err(NotCosigned::Refused(what));
                }
            }
        }
        Err(NotCosigned::Refused("it says another size each time".to_owned()))
    }

    /// Reads the log up to what the witness saw, which takes as long as what is here of the log is.
    async fn follow(&self, size: u64) -> Result<Follower, NotCosigned> {
        let (directory, node) = (self.directory.clone(), self.log.node().clone());
        let reading = tokio::task::spawn_blocking(move || Follower::from(&directory, &node, size));
        Ok(reading.await.map_err(|_| NotCosigned::Stopped)??)
    }

    async fn put(&self, asked: &Asked) -> Result<Answer, NotCosigned> {
        let url = format!("{}{ADD_CHECKPOINT}", self.peer.url.trim_end_matches('/'));
        let sent = self.client.post(url).body(asked.to_text()).send().await;
        let mut response = sent.map_err(NotCosigned::Silent)?;
        let status = response.status();
        let is_size =
            response.headers().get(reqwest::header::CONTENT_TYPE).is_some_and(|kind| kind == SIZE_TYPE);
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(NotCosigned::Silent)? {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST_ANSWER {
                return Err(NotCosigned::Status { status, what: "too long an answer".to_owned() });
            }
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        match status {
            StatusCode::OK => Ok(Answer::Cosigned(text)),
            StatusCode::CONFLICT if is_size => match text.trim_end().parse() {
                Ok(size) => Ok(Answer::Knows { size }),
                Err(_) => Err(NotCosigned::Status { status, what: "not a size".to_owned() }),
            },
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(NotCosigned::Refused(short(&text)))
            }
            status => Err(NotCosigned::Status { status, what: short(&text) }),
        }
    }

    /// Beside the log, as `cosigned-…`: the note with the cosignature, in place of the one before.
    fn keep(&self, note: &str, lines: &str) -> Result<(), NotCosigned> {
        let cosigned = format!("{note}{lines}");
        let holds = self.peer.key.cosigned_at(&cosigned).is_some() && self.log.open(&cosigned).is_ok();
        if !holds {
            return Err(NotCosigned::BadCosignature);
        }
        let path = self.directory.join(cosigned_file(&self.peer.key));
        let write = || {
            let aside = path.with_extension("new");
            let mut options = OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
            file.write_all(cosigned.as_bytes())?;
            file.sync_all()?;
            fs::rename(&aside, &path)
        };
        write().map_err(|source| NotCosigned::File { path: path.clone(), source })
    }
}

/// The file that holds what a witness cosigned last.
pub fn cosigned_file(key: &WitnessVerifyKey) -> String {
    format!("cosigned-{}", key.short())
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}
