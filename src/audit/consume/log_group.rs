//! Control records, as they come, in a log group of Amazon's `CloudWatch` Logs: for those who act upon them. Read from the
//! archive, from where the last look ended, so that none is left out.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::operation::create_log_stream::CreateLogStreamError;
use aws_sdk_cloudwatchlogs::types::InputLogEvent;
use serde::{Deserialize, Serialize};

use super::archive::replace;
use crate::audit::files::{Lines, Place, Read};
use crate::audit::line::{Envelope, parse_line};
use crate::audit::stream::kinesis::explain;
use crate::domain::id::NodeId;

const FILE: &str = "logged";
/// Limits of one request (`PutLogEvents`), and what each event costs beside its text.
const MOST_EVENTS: usize = 10_000;
const MOST_BYTES: usize = 1_000_000;
const EVENT_BYTES: usize = 26;
/// The events of one request are of less than so many milliseconds (a day, by Amazon's rule): else all are refused.
const LONGEST_SPAN: i64 = 23 * 3_600_000;

#[derive(Debug)]
pub struct LogGroup {
    client: Client,
    group: String,
    directory: PathBuf,
    kept: Kept,
}

/// How far each node's log was read.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    group: String,
    places: BTreeMap<NodeId, Position>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Position {
    file: u32,
    offset: u64,
}

/// Why events could not be written now.
#[derive(Debug, thiserror::Error)]
pub enum NotLogged {
    #[error("cannot read the archive")]
    Archive(#[from] io::Error),
    #[error("cannot write to the log group `{group}`: {why}")]
    Refused { group: String, why: String },
}

impl LogGroup {
    pub fn open(config: &aws_config::SdkConfig, group: String, archive: &Path) -> io::Result<Self> {
        let kept = match fs::read(archive.join(FILE)) {
            Ok(text) => serde_json::from_slice::<Kept>(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        let kept = if kept.group == group { kept } else { Kept { group: group.clone(), ..Kept::default() } };
        Ok(Self { client: Client::new(config), group, directory: archive.to_owned(), kept })
    }

    fn refused(&self, why: String) -> NotLogged {
        NotLogged::Refused { group: self.group.clone(), why }
    }

    /// Writes what `node`'s archive has beyond what was written before. Gives how many events Amazon would not take for
    /// their age.
    pub async fn write(&mut self, node: &NodeId) -> Result<usize, NotLogged> {
        let mut refused = 0;
        loop {
            let first = !self.kept.places.contains_key(node);
            let from = self.kept.places.get(node).copied().unwrap_or(Position { file: 1, offset: 0 });
            let (events, next) = self.read(node, from)?;
            if first {
                self.create_stream(node).await?;
            }
            let is_all = events.len() < MOST_EVENTS && next.offset == from.offset && next.file == from.file;
            if !events.is_empty() {
                refused += self.put(node, events).await?;
            }
            self.kept.places.insert(node.clone(), next);
            if is_all {
                return Ok(refused);
            }
            replace(&self.directory, FILE, &serde_json::to_vec(&self.kept).map_err(io::Error::from)?)?;
        }
    }

    /// Control records from `from` on, as many as one request takes, and where the next one begins.
    fn read(&self, node: &NodeId, from: Position) -> Result<(Vec<InputLogEvent>, Position), NotLogged> {
        let directory = self.directory.join(node.as_str());
        let mut lines = Lines::follow_from(&directory, Place { file: from.file, offset: from.offset });
        let (mut events, mut bytes, mut next) = (Vec::new(), 0, from);
        let mut span: Option<(i64, i64)> = None;
        while let Read::Line(place) = lines.next()? {
            let line = parse_line(lines.line()).map_err(|error| io::Error::other(error.to_string()))?;
            let envelope = Envelope::parse(line.json).map_err(io::Error::from)?;
            if envelope.rec == node.as_str() {
                bytes += line.json.len() + EVENT_BYTES;
                let at = envelope.at.as_micros().div_euclid(1000);
                let (first, last) = span.map_or((at, at), |(first, last)| (first.min(at), last.max(at)));
                let is_full = events.len() == MOST_EVENTS || bytes > MOST_BYTES;
                if !events.is_empty() && (is_full || last - first > LONGEST_SPAN) {
                    next = Position { file: place.file, offset: place.offset };
                    break;
                }
                span = Some((first, last));
                let event = InputLogEvent::builder()
                    .timestamp(at)
                    .message(String::from_utf8_lossy(line.json))
                    .build();
                events.push(event.map_err(|error| self.refused(explain(&error)))?);
            }
            let after = lines.place();
            next = Position { file: after.file, offset: after.offset };
        }
        Ok((events, next))
    }

    /// In the order of time, as is asked for: events are recorded when they come out of the outbox, not when they happen.
    async fn put(&self, node: &NodeId, mut events: Vec<InputLogEvent>) -> Result<usize, NotLogged> {
        events.sort_by_key(InputLogEvent::timestamp);
        let request = self.client.put_log_events().log_group_name(&self.group).log_stream_name(node.as_str());
        let answer = request.set_log_events(Some(events)).send().await;
        let answer = answer.map_err(|error| self.refused(explain(&error)))?;
        let too_old = answer.rejected_log_events_info().map_or(0, |rejected| {
            rejected.too_old_log_event_end_index().max(rejected.expired_log_event_end_index()).unwrap_or(0)
        });
        Ok(usize::try_from(too_old).unwrap_or(0))
    }

    async fn create_stream(&self, node: &NodeId) -> Result<(), NotLogged> {
        let request = self.client.create_log_stream().log_group_name(&self.group);
        match request.log_stream_name(node.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateLogStreamError::is_resource_already_exists_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(self.refused(explain(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::note::SigningKey;
    use crate::audit::record::ControlEntry;
    use crate::audit::{Journal, JournalOptions};
    use crate::clock::Clock;
    use crate::domain::event::{Action, Event};
    use crate::domain::time::Timestamp;
    use std::time::Duration;

    /// An archive that is older than a day must not be refused for ever.
    #[tokio::test]
    async fn no_request_has_events_of_more_than_a_day() {
        let archive = tempfile::tempdir().unwrap();
        let node = NodeId::from_random([1; 10]);
        let key = SigningKey::from_pem(&SigningKey::generate(), node.clone()).unwrap();
        let start = Timestamp::from_micros(1_795_468_800_000_000);
        let directory = archive.path().join(node.as_str());
        let (journal, _) = Journal::open(&directory, Clock::manual(start), JournalOptions::new(key)).unwrap();
        for hours in [0, 1, 20, 30, 2, 100, 101] {
            let (event, at) = (Event::done(Action::Login), start.plus(Duration::from_hours(hours)));
            journal.control(&[ControlEntry { event, at, outbox: None }]).await.unwrap();
        }
        let version = aws_config::BehaviorVersion::latest();
        let config = aws_config::SdkConfig::builder().behavior_version(version).build();
        let group = LogGroup::open(&config, "group".to_owned(), archive.path()).unwrap();
        let (mut from, mut requests) = (Position { file: 1, offset: 0 }, Vec::new());
        loop {
            let (events, next) = group.read(&node, from).unwrap();
            if events.is_empty() {
                break;
            }
            let hour = |event: &InputLogEvent| (event.timestamp() * 1000 - start.as_micros()) / 3_600_000_000;
            requests.push(events.iter().map(hour).collect::<Vec<_>>());
            from = next;
        }
        assert_eq!(requests, [vec![0, 1, 20], vec![30], vec![2], vec![100, 101]]);
    }
}
