//! Cancel requests: which arrive on connections of their own, know nothing but a key, and must
//! neither be misrouted nor go unrecorded.
//!
//! Clients are given keys of ours, never the target's. A key names one live connection; when that
//! ends, the key is worth nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::audit::record::Cancel;
use crate::audit::{Body, Recorder};
use crate::crypto;

use super::codec::backend::BackendKey;
use super::codec::startup::{CancelRequest, ProtocolVersion};
use super::upstream::Canceller;

/// Length of the keys that are given out since protocol 3.2; before, it was four bytes.
const LONG_KEY: usize = 32;

/// The keys that have been given out.
#[derive(Debug, Clone, Default)]
pub(super) struct CancelKeys {
    by_process: Arc<Mutex<HashMap<u32, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    key: Bytes,
    target: CancelTarget,
}

/// What a key reaches.
#[derive(Debug, Clone)]
pub(super) struct CancelTarget {
    pub canceller: Canceller,
    pub recorder: Recorder,
}

/// A key that is valid as long as this lives.
#[derive(Debug)]
pub(super) struct IssuedKey {
    keys: CancelKeys,
    pub key: BackendKey,
}

impl Drop for IssuedKey {
    fn drop(&mut self) {
        self.keys.entries().remove(&self.key.process);
    }
}

impl CancelKeys {
    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Entry>> {
        self.by_process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn issue(&self, version: ProtocolVersion, target: CancelTarget) -> IssuedKey {
        let random: [u8; LONG_KEY] = crypto::random();
        let length = if version >= ProtocolVersion::V3_2 { LONG_KEY } else { 4 };
        let key = Bytes::copy_from_slice(random.get(..length).unwrap_or(&random));
        let mut entries = self.entries();
        // Process numbers are positive in PostgreSQL; clients print them as such.
        let process = loop {
            let process = u32::from_be_bytes(crypto::random()) >> 1;
            if process != 0 && !entries.contains_key(&process) {
                break process;
            }
        };
        entries.insert(process, Entry { key: key.clone(), target });
        drop(entries);
        IssuedKey { keys: self.clone(), key: BackendKey { process, key } }
    }

    fn find(&self, request: &CancelRequest) -> Option<CancelTarget> {
        let entries = self.entries();
        let entry = entries.get(&request.process)?;
        crypto::equal(&entry.key, &request.key).then(|| entry.target.clone())
    }

    /// Records the request, then passes it on; one with a wrong key is counted and forgotten, as
    /// PostgreSQL does.
    pub(super) async fn serve(&self, request: &CancelRequest, client: SocketAddr) {
        let Some(target) = self.find(request) else {
            metrics::counter!("sallyport_cancels_refused_total").increment(1);
            tracing::info!(%client, "a cancel request named no connection");
            return;
        };
        let record = Body::Cancel(Cancel { n: None, from: Some(client), why: "cancel request".to_owned() });
        if let Err(error) = target.recorder.record(&[record]).await {
            tracing::error!(%client, %error, "a cancel request was refused: it cannot be recorded");
            return;
        }
        if let Err(error) = target.canceller.cancel().await {
            tracing::warn!(%client, %error, "a cancel request did not reach the target");
        }
    }
}
