//! Reads the bodies of records, for search and replay, where each record of a log passes by: with the kind known already and
//! without what serde gathers for a field that may have several forms.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::record::{Body, How, Input, Output, Parameter, Sql, Statement};
use super::ssh::Data;

/// The body of a record of this kind.
pub(super) fn read(kind: &str, json: &[u8]) -> Result<Body, serde_json::Error> {
    fn of<T: DeserializeOwned>(json: &[u8], body: impl Fn(T) -> Body) -> Result<Body, serde_json::Error> {
        serde_json::from_slice(json).map(body)
    }
    match kind {
        "statement" => of(json, |raw: RawStatement| Body::Statement(raw.into())),
        "statement_end" => of(json, Body::StatementEnd),
        "input" => of(json, |raw: RawInput| Body::Input(raw.into())),
        "output" => of(json, |raw: RawOutput| Body::Output(raw.into())),
        // Those that are rare.
        _ => serde_json::from_slice(json),
    }
}

/// [`Statement`], with the forms of its text as fields.
#[derive(Deserialize)]
struct RawStatement {
    n: u64,
    how: How,
    name: Option<String>,
    portal: Option<String>,
    sql: Option<String>,
    #[serde(default)]
    b64: String,
    fingerprint: Option<String>,
    #[serde(default)]
    sql_parts: u32,
    sql_sha256: Option<String>,
    #[serde(default)]
    params: Vec<Parameter>,
    #[serde(default)]
    parameter_parts: u32,
    certain: bool,
    #[serde(default)]
    masked: u32,
    resumes: Option<u64>,
}

impl From<RawStatement> for Statement {
    fn from(raw: RawStatement) -> Self {
        Self {
            n: raw.n,
            how: raw.how,
            name: raw.name,
            portal: raw.portal,
            sql: raw.sql.map_or(Sql::Bytes { b64: raw.b64 }, |sql| Sql::Text { sql }),
            fingerprint: raw.fingerprint,
            sql_parts: raw.sql_parts,
            sql_sha256: raw.sql_sha256,
            params: raw.params,
            parameter_parts: raw.parameter_parts,
            certain: raw.certain,
            masked: raw.masked,
            resumes: raw.resumes,
        }
    }
}

#[derive(Deserialize)]
struct RawInput {
    ch: u32,
    txt: Option<String>,
    #[serde(default)]
    b64: String,
    masked: Option<u64>,
}

impl From<RawInput> for Input {
    fn from(raw: RawInput) -> Self {
        Self { ch: raw.ch, data: data(raw.txt, raw.b64), masked: raw.masked }
    }
}

#[derive(Deserialize)]
struct RawOutput {
    ch: u32,
    txt: Option<String>,
    #[serde(default)]
    b64: String,
    #[serde(default)]
    err: bool,
}

impl From<RawOutput> for Output {
    fn from(raw: RawOutput) -> Self {
        Self { ch: raw.ch, data: data(raw.txt, raw.b64), err: raw.err }
    }
}

fn data(txt: Option<String>, b64: String) -> Data {
    txt.map_or(Data::Bytes { b64 }, |txt| Data::Text { txt })
}

#[cfg(test)]
mod tests {
    use super::super::record::{Direction, Eof, Format, StatementEnd, StatementOutcome};
    use super::*;

    #[test]
    fn what_is_read_quickly_is_what_was_written() {
        let mut full = Statement::new(7, How::Extended, b"SELECT $1");
        (full.name, full.portal) = (Some("s".to_owned()), Some("p".to_owned()));
        full.fingerprint = Some("0123456789abcdef".to_owned());
        full.params = vec![
            Parameter::new(Some(b"x"), Format::Text, 25),
            Parameter::new(None, Format::Binary, 23),
            Parameter::new(Some(b"\xff"), Format::Binary, 17),
        ];
        (full.masked, full.certain, full.sql_parts) = (2, false, 3);
        (full.sql_sha256, full.resumes) = (Some("00".to_owned()), Some(3));
        let bodies = [
            Body::Statement(full),
            Body::Statement(Statement::new(1, How::Simple, b"")),
            Body::Statement(Statement::new(1, How::Simple, b"\xff\"")),
            Body::StatementEnd(StatementEnd::new(1, StatementOutcome::Failed)),
            Body::Input(Input { ch: 1, data: Data::new(b"ls\n"), masked: Some(3) }),
            Body::Input(Input { ch: 1, data: Data::new(b"\xff"), masked: None }),
            Body::Output(Output { ch: 2, data: Data::new("é".as_bytes()), err: true }),
            Body::Output(Output { ch: 2, data: Data::new(b"\xfe"), err: false }),
            Body::Eof(Eof { ch: 3, from: Direction::In }),
        ];
        for body in bodies {
            let mut json = serde_json::to_value(&body).unwrap();
            // As in a record, between what is of all kinds.
            json["rec"] = "con-0000000000000000".into();
            json["principal"] = serde_json::json!({ "id": "usr-1", "name": "alice" });
            let text = serde_json::to_vec(&json).unwrap();
            assert_eq!(read(body.kind(), &text).unwrap(), body);
            assert_eq!(serde_json::from_slice::<Body>(&text).unwrap(), body);
        }
        assert!(read("statement", b"{\"n\":1}").is_err());
    }
}
