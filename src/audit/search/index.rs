//! The index of a log, for one process at a time: kept up to date, searched, made anew when it is of no use.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::feed::{Feeder, Stopped};
use super::find::{MOST, find};
use super::matching::Wanted;
use super::{Found, IndexError, May, Query, SearchError, schema};

/// How much of the log is taken in at once, in bytes.
const STRETCH: u64 = 8 << 20;

/// Where the index stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All that was in the log is in the index.
    UpToDate,
    /// There is more in the log.
    Behind,
}

#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    log: PathBuf,
    stretch: u64,
    most: u64,
    feeder: Mutex<Option<Feeder>>,
}

impl Index {
    /// The index in the file `path` of the log in the directory `log`. Nothing is opened yet.
    pub fn new(path: &Path, log: &Path) -> Self {
        Self {
            path: path.to_owned(),
            log: log.to_owned(),
            stretch: STRETCH,
            most: MOST,
            feeder: Mutex::new(None),
        }
    }

    /// With smaller transactions and smaller looks: what is stored and taken up again is put to the test more often.
    #[cfg(test)]
    pub(super) fn in_steps(mut self, stretch: u64, most: u64) -> Self {
        (self.stretch, self.most) = (stretch, most);
        self
    }

    /// Takes in what the log has more, at most about `most` bytes of it.
    pub fn update(&self, most: u64) -> Result<Progress, SearchError> {
        let mut feeder = self.feeder.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        while taken < most {
            match self.stretch(&mut feeder) {
                Ok(true) => taken += self.stretch,
                Ok(false) => return Ok(Progress::UpToDate),
                Err(stopped) => {
                    *feeder = None;
                    return Err(self.stopped(stopped));
                }
            }
        }
        Ok(Progress::Behind)
    }

    /// One transaction; whether there is more.
    fn stretch(&self, feeder: &mut Option<Feeder>) -> Result<bool, Stopped> {
        let open = match feeder.take() {
            Some(open) => open,
            None => Feeder::open(&self.path, &self.log)?,
        };
        feeder.insert(open).advance(self.stretch)
    }

    fn stopped(&self, stopped: Stopped) -> SearchError {
        match stopped {
            Stopped::Log(error) => error,
            Stopped::Index(error) => {
                self.throw_away_if_useless(&error);
                self.error(error)
            }
        }
    }

    /// Finds the newest hits in what has been taken in, of what whoever asks may read.
    pub fn search(&self, query: Query, may: &mut May<'_>) -> Result<Found, SearchError> {
        let wanted = Wanted::new(query)?;
        let found = schema::reader(&self.path)
            .map_err(IndexError::from)
            .and_then(|connection| find(&connection, &self.log, &wanted, may, self.most));
        found.map_err(|error| {
            let mut feeder = self.feeder.lock().unwrap_or_else(PoisonError::into_inner);
            *feeder = None;
            self.throw_away_if_useless(&error);
            self.error(error)
        })
    }

    fn throw_away_if_useless(&self, error: &IndexError) {
        if schema::is_useless(error) {
            tracing::warn!(path = %self.path.display(), %error, "the search index is made anew");
            if let Err(error) = schema::discard(&self.path) {
                tracing::error!(path = %self.path.display(), %error, "cannot remove the search index");
            }
        }
    }

    fn error(&self, source: IndexError) -> SearchError {
        SearchError::Index { path: self.path.clone(), source }
    }
}
