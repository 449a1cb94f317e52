//! `sallyport audit witness`: cosigns the checkpoints of logs that it sees grow, on somebody else's machine.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::net::TcpListener;

use super::exit::{Exit, Failure, Outcome};
use super::out;
use crate::access::credential::error_chain;
use crate::audit::VerifyKey;
use crate::audit::witness::{ADD_CHECKPOINT, Refused, SIZE_TYPE, Witness};
use crate::clock::Clock;
use crate::crypto::cosign::{WitnessKey, WitnessName};
use crate::crypto::sign;
use crate::lifecycle::Signals;

const KEY_FILE: &str = "witness.key";
/// A request is a proof and a checkpoint, in bytes.
const LONGEST_REQUEST: usize = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What this witness is called: best a name of its machine
    #[arg(long)]
    name: WitnessName,
    /// Where its key and what it saw are kept; made if it is not there
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The public key of a log that it witnesses; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7455")]
    listen: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    witness: Mutex<Witness>,
    clock: Clock,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut signals = Signals::listen().map_err(|error| Failure::of("cannot listen for signals", &error))?;
    let failed = |what: &str, path: &Path, error: &io::Error| {
        Failure::of(format!("cannot {what} `{}`", path.display()), error)
    };
    let mut logs = Vec::new();
    for path in &arguments.log {
        let key = VerifyKey::load(path);
        logs.push(key.map_err(|error| Failure::of(format!("cannot use `{}`", path.display()), &error))?);
    }
    let key = own_key(&arguments.state, arguments.name)
        .map_err(|error| failed("use the key in", &arguments.state, &error))?;
    let verify_key = key.verify_key();
    let witness = Witness::open(&arguments.state, key, logs)
        .map_err(|error| failed("use", &arguments.state, &error))?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| Failure::of(format!("cannot listen on {}", arguments.listen), &error))?;
    let address = listener.local_addr().map_err(|error| Failure::of("cannot listen", &error))?;
    let shared = Arc::new(Shared { witness: Mutex::new(witness), clock: Clock::system() });
    let router = Router::new()
        .route(ADD_CHECKPOINT, post(add))
        .layer(DefaultBodyLimit::max(LONGEST_REQUEST))
        .with_state(shared);
    out::line(format!("{verify_key}"))?;
    out::flush()?;
    out::note(format!("witnessing on http://{address}"));
    let stop = async move { while signals.next().await == crate::lifecycle::Asked::Reload {} };
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
        .map_err(|error| Failure::of("cannot serve", &error))?;
    Ok(Exit::Done)
}

async fn add(State(shared): State<Arc<Shared>>, request: String) -> Response {
    let seconds = u64::try_from(shared.clock.now().as_micros() / 1_000_000).unwrap_or(0);
    let added = shared.witness.lock().unwrap_or_else(PoisonError::into_inner).add(&request, seconds);
    let refused = match added {
        Ok(cosignature) => return cosignature.into_response(),
        Err(refused) => refused,
    };
    let why = format!("{}\n", error_chain(&refused));
    out::note(format!("refused: {}", why.trim_end()));
    match refused {
        Refused::OtherSize { size } => {
            (StatusCode::CONFLICT, [(header::CONTENT_TYPE, SIZE_TYPE)], format!("{size}\n")).into_response()
        }
        Refused::Malformed(_) => (StatusCode::BAD_REQUEST, why).into_response(),
        Refused::UnknownLog => (StatusCode::NOT_FOUND, why).into_response(),
        Refused::BadCheckpoint(_) => (StatusCode::FORBIDDEN, why).into_response(),
        Refused::Inconsistent { .. } => (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
        Refused::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, why).into_response(),
    }
}

/// The witness's key; made at the first start.
fn own_key(directory: &Path, name: WitnessName) -> io::Result<WitnessKey> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)?;
    let path = directory.join(KEY_FILE);
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            file.write_all(sign::generate_pem().as_bytes())?;
            file.sync_all()?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let pem = zeroize::Zeroizing::new(fs::read_to_string(&path)?);
    WitnessKey::from_pem(&pem, name).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
