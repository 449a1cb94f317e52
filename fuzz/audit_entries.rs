//! What is fuzzed of the audit log's formats, as `entries.rs`.
#![cfg_attr(not(test), expect(dead_code, reason = "each fuzz target calls one of them"))]

use sallyport::audit::bundle;
use sallyport::audit::stream::parcel;
use sallyport::audit::witness::Asked;

/// The first line is the log's public key, the rest a bundle.
pub(crate) fn bundle(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (key, rest) = bytes.split_at(end);
    let Some(key) = std::str::from_utf8(key).ok().and_then(|key| key.parse().ok()) else { return };
    let report = bundle::check(rest.get(1..).unwrap_or_default(), &key).expect("memory can be read");
    assert!(report.redacted <= report.records);
    assert!(report.recordings >= u64::try_from(report.unfinished.len()).expect("a small number"));
}

/// A record of the audit stream.
pub(crate) fn parcel(bytes: &[u8]) {
    if let Ok((node, heading, rest)) = parcel::parse(bytes) {
        let spelled = [parcel::heading(&node, heading).as_bytes(), rest].concat();
        assert_eq!(spelled, bytes, "one spelling");
    }
}

/// What a witness is sent.
pub(crate) fn witness(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(asked) = Asked::parse(text) {
        assert_eq!(asked.to_text(), text, "one spelling");
    }
}
