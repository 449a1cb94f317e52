//! Closed files of the archive as objects in Amazon S3, or what speaks its protocol: each written once, never over
//! another, and locked until its time is over where that is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectLockMode};
use serde::{Deserialize, Serialize};

use super::archive::{Sealed, replace};
use super::{Alarm, AlarmKind};
use crate::audit::checkpoints;
use crate::audit::files::packed_name;
use crate::audit::note::Checkpoint;
use crate::audit::stream::kinesis::explain;
use crate::crypto::sha256;
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

const FILE: &str = "uploaded";

/// `s3://BUCKET/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub bucket: String,
    /// Without a slash at either end; may be empty.
    pub prefix: String,
}

impl std::str::FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(format!("`{text}` is not an address of a bucket: write `s3://bucket/prefix`"));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// Where closed files go.
#[derive(Debug)]
pub struct Objects {
    client: Client,
    destination: Destination,
    /// Nobody can delete an object for so long (Object Lock, mode COMPLIANCE).
    retain: Option<Duration>,
    directory: PathBuf,
    kept: Kept,
}

/// The last file of each node that is there.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    destination: String,
    files: BTreeMap<NodeId, u32>,
}

/// Why something could not be stored now.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    #[error("cannot use the archive")]
    Archive(#[from] io::Error),
    #[error("cannot write `{key}`: {why}")]
    Refused { key: String, why: String },
}

impl Objects {
    /// Goes on from what was uploaded before.
    pub fn open(
        config: &aws_config::SdkConfig,
        destination: Destination,
        retain: Option<Duration>,
        archive: &Path,
    ) -> io::Result<Self> {
        // Emulators and most other servers have no names for buckets.
        let path_style = config.endpoint_url().is_some();
        let settings = aws_sdk_s3::config::Builder::from(config).force_path_style(path_style).build();
        let kept = match fs::read(archive.join(FILE)) {
            Ok(text) => serde_json::from_slice::<Kept>(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        let name = destination.to_string();
        let kept =
            if kept.destination == name { kept } else { Kept { destination: name, ..Kept::default() } };
        let client = Client::from_conf(settings);
        Ok(Self { client, destination, retain, directory: archive.to_owned(), kept })
    }

    /// The first file of a node that is not there yet.
    pub fn wanted(&self, node: &NodeId) -> u32 {
        self.kept.files.get(node).map_or(1, |last| last.saturating_add(1))
    }

    /// Stores a closed file, and the newest checkpoint over it. What is there already must be the same.
    pub async fn store(
        &mut self,
        node: &NodeId,
        file: &Sealed,
        now: Timestamp,
    ) -> Result<Vec<Alarm>, NotStored> {
        let mut alarms = Vec::new();
        let body = fs::read(&file.path)?;
        alarms.extend(self.put(node, &packed_name(file.number), body, now).await?);
        let signed = match fs::read_to_string(&file.checkpoint) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        if let Some(checkpoint) = Checkpoint::unchecked(&signed) {
            let name = checkpoints::object_name(checkpoint.size);
            alarms.extend(self.put(node, &name, signed.into_bytes(), now).await?);
        }
        self.kept.files.insert(node.clone(), file.number);
        replace(&self.directory, FILE, &serde_json::to_vec(&self.kept).map_err(io::Error::from)?)?;
        Ok(alarms)
    }

    async fn put(
        &self,
        node: &NodeId,
        name: &str,
        body: Vec<u8>,
        now: Timestamp,
    ) -> Result<Option<Alarm>, NotStored> {
        let parts = [self.destination.prefix.as_str(), node.as_str(), name];
        let key = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let hash = sha256(&[&body]);
        let until = self.retain.map(|retain| now.plus(retain).as_micros().div_euclid(1_000_000));
        let request = self.client.put_object().bucket(&self.destination.bucket).key(&key);
        let request = request.if_none_match("*").checksum_algorithm(ChecksumAlgorithm::Sha256);
        let request = request
            .set_object_lock_mode(until.map(|_| ObjectLockMode::Compliance))
            .set_object_lock_retain_until_date(until.map(DateTime::from_secs));
        let Err(error) = request.body(ByteStream::from(body)).send().await else { return Ok(None) };
        let is_taken = error.raw_response().is_some_and(|response| response.status().as_u16() == 412);
        if !is_taken {
            return Err(NotStored::Refused { key, why: explain(&error) });
        }
        if self.hash(&key).await? == hash {
            return Ok(None);
        }
        let what = format!("`{key}` in {} is not what is to be there", self.destination.bucket);
        Ok(Some(Alarm { at: now, node: Some(node.clone()), kind: AlarmKind::Occupied, what }))
    }

    /// The hash of an object that is there.
    async fn hash(&self, key: &str) -> Result<crate::crypto::Hash, NotStored> {
        let refused = |why: String| NotStored::Refused { key: key.to_owned(), why };
        let object = self.client.get_object().bucket(&self.destination.bucket).key(key).send().await;
        let object = object.map_err(|error| refused(explain(&error)))?;
        let bytes = object.body.collect().await.map_err(|error| refused(explain(&error)))?;
        Ok(sha256(&[&bytes.into_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_bucket_and_a_prefix() {
        let parse = |text: &str| text.parse::<Destination>().map(|parsed| parsed.to_string());
        assert_eq!(parse("s3://bucket/a/b/").unwrap(), "s3://bucket/a/b");
        assert_eq!(parse("s3://bucket").unwrap(), "s3://bucket/");
        assert!(parse("s3://").unwrap_err().contains("write `s3://bucket/prefix`"));
        assert!(parse("/tmp").is_err());
    }
}
