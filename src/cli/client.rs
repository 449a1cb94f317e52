//! The API's client: TLS only, one authority (or the system's), deadlines, and errors that tell a
//! server that is not there from one that cannot be trusted.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Certificate, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::{Exit, Failure};
use super::home::{Home, Settings};
use super::ids::{self, Candidate};
use crate::clock::Clock;
use crate::http::error::Problem;
use crate::http::view::{BlockView, ConnectionView, List, RequestView, SessionView};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A revocation answers when it is done; the server's own deadline is 60 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(75);

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    settings: Settings,
}

impl Client {
    /// A client for the server that one is logged in to.
    pub(super) fn from_home(home: &Home) -> Result<Self, Failure> {
        let settings = home.settings(None, None)?;
        let over = settings.expires_at.is_some_and(|end| end <= Clock::system().now());
        if settings.token.is_none() || over {
            let what = if over { "your login has expired" } else { "you are not logged in" };
            return Err(Failure::new(Exit::Unauthenticated, what).hint("sallyport login"));
        }
        Self::new(settings)
    }

    pub(super) fn new(settings: Settings) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .connect_timeout(CONNECT_WITHIN)
            // A bearer token follows no redirect.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("sallyport/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &settings.ca_pem {
            let unusable =
                |error: &reqwest::Error| Failure::of("the authority's certificate cannot be used", error);
            let authorities =
                Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unusable(&error))?;
            if authorities.is_empty() {
                return Err(Failure::failed("the authority's file holds no certificate: it must be PEM"));
            }
            builder = builder.tls_certs_only(authorities);
        }
        let http = builder.build().map_err(|error| Failure::of("cannot set up TLS", &error))?;
        Ok(Self { http, settings })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.send(self.http.get(self.url(path)).timeout(ANSWER_WITHIN)).await?;
        self.read(response).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let response = self.send(self.http.post(self.url(path)).timeout(ANSWER_WITHIN).json(body)).await?;
        self.read(response).await
    }

    /// For a call that answers nothing.
    pub(super) async fn tell(&self, path: &str) -> Result<(), Failure> {
        self.send(self.http.post(self.url(path)).timeout(ANSWER_WITHIN)).await.map(drop)
    }

    /// As [`Self::tell`], with a body.
    pub(super) async fn send_to(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        self.send(self.http.post(self.url(path)).timeout(ANSWER_WITHIN).json(body)).await.map(drop)
    }

    /// An answer that is read piece by piece; there is no deadline for the whole of it.
    pub(super) async fn stream(&self, path: &str) -> Result<Stream<'_>, Failure> {
        let response = self.send(self.http.get(self.url(path)).header(ACCEPT, "*/*")).await?;
        Ok(Stream { client: self, response })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.server)
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Failure> {
        if let Some(token) = &self.settings.token {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut bearer =
                bearer.map_err(|_| Failure::usage("the token holds characters that no token has"))?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        Err(refusal(status.as_u16(), &body))
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Failure> {
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::of("the server's answer is not what this version expects", &error)
                .hint("use the client of the server's version")
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let server = &self.settings.server;
        let (what, hint) = match cause(error) {
            Cause::Certificate(why) => (
                format!("the certificate of {server} cannot be trusted: {why}"),
                match self.settings.ca_pem {
                    Some(_) => {
                        "ask the operator for the current authority, then: sallyport login --ca CA.crt"
                    }
                    None => "give the server's own authority: sallyport login --ca CA.crt",
                },
            ),
            Cause::Refused => {
                (format!("nothing listens at {server}"), "check the address; is the server running?")
            }
            Cause::Timeout => {
                (format!("{server} did not answer in time"), "check the network, then try again")
            }
            Cause::Other(why) => {
                (format!("{server} cannot be reached: {why}"), "check the address and the network")
            }
        };
        Failure::new(Exit::Unreachable, what).hint(hint)
    }
}

/// The body of an answer, as it comes.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    client: &'a Client,
    response: Response,
}

impl Stream<'_> {
    /// What the answer's head says.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece; `None` at the end. An answer that breaks off is an error.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        self.response.chunk().await.map_err(|error| {
            let mut failure = self.client.unreachable(&error);
            failure.what = format!("the answer broke off: {}", failure.what);
            failure
        })
    }
}

/// Decodes a problem; an answer that is none (a proxy's page) is told by its status.
fn refusal(status: u16, body: &[u8]) -> Failure {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return problem.into();
    }
    Failure::new(Exit::Failed, format!("the server answered with status {status}"))
        .hint("is this address a Sallyport server's?")
}

enum Cause {
    Certificate(String),
    Refused,
    Timeout,
    Other(String),
}

fn cause(error: &reqwest::Error) -> Cause {
    let mut deepest = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = tls_error(error) {
            return Cause::Certificate(tls.to_string());
        }
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            return Cause::Refused;
        }
        deepest = error.to_string();
        next = error.source();
    }
    if error.is_timeout() { Cause::Timeout } else { Cause::Other(deepest) }
}

/// What rustls found; I/O errors wrap it, more than once, without naming it as their source.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    tls_error(error.downcast_ref::<io::Error>()?.get_ref()?)
}

/// Ids that may be abbreviated.
impl Client {
    pub(super) async fn request_id(&self, given: &str) -> Result<String, Failure> {
        self.expand("request", "req", given, "/pam/requests", |view: &RequestView| Candidate {
            id: view.id.to_string(),
            about: format!("{} {}/{} {}", view.requester.name, view.target, view.access, view.state.as_str()),
        })
        .await
    }

    pub(super) async fn session_id(&self, given: &str) -> Result<String, Failure> {
        self.expand("session", "ses", given, "/pam/sessions", |view: &SessionView| Candidate {
            id: view.id.to_string(),
            about: format!(
                "{} {}/{} {}",
                view.principal.name,
                view.target,
                view.access,
                view.status.as_str()
            ),
        })
        .await
    }

    pub(super) async fn connection_id(&self, given: &str) -> Result<String, Failure> {
        self.expand("connection", "con", given, "/pam/connections", |view: &ConnectionView| Candidate {
            id: view.id.to_string(),
            about: format!("{} {} {}", view.principal.name, view.target, super::when::local(view.opened_at)),
        })
        .await
    }

    pub(super) async fn block_id(&self, given: &str) -> Result<String, Failure> {
        self.expand("block", "blk", given, "/pam/blocks", |view: &BlockView| Candidate {
            id: view.id.to_string(),
            about: format!("{} {}", view.principal.name, view.why),
        })
        .await
    }

    /// Looks among what is open first: an abbreviation that fits one of those means that one.
    async fn expand<T: DeserializeOwned>(
        &self,
        what: &str,
        prefix: &str,
        given: &str,
        path: &str,
        candidate: impl Fn(&T) -> Candidate,
    ) -> Result<String, Failure> {
        if ids::is_whole(prefix, given) {
            return Ok(given.to_owned());
        }
        let open: List<T> = self.get(path).await?;
        let candidates: Vec<Candidate> = open.items.iter().map(&candidate).collect();
        match ids::expand(what, prefix, given, &candidates) {
            Err(failure) if failure.exit == Exit::NotFound => {
                let all: List<T> = self.get(&format!("{path}?all=true")).await?;
                let candidates: Vec<Candidate> = all.items.iter().map(&candidate).collect();
                ids::expand(what, prefix, given, &candidates)
            }
            expanded => expanded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_a_failure_with_its_rules_and_hint() {
        let body = br#"{"type":"urn:x","title":"Forbidden","status":403,"code":"policy_refused",
            "detail":"refused by policy: FR-281: less","hint":"ask for less",
            "rules":[{"id":"FR-281","needs":"less"},{"id":"X","needs":"y"}],"request_id":"ab"}"#;
        let failure = refusal(403, body);
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.what, "refused by policy: FR-281: less");
        assert_eq!(failure.why, ["FR-281: less", "X: y"]);
        assert_eq!(failure.hint.as_deref(), Some("ask for less"));
    }

    #[test]
    fn an_answer_that_is_no_problem_is_told_by_its_status() {
        let failure = refusal(502, b"<html>Bad Gateway</html>");
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.what.contains("502"));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        drop(listener);
        let settings = Settings { server, ca_pem: None, token: None, expires_at: None };
        let failure = Client::new(settings).unwrap().get::<serde_json::Value>("/healthz").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.what.contains("nothing listens"), "{}", failure.what);
    }
}
