//! Signing keys that do not leave Amazon KMS.
//!
//! A thread of its own asks KMS: who signs may stand on any thread, within a runtime or not, and waits on no other's work and
//! no longer than [`ANSWER_WITHIN`]. Questions that are too many are refused at once: they would only wait.

use std::fmt;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::KeyUsageType;
pub use aws_sdk_kms::types::{KeySpec, MessageType, SigningAlgorithmSpec};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{explain, sdk_config};

/// A little more than one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// Questions that KMS is asked at a time, and that wait for it.
const ASKED: usize = 32;
const WAITING: usize = 64;

/// Why a key in KMS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    #[error("KMS cannot be reached: {0}")]
    Unreachable(String),
    #[error("KMS refuses: {0}")]
    Refused(String),
    #[error("the key is of kind {spec} for {usage}: make one of kind {wanted} for SIGN_VERIFY")]
    OtherKind { spec: String, usage: String, wanted: String },
    #[error("what KMS gives is no public key of kind {0}")]
    NotAKey(String),
    #[error("cannot start the thread that asks KMS: {0}")]
    Thread(String),
}

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSigned {
    Failed(String),
    Silent,
    /// Too many wait.
    Busy,
}

/// A key, and how it is used.
#[derive(Debug, Clone)]
pub struct Key {
    /// ARN of the key or of an alias, or the alias's name.
    pub name: String,
    /// `None`: as Amazon's SDK finds it.
    pub region: Option<String>,
    /// Instead of Amazon's own address.
    pub endpoint: Option<String>,
    pub spec: KeySpec,
    pub algorithm: SigningAlgorithmSpec,
}

type Signed = Result<Vec<u8>, NotSigned>;

/// Asks KMS to sign with one key.
pub struct Keeper {
    key: Key,
    /// The thread ends when this is gone.
    questions: mpsc::Sender<Question>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keeper").field(&self.key.name).finish()
    }
}

#[derive(Debug)]
enum Question {
    PublicKey(SyncSender<Result<Vec<u8>, KmsError>>),
    Sign { message: Vec<u8>, kind: MessageType, answer: Answer },
}

/// Whom a signature is told.
#[derive(Debug)]
enum Answer {
    Blocked(SyncSender<Signed>),
    Awaited(oneshot::Sender<Signed>),
}

impl Answer {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Blocked(_) => true,
            Self::Awaited(answer) => !answer.is_closed(),
        }
    }

    /// Who asked may have gone.
    fn tell(self, signed: Signed) {
        match self {
            Self::Blocked(answer) => _ = answer.send(signed),
            Self::Awaited(answer) => _ = answer.send(signed),
        }
    }
}

impl Keeper {
    /// Starts the thread; `name` is its name.
    pub fn start(name: &str, key: Key) -> Result<Self, KmsError> {
        let (questions, asked) = mpsc::channel(WAITING);
        let unusable = |error: io::Error| KmsError::Thread(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unusable)?;
        let run = {
            let key = key.clone();
            move || runtime.block_on(answer_all(key, asked))
        };
        // Nobody waits for the thread: it may be asking when everything else is done.
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(unusable)?;
        Ok(Self { key, questions })
    }

    /// Asks KMS for the public key, of which `read` makes one from its `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7); blocks
    /// until it answers. When KMS cannot be reached, `known` is taken for it.
    pub fn public_key<K>(
        &self,
        read: impl FnOnce(&[u8]) -> Option<K>,
        known: Option<K>,
    ) -> Result<K, KmsError> {
        let (answer, answered) = sync_channel(1);
        let silent = || KmsError::Unreachable("no answer".to_owned());
        self.questions.try_send(Question::PublicKey(answer)).map_err(|_| silent())?;
        match (answered.recv_timeout(ANSWER_WITHIN).map_err(|_| silent()).flatten(), known) {
            (Ok(info), _) => read(&info).ok_or_else(|| KmsError::NotAKey(self.key.spec.as_str().to_owned())),
            (Err(KmsError::Unreachable(why)), Some(known)) => {
                tracing::warn!(key = self.key.name, why, "going on with the public key as it is known here");
                Ok(known)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Signs; blocks until KMS answers.
    pub fn sign_blocking(&self, message: Vec<u8>, kind: MessageType) -> Signed {
        let (answer, answered) = sync_channel(1);
        self.ask(message, kind, Answer::Blocked(answer))?;
        answered.recv_timeout(ANSWER_WITHIN).map_err(|_| NotSigned::Silent).flatten()
    }

    /// Signs. Cancel-safe: KMS may have signed, and nobody knows it.
    pub async fn sign(&self, message: Vec<u8>, kind: MessageType) -> Signed {
        let (answer, answered) = oneshot::channel();
        self.ask(message, kind, Answer::Awaited(answer))?;
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(signed)) => signed,
            Ok(Err(_)) | Err(_) => Err(NotSigned::Silent),
        }
    }

    fn ask(&self, message: Vec<u8>, kind: MessageType, answer: Answer) -> Result<(), NotSigned> {
        self.questions.try_send(Question::Sign { message, kind, answer }).map_err(|_| NotSigned::Busy)
    }
}

/// The thread's work.
async fn answer_all(key: Key, mut questions: mpsc::Receiver<Question>) {
    let config = sdk_config(key.region.as_deref(), key.endpoint.as_deref()).await;
    // The same signature twice does no harm.
    let config = config.into_builder().retry_config(RetryConfig::standard()).build();
    let client = Client::new(&config);
    let mut asked = JoinSet::new();
    loop {
        tokio::select! {
            question = questions.recv(), if asked.len() < ASKED => match question {
                Some(question) => _ = asked.spawn(answer(client.clone(), key.clone(), question)),
                None => break,
            },
            Some(_) = asked.join_next() => {}
        }
    }
    // What was asked before is still waited for.
    while asked.join_next().await.is_some() {}
}

async fn answer(client: Client, key: Key, question: Question) {
    match question {
        Question::PublicKey(answer) => _ = answer.send(public_key(&client, &key).await),
        Question::Sign { answer, .. } if !answer.is_wanted() => {}
        Question::Sign { message, kind, answer } => answer.tell(sign(&client, &key, message, kind).await),
    }
}

async fn public_key(client: &Client, key: &Key) -> Result<Vec<u8>, KmsError> {
    let given = client.get_public_key().key_id(&key.name).send().await;
    let given = given.map_err(|error| match error.as_service_error() {
        Some(service)
            if !service.is_kms_internal_exception() && !service.is_dependency_timeout_exception() =>
        {
            KmsError::Refused(explain(&error))
        }
        _ => KmsError::Unreachable(explain(&error)),
    })?;
    let (spec, usage) = (given.key_spec(), given.key_usage());
    if spec != Some(&key.spec) || usage != Some(&KeyUsageType::SignVerify) {
        let text = |name: Option<&str>| name.unwrap_or("unknown").to_owned();
        return Err(KmsError::OtherKind {
            spec: text(spec.map(KeySpec::as_str)),
            usage: text(usage.map(KeyUsageType::as_str)),
            wanted: key.spec.as_str().to_owned(),
        });
    }
    Ok(given.public_key.map(Blob::into_inner).unwrap_or_default())
}

async fn sign(client: &Client, key: &Key, message: Vec<u8>, kind: MessageType) -> Signed {
    let request = client.sign().key_id(&key.name).message(Blob::new(message)).message_type(kind);
    let signed = request.signing_algorithm(key.algorithm.clone()).send().await;
    let signed = signed.map_err(|error| NotSigned::Failed(explain(&error)))?;
    Ok(signed.signature.map(Blob::into_inner).unwrap_or_default())
}
