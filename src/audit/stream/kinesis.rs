//! Amazon Kinesis Data Streams, by Amazon's SDK.

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};

use super::{Got, Outcome, Parcel, Stream, StreamError};
pub use crate::amazon::explain;
use crate::domain::time::Timestamp;

/// Which stream, and how it is reached. What is left out comes from the SDK's usual places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or ARN.
    pub stream: String,
    pub region: Option<String>,
    /// Another address than Amazon's: a VPC endpoint.
    pub endpoint: Option<String>,
}

/// The stream as the shipper writes to it.
#[derive(Debug, Clone)]
pub struct Kinesis {
    client: Client,
    stream: String,
}

/// Amazon's configuration for `address`: without the SDK's own repetitions, as order is ours to keep.
pub async fn sdk_config(address: &Address) -> aws_config::SdkConfig {
    crate::amazon::sdk_config(address.region.as_deref(), address.endpoint.as_deref()).await
}

impl Kinesis {
    pub async fn connect(address: &Address) -> Self {
        let client = Client::new(&sdk_config(address).await);
        Self { client, stream: address.stream.clone() }
    }
}

#[async_trait]
impl Stream for Kinesis {
    fn name(&self) -> &str {
        &self.stream
    }

    async fn put(&self, parcels: &[Parcel]) -> Result<Vec<Outcome>, StreamError> {
        let mut request = self.client.put_records();
        request = if self.stream.starts_with("arn:") {
            request.stream_arn(&self.stream)
        } else {
            request.stream_name(&self.stream)
        };
        for parcel in parcels {
            let entry = PutRecordsRequestEntry::builder()
                .data(Blob::new(parcel.data.clone()))
                .partition_key(&*parcel.key)
                .build()
                .map_err(|error| StreamError(explain(&error)))?;
            request = request.records(entry);
        }
        let answer = request.send().await.map_err(|error| StreamError(explain(&error)))?;
        let outcome = |entry: &aws_sdk_kinesis::types::PutRecordsResultEntry| match entry.error_code() {
            None if entry.sequence_number().is_some() => Outcome::Confirmed,
            Some("ProvisionedThroughputExceededException") => Outcome::Throttled,
            code => Outcome::Failed(format!(
                "{}: {}",
                code.unwrap_or("no sequence number"),
                entry.error_message().unwrap_or_default()
            )),
        };
        let outcomes: Vec<_> = answer.records().iter().map(outcome).collect();
        if outcomes.len() != parcels.len() {
            let (said, sent) = (outcomes.len(), parcels.len());
            return Err(StreamError(format!("the stream told of {said} records, of {sent} sent")));
        }
        Ok(outcomes)
    }
}

/// The stream as the consumer reads it.
#[derive(Debug, Clone)]
pub struct Reader {
    client: Client,
    stream: String,
}

/// What one look at a shard gave.
#[derive(Debug)]
pub struct Page {
    pub records: Vec<Got>,
    /// Where to look next; none when the shard is closed and read to its end.
    pub next: Option<String>,
    /// Whether there was nothing more at that moment.
    pub is_tip: bool,
}

/// Why nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// The place is too old to be used: ask for another.
    #[error("the iterator has expired")]
    Expired,
    #[error("the stream is throttled")]
    Throttled,
    #[error("{0}")]
    Failed(String),
}

impl Reader {
    pub async fn connect(address: &Address) -> Self {
        let client = Client::new(&sdk_config(address).await);
        Self { client, stream: address.stream.clone() }
    }

    /// As [`Reader::connect`]; what fails in passing is asked again by the SDK.
    pub async fn connect_patient(address: &Address) -> Self {
        let config = sdk_config(address).await.into_builder().retry_config(RetryConfig::standard()).build();
        Self { client: Client::new(&config), stream: address.stream.clone() }
    }

    fn name(&self) -> (Option<String>, Option<String>) {
        let name = Some(self.stream.clone());
        if self.stream.starts_with("arn:") { (None, name) } else { (name, None) }
    }

    /// The names of all shards, closed ones as well.
    pub async fn shards(&self) -> Result<Vec<String>, NotRead> {
        let (mut shards, mut next) = (Vec::new(), None);
        loop {
            let (name, arn) = if next.is_none() { self.name() } else { (None, None) };
            let request = self.client.list_shards().set_stream_name(name).set_stream_arn(arn);
            let answer = request.set_next_token(next).send().await;
            let answer = answer.map_err(|error| NotRead::Failed(explain(&error)))?;
            shards.extend(answer.shards().iter().map(|shard| shard.shard_id().to_owned()));
            next = answer.next_token().map(str::to_owned);
            if next.is_none() {
                return Ok(shards);
            }
        }
    }

    /// A place in a shard: after a record, or the beginning.
    pub async fn iterator(&self, shard: &str, after: Option<&str>) -> Result<Option<String>, NotRead> {
        let kind = if after.is_some() {
            ShardIteratorType::AfterSequenceNumber
        } else {
            ShardIteratorType::TrimHorizon
        };
        self.place(shard, kind, after).await
    }

    /// The place in a shard where what is written from now on will be.
    pub async fn end(&self, shard: &str) -> Result<Option<String>, NotRead> {
        self.place(shard, ShardIteratorType::Latest, None).await
    }

    async fn place(
        &self,
        shard: &str,
        kind: ShardIteratorType,
        after: Option<&str>,
    ) -> Result<Option<String>, NotRead> {
        let (name, arn) = self.name();
        let request = self.client.get_shard_iterator().set_stream_name(name).set_stream_arn(arn);
        let request = request.shard_id(shard).shard_iterator_type(kind);
        let request = request.set_starting_sequence_number(after.map(str::to_owned));
        let answer = request.send().await.map_err(|error| NotRead::Failed(explain(&error)))?;
        Ok(answer.shard_iterator)
    }

    /// Reads what is at a place.
    pub async fn get(&self, iterator: &str) -> Result<Page, NotRead> {
        let answer = self.client.get_records().shard_iterator(iterator).send().await;
        let answer = answer.map_err(|error| match error.as_service_error() {
            Some(service) if service.is_expired_iterator_exception() => NotRead::Expired,
            Some(service) if service.is_provisioned_throughput_exceeded_exception() => NotRead::Throttled,
            _ => NotRead::Failed(explain(&error)),
        })?;
        let is_tip = answer.records.is_empty() && answer.millis_behind_latest.unwrap_or(0) == 0;
        let got = |record: aws_sdk_kinesis::types::Record| Got {
            arrived: record.approximate_arrival_timestamp.map_or(Timestamp::from_micros(0), |at| {
                Timestamp::from_micros(i64::try_from(at.as_nanos() / 1000).unwrap_or(i64::MAX))
            }),
            sequence: record.sequence_number,
            key: record.partition_key.unwrap_or_default(),
            data: record.data.into_inner(),
        };
        let records = answer.records.into_iter().map(got).collect();
        Ok(Page { records, next: answer.next_shard_iterator, is_tip })
    }
}
