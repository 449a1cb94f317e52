//! Rules of the observer, one by one. Whole, against a model of a server: `tests/postgres_observer.rs`.

use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::postgres::codec::CodecError;
use crate::postgres::codec::frame::{Frame, Piece, Splitter};
use crate::postgres::codec::walker::Walker;

mod copying;
mod ends;
mod rules;

pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u32::try_from(4 + body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

pub(super) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

pub(super) fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = BytesMut::from(format!("{name}\0{sql}\0").as_bytes());
    body.put_u16(u16::try_from(types.len()).unwrap());
    for oid in types {
        body.put_u32(*oid);
    }
    message(b'P', &body)
}

/// Binds values, all in one format.
pub(super) fn bind(portal: &str, statement: &str, format: u16, values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = BytesMut::from(format!("{portal}\0{statement}\0").as_bytes());
    body.put_u16(1);
    body.put_u16(format);
    body.put_u16(u16::try_from(values.len()).unwrap());
    for value in values {
        body.put_i32(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()));
        body.extend_from_slice(value.unwrap_or_default());
    }
    body.put_u16(0);
    message(b'B', &body)
}

pub(super) fn execute(portal: &str, rows: i32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0], &rows.to_be_bytes()].concat())
}

pub(super) fn named(tag: u8, subject: u8, name: &str) -> Vec<u8> {
    message(tag, &[&[subject], name.as_bytes(), &[0]].concat())
}

pub(super) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub(super) fn error(sqlstate: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{sqlstate}\0Mno\0\0").as_bytes())
}

pub(super) fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

pub(super) fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

/// An observer, and all it told.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub observer: Observer,
    pub events: Vec<Event>,
    pub now: u64,
}

impl Watch {
    pub(super) fn try_client(&mut self, bytes: &[u8]) -> Result<Observed, CodecError> {
        self.now += 1;
        let frame = Frame { tag: bytes[0], raw: Bytes::copy_from_slice(bytes) };
        self.observer.client(&frame, self.now, &mut self.events)
    }

    /// Observes messages that must all be forwarded, as one batch.
    pub(super) fn client(&mut self, messages: &[Vec<u8>]) -> &mut Self {
        for bytes in messages {
            assert_eq!(self.try_client(bytes), Ok(Observed::Forward), "{bytes:?}");
        }
        self.observer.flush(self.now, &mut self.events);
        self
    }

    pub(super) fn try_server(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.now += 1;
        let (mut walker, mut at) = (Walker::new(), 0);
        while let Some(message) = walker.next(bytes, &mut at)? {
            self.observer.server(&message, self.now, &mut self.events)?;
        }
        Ok(())
    }

    pub(super) fn server(&mut self, messages: &[Vec<u8>]) -> &mut Self {
        self.try_server(&messages.concat()).unwrap();
        self
    }

    pub(super) fn begun(&self) -> Vec<&Begun> {
        let mut begun = Vec::new();
        for event in &self.events {
            if let Event::StatementBegun(one) = event {
                begun.push(one);
            }
        }
        begun
    }

    pub(super) fn ended(&self) -> Vec<&Ended> {
        let mut ended = Vec::new();
        for event in &self.events {
            if let Event::StatementEnded(one) = event {
                ended.push(one);
            }
        }
        ended
    }
}
