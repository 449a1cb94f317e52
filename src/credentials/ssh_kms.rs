//! An SSH authority's key that does not leave Amazon KMS: ECDSA on P-256 (`ECC_NIST_P256`, for signing and verifying).
//!
//! A thread of its own asks KMS, so that whoever needs a certificate waits on no other runtime's work, and no longer
//! than [`ANSWER_WITHIN`]. Questions that are too many are refused at once: they would only wait.

use std::fmt;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::amazon::{explain, sdk_config};
use crate::config::KmsKey;
use crate::crypto;
use crate::crypto::ssh::authority::{Authority, NotSigned};
use crate::crypto::ssh::{PublicKey, Signature, nist_p256};

/// A little more than one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// Questions that KMS is asked at a time, and that wait for it.
const ASKED: usize = 32;
const WAITING: usize = 64;
/// What is longer, KMS takes as its hash alone.
const LONGEST_MESSAGE: usize = 4096;

/// Why a key in KMS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    #[error("KMS cannot be reached: {0}")]
    Unreachable(String),
    #[error("KMS refuses: {0}")]
    Refused(String),
    #[error("the key is of kind {spec} for {usage}: make one of kind ECC_NIST_P256 for SIGN_VERIFY")]
    OtherKind { spec: String, usage: String },
    #[error("what KMS gives is no public key of P-256")]
    NotAKey,
    #[error("cannot start the thread that asks KMS: {0}")]
    Thread(String),
}

/// The key as an authority.
pub struct KmsAuthority {
    name: String,
    public_key: PublicKey,
    /// The thread ends when this is gone.
    questions: mpsc::Sender<Question>,
}

impl fmt::Debug for KmsAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KmsAuthority").field(&self.name).finish()
    }
}

#[derive(Debug)]
enum Question {
    PublicKey(SyncSender<Result<PublicKey, KmsError>>),
    Sign { text: Vec<u8>, answer: oneshot::Sender<Result<Signature, NotSigned>> },
}

impl KmsAuthority {
    /// Asks KMS for the public key; blocks until it answers. When KMS cannot be reached, `known` is taken for it: what
    /// another key signs makes no certificate.
    pub fn open(key: &KmsKey, known: Option<&PublicKey>) -> Result<Self, KmsError> {
        let (questions, asked) = mpsc::channel(WAITING);
        let keeper = key.clone();
        let unusable = |error: io::Error| KmsError::Thread(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unusable)?;
        let run = move || runtime.block_on(answer_all(keeper, asked));
        // Nobody waits for the thread: it may be asking when everything else is done.
        std::thread::Builder::new().name("ssh-kms".to_owned()).spawn(run).map_err(unusable)?;
        let (answer, answered) = sync_channel(1);
        let silent = || KmsError::Unreachable("no answer".to_owned());
        questions.try_send(Question::PublicKey(answer)).map_err(|_| silent())?;
        let public_key = match (answered.recv_timeout(ANSWER_WITHIN).map_err(|_| silent()).flatten(), known) {
            (Err(KmsError::Unreachable(why)), Some(known)) => {
                tracing::warn!(
                    key = key.key,
                    why,
                    "going on with the authority's public key as it is known here"
                );
                known.clone()
            }
            (given, _) => given?,
        };
        Ok(Self { name: key.key.clone(), public_key, questions })
    }
}

#[async_trait]
impl Authority for KmsAuthority {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    async fn sign(&self, text: &[u8]) -> Result<Signature, NotSigned> {
        let (answer, answered) = oneshot::channel();
        let question = Question::Sign { text: text.to_vec(), answer };
        self.questions.try_send(question).map_err(|_| NotSigned::Busy)?;
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(signed)) => signed,
            Ok(Err(_)) | Err(_) => Err(NotSigned::Silent),
        }
    }
}

/// The thread's work.
async fn answer_all(key: KmsKey, mut questions: mpsc::Receiver<Question>) {
    let config = sdk_config(key.region.as_deref(), key.endpoint.as_deref()).await;
    // The same signature twice does no harm.
    let config = config.into_builder().retry_config(RetryConfig::standard()).build();
    let client = Client::new(&config);
    let mut asked = JoinSet::new();
    loop {
        tokio::select! {
            question = questions.recv(), if asked.len() < ASKED => match question {
                Some(question) => _ = asked.spawn(answer(client.clone(), key.key.clone(), question)),
                None => break,
            },
            Some(_) = asked.join_next() => {}
        }
    }
    // What was asked before is still waited for.
    while asked.join_next().await.is_some() {}
}

/// Who asked may have gone.
async fn answer(client: Client, key: String, question: Question) {
    match question {
        Question::PublicKey(answer) => _ = answer.send(public_key(&client, &key).await),
        Question::Sign { answer, .. } if answer.is_closed() => {}
        Question::Sign { text, answer } => _ = answer.send(sign(&client, &key, text).await),
    }
}

async fn public_key(client: &Client, key: &str) -> Result<PublicKey, KmsError> {
    let given = client.get_public_key().key_id(key).send().await;
    let given = given.map_err(|error| match error.as_service_error() {
        Some(service)
            if !service.is_kms_internal_exception() && !service.is_dependency_timeout_exception() =>
        {
            KmsError::Refused(explain(&error))
        }
        _ => KmsError::Unreachable(explain(&error)),
    })?;
    let (spec, usage) = (given.key_spec(), given.key_usage());
    if spec != Some(&KeySpec::EccNistP256) || usage != Some(&KeyUsageType::SignVerify) {
        let (spec, usage) = (spec.map(KeySpec::as_str), usage.map(KeyUsageType::as_str));
        let text = |name: Option<&str>| name.unwrap_or("unknown").to_owned();
        return Err(KmsError::OtherKind { spec: text(spec), usage: text(usage) });
    }
    nist_p256::public_key(given.public_key().map(Blob::as_ref).unwrap_or_default()).ok_or(KmsError::NotAKey)
}

async fn sign(client: &Client, key: &str, text: Vec<u8>) -> Result<Signature, NotSigned> {
    let (message, kind) = message(text);
    let request = client.sign().key_id(key).message(Blob::new(message)).message_type(kind);
    let signed = request.signing_algorithm(SigningAlgorithmSpec::EcdsaSha256).send().await;
    let signed = signed.map_err(|error| NotSigned::Failed(explain(&error)))?;
    let der = signed.signature.map(Blob::into_inner).unwrap_or_default();
    nist_p256::signature(&der).ok_or_else(|| NotSigned::Failed("what it gives is no signature".to_owned()))
}

fn message(text: Vec<u8>) -> (Vec<u8>, MessageType) {
    if text.len() > LONGEST_MESSAGE {
        return (crypto::sha256(&[&text]).to_vec(), MessageType::Digest);
    }
    (text, MessageType::Raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_kms_is_sent_as_its_hash() {
        assert_eq!(message(vec![7; 4096]), (vec![7; 4096], MessageType::Raw));
        let long = vec![7; 4097];
        assert_eq!(message(long.clone()), (crypto::sha256(&[&long]).to_vec(), MessageType::Digest));
    }
}
