//! What a verification found, as one page to print and sign.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::exit::Failure;
use crate::audit::VerifyKey;
use crate::crypto::cosign::WitnessVerifyKey;
use crate::crypto::{Hash, hex};
use crate::domain::time::Timestamp;

/// What was verified, and against what.
#[derive(Debug)]
pub(super) struct Verified<'a> {
    pub path: &'a Path,
    /// The hash of the file, where it is a bundle.
    pub bundle: Option<Hash>,
    pub key: &'a VerifyKey,
    pub pins: &'a [PathBuf],
    pub witnesses: &'a [WitnessVerifyKey],
    pub at: Timestamp,
    /// What was found, in words.
    pub found: &'a str,
}

impl Verified<'_> {
    fn page(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let path = self.path.display();
        let mut page = format!(
            "SALLYPORT AUDIT VERIFICATION\n\n\
             verified:   {at}\n\
             by:         sallyport {version}, offline, from the files and public keys alone\n\
             files:      {path}\n\
             public key: {key}\n",
            at = self.at,
            key = self.key,
        );
        if let Some(hash) = &self.bundle {
            _ = writeln!(page, "SHA-256:    {}", hex(hash));
        }
        for pin in self.pins {
            _ = writeln!(page, "pin:        {}", pin.display());
        }
        for witness in self.witnesses {
            _ = writeln!(page, "witness:    {witness}");
        }
        _ = writeln!(page, "\n{}\n", self.found.trim_end());
        page.push_str(
            "The public key must have come another way than the files: who can write both can make both.\n",
        );
        page.push_str(if self.bundle.is_some() {
            "That nothing else in the log is about this session, only the whole log can prove.\n"
        } else {
            "Records after the last one that is vouched for may have been cut off unnoticed.\n"
        });
        if self.bundle.is_none() && self.pins.is_empty() && self.witnesses.is_empty() {
            page.push_str(
                "Neither a pin nor a witness was given: who has the log's signing key can have written it anew.\n",
            );
        }
        page.push_str("\nname, date, signature:\n");
        page
    }

    /// Writes the page to a new file.
    pub(super) fn write(&self, to: &Path) -> Result<(), Failure> {
        let mut options = OpenOptions::new();
        let written = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .and_then(|mut file| file.write_all(self.page().as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| Failure::of(format!("cannot write the report `{}`", to.display()), &error))
    }
}
