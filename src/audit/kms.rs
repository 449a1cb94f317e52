//! A signing key that does not leave Amazon KMS: an Ed25519 key (`ECC_NIST_EDWARDS25519`, for signing and verifying).
//!
//! A thread of its own asks KMS, one question at a time: who signs may stand on any thread, the writer's as well, and
//! waits no longer than [`ANSWER_WITHIN`].

use std::fmt;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec};
use tokio::sync::mpsc;

use super::signer::{NotSigned, Signer};
use crate::amazon::{explain, sdk_config};
use crate::config;
use crate::crypto::sign::PUBLIC_KEY_LENGTH;

/// A little more than one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// Questions that wait for the thread.
const WAITING: usize = 4;
/// What comes before the 32 bytes of an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410, section 4).
const ED25519_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

type PublicKey = [u8; PUBLIC_KEY_LENGTH];

/// Why a key in KMS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    #[error("KMS cannot be reached: {0}")]
    Unreachable(String),
    #[error("KMS refuses: {0}")]
    Refused(String),
    #[error("the key is of kind {spec} for {usage}: make one of kind ECC_NIST_EDWARDS25519 for SIGN_VERIFY")]
    OtherKind { spec: String, usage: String },
    #[error("what KMS gives is no Ed25519 public key")]
    NotAKey,
    #[error("cannot start the thread that asks KMS: {0}")]
    Thread(String),
}

/// The key as a signer.
pub struct Kms {
    name: String,
    public_key: PublicKey,
    /// The thread ends when this is gone.
    questions: mpsc::Sender<Question>,
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kms").field(&self.name).finish()
    }
}

#[derive(Debug)]
enum Question {
    PublicKey(SyncSender<Result<PublicKey, KmsError>>),
    Sign { text: Vec<u8>, answer: SyncSender<Result<Vec<u8>, NotSigned>> },
}

impl Kms {
    /// Asks KMS for the public key; blocks until it answers. When KMS cannot be reached, `known` is taken for it: what
    /// another key signs is noticed then ([`NotSigned::OtherKey`]).
    pub fn open(key: &config::KmsKey, known: Option<&PublicKey>) -> Result<Self, KmsError> {
        let (questions, asked) = mpsc::channel(WAITING);
        let keeper = key.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let unusable = |error: io::Error| KmsError::Thread(error.to_string());
        let runtime = runtime.map_err(unusable)?;
        let run = move || runtime.block_on(answer_all(keeper, asked));
        // Nobody waits for the thread: it may be asking when everything else is done.
        std::thread::Builder::new().name("kms".to_owned()).spawn(run).map_err(unusable)?;
        let (answer, answered) = sync_channel(1);
        let silent = || KmsError::Unreachable("no answer".to_owned());
        questions.try_send(Question::PublicKey(answer)).map_err(|_| silent())?;
        let public_key = match (answered.recv_timeout(ANSWER_WITHIN).map_err(|_| silent()).flatten(), known) {
            (Err(KmsError::Unreachable(why)), Some(known)) => {
                tracing::warn!(key = key.key, why, "going on with the log's public key as it is known here");
                *known
            }
            (given, _) => given?,
        };
        Ok(Self { name: key.key.clone(), public_key, questions })
    }
}

impl Signer for Kms {
    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, NotSigned> {
        let (answer, answered) = sync_channel(1);
        let question = Question::Sign { text: text.to_vec(), answer };
        self.questions.try_send(question).map_err(|_| NotSigned::Silent)?;
        answered.recv_timeout(ANSWER_WITHIN).map_err(|_| NotSigned::Silent).flatten()
    }
}

/// The thread's work.
async fn answer_all(key: config::KmsKey, mut questions: mpsc::Receiver<Question>) {
    let config = sdk_config(key.region.as_deref(), key.endpoint.as_deref()).await;
    // The same signature twice does no harm.
    let config = config.into_builder().retry_config(RetryConfig::standard()).build();
    let client = Client::new(&config);
    // Who asked may have gone.
    while let Some(question) = questions.recv().await {
        match question {
            Question::PublicKey(answer) => _ = answer.send(public_key(&client, &key.key).await),
            Question::Sign { text, answer } => _ = answer.send(sign(&client, &key.key, text).await),
        }
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
    if spec != Some(&KeySpec::EccNistEdwards25519) || usage != Some(&KeyUsageType::SignVerify) {
        let (spec, usage) = (spec.map(KeySpec::as_str), usage.map(KeyUsageType::as_str));
        let text = |name: Option<&str>| name.unwrap_or("unknown").to_owned();
        return Err(KmsError::OtherKind { spec: text(spec), usage: text(usage) });
    }
    let info = given.public_key().map(Blob::as_ref).unwrap_or_default();
    info.strip_prefix(&ED25519_INFO).and_then(|key| key.try_into().ok()).ok_or(KmsError::NotAKey)
}

async fn sign(client: &Client, key: &str, text: Vec<u8>) -> Result<Vec<u8>, NotSigned> {
    let request = client.sign().key_id(key).message(Blob::new(text)).message_type(MessageType::Raw);
    let signed = request.signing_algorithm(SigningAlgorithmSpec::Ed25519Sha512).send().await;
    let signed = signed.map_err(|error| NotSigned::Failed(explain(&error)))?;
    Ok(signed.signature.map(Blob::into_inner).unwrap_or_default())
}
