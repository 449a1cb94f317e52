//! `[alerts]`: whom to tell of what must not wait. Without the section it is in the record, the log and the metrics alone.

use std::net::IpAddr;

use reqwest::Url;
use reqwest::tls::Certificate;

use super::files;
use super::reader::Section;
use crate::crypto::{hex, sha256};
use crate::domain::secret::Secret;

#[derive(Debug, Clone)]
pub struct Alerts {
    /// Often as good as a password: it is written nowhere.
    pub webhook: Secret,
    pub format: AlertFormat,
    /// Trusted beside the system's own authorities.
    pub ca: Vec<Certificate>,
    /// Of the file that they are from.
    ca_hash: Option<String>,
}

impl Alerts {
    /// Whether it is posted to this machine, in clear.
    pub fn is_here(&self) -> bool {
        self.webhook.expose().starts_with("http://")
    }
}

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertFormat {
    /// The event's fields, and a sentence as `text`.
    Json,
    /// The sentence alone, as Slack and those who speak its language take it.
    Slack,
}

pub(super) fn alerts(root: &Section<'_>) -> Option<Alerts> {
    if !root.has("alerts") {
        return None;
    }
    let section = root.section("alerts");
    if !section.has("webhook_file") {
        section.missing("webhook_file", "name the file that holds the address to post to");
    }
    let webhook = section.path("webhook_file").and_then(|file| {
        let read = files::secret(&file).and_then(|text| webhook(text.expose()));
        read.map_err(|message| section.blame("webhook_file", message)).ok()
    });
    let format = match section.text("format") {
        None | Some("json") => AlertFormat::Json,
        Some("slack") => AlertFormat::Slack,
        Some(other) => {
            section.blame("format", format!("`{other}` is none: write `json` or `slack`"));
            AlertFormat::Json
        }
    };
    let ca = section.path("ca_file").and_then(|path| {
        let read = std::fs::read(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()));
        let read = read.and_then(|pem| {
            let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(format!("`{}` holds no certificate in PEM", path.display()));
            }
            Ok((certificates, short(&pem)))
        });
        read.map_err(|message| section.blame("ca_file", message)).ok()
    });
    section.finish();
    let (ca, ca_hash) = ca.map_or_else(Default::default, |(ca, hash)| (ca, Some(hash)));
    Some(Alerts { webhook: Secret::new(webhook?), format, ca, ca_hash })
}

/// Says nothing of what it holds.
fn webhook(text: &str) -> Result<String, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("holds no address to post to: {error}"))?;
    // By its text: an IPv6 address is in brackets.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(url.into()),
        "http" if is_here => Ok(url.into()),
        "http" => Err("holds an address with `http://`: what is told would be told to anybody on the way; \
                       use `https://`"
            .to_owned()),
        other => Err(format!("holds an address with `{other}://`: use `https://`")),
    }
}

/// For comparing, and for people.
pub(super) fn text(alerts: Option<&Alerts>) -> String {
    let Some(alerts) = alerts else { return "none".to_owned() };
    let hash = short(alerts.webhook.expose().as_bytes());
    let ca = alerts.ca_hash.as_deref().unwrap_or("the system's");
    format!("a webhook (SHA-256 {hash}), {:?}, authorities: {ca}", alerts.format)
}

/// Enough to tell two apart.
fn short(of: &[u8]) -> String {
    hex(&sha256(&[of])).chars().take(8).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_that_nobody_on_the_way_can_read() {
        for good in
            ["https://hooks.example/T1/x\n", "http://127.0.0.1:1/x", "http://[::1]/", "http://localhost/"]
        {
            webhook(good).unwrap();
        }
        for (bad, why) in [
            ("http://hooks.example/T1/secret", "use `https://`"),
            ("ftp://hooks.example/secret", "`ftp://`"),
            ("T1/secret", "no address"),
            ("", "no address"),
        ] {
            let said = webhook(bad).unwrap_err();
            assert!(said.contains(why) && !said.contains("secret"), "{said}");
        }
    }
}
