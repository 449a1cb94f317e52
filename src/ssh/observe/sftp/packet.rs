//! The packets of SFTP version 3, as OpenSSH speaks it (draft-ietf-secsh-filexfer-02; OpenSSH's
//! `PROTOCOL`, section 4). What follows the last field of a packet is ignored: so does OpenSSH.

use super::reader::Reader;
use crate::ssh::observe::file::{Attributes, FileOp, OpenFlags, Owner, Times};
use crate::ssh::observe::lost::Lost;

pub(super) const INIT: u8 = 1;
pub(super) const VERSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
pub(super) const STATUS: u8 = 101;
pub(super) const HANDLE: u8 = 102;
pub(super) const DATA: u8 = 103;
pub(super) const NAME: u8 = 104;
pub(super) const ATTRS: u8 = 105;
const EXTENDED: u8 = 200;
pub(super) const EXTENDED_REPLY: u8 = 201;

/// `SSH_FX_OK`.
pub(super) const OK: u32 = 0;
/// `SSH_FX_EOF`: how reading ends.
pub(super) const EOF: u32 = 1;
/// The draft allows no longer handles.
pub(super) const LONGEST_HANDLE: usize = 256;
/// Of an extension that is not known.
const LONGEST_NAME: usize = 256;

/// What a client asks for; all but the first have an id.
#[derive(Debug)]
pub(super) enum Request<'a> {
    Init,
    Open {
        path: &'a [u8],
        flags: OpenFlags,
        attributes: Attributes,
    },
    List {
        path: &'a [u8],
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
    },
    Write {
        handle: &'a [u8],
        offset: u64,
        length: u32,
    },
    SetOpen {
        handle: &'a [u8],
        attributes: Attributes,
    },
    CopyData {
        from: &'a [u8],
        to: &'a [u8],
    },
    /// What one answer ends.
    Change {
        op: FileOp,
        path: &'a [u8],
        to: Option<&'a [u8]>,
        attributes: Attributes,
    },
    /// Only asks, and opens nothing.
    Quiet,
}

impl<'a> Request<'a> {
    pub(super) fn read(kind: u8, body: &'a [u8]) -> Result<(u32, Self), Lost> {
        let mut reader = Reader::new(name(kind), body);
        // For `INIT` this is the version.
        let id = reader.u32()?;
        let request = match kind {
            INIT => Self::Init,
            OPEN => Self::Open {
                path: reader.string()?,
                flags: OpenFlags(reader.u32()?),
                attributes: attributes(&mut reader)?,
            },
            CLOSE => Self::Close { handle: handle(&mut reader)? },
            READ => Self::Read { handle: handle(&mut reader)?, offset: reader.u64()? },
            WRITE => {
                Self::Write { handle: handle(&mut reader)?, offset: reader.u64()?, length: reader.u32()? }
            }
            FSETSTAT => Self::SetOpen { handle: handle(&mut reader)?, attributes: attributes(&mut reader)? },
            OPENDIR => Self::List { path: reader.string()? },
            SETSTAT => change_attributes(FileOp::Setstat, &mut reader)?,
            MKDIR => change_attributes(FileOp::Mkdir, &mut reader)?,
            REMOVE => change(FileOp::Remove, reader.string()?, None),
            RMDIR => change(FileOp::Rmdir, reader.string()?, None),
            RENAME => change_two(FileOp::Rename, &mut reader)?,
            SYMLINK => {
                // OpenSSH has the two paths the other way round than the draft.
                let target = reader.string()?;
                change(FileOp::Symlink, reader.string()?, Some(target))
            }
            LSTAT | FSTAT | READDIR | REALPATH | STAT | READLINK => Self::Quiet,
            EXTENDED => extended(&mut reader)?,
            kind => return Err(Lost::UnknownPacket { kind }),
        };
        Ok((id, request))
    }
}

fn change<'a>(op: FileOp, path: &'a [u8], to: Option<&'a [u8]>) -> Request<'a> {
    Request::Change { op, path, to, attributes: Attributes::default() }
}

fn change_two<'a>(op: FileOp, reader: &mut Reader<'a>) -> Result<Request<'a>, Lost> {
    let path = reader.string()?;
    Ok(change(op, path, Some(reader.string()?)))
}

fn change_attributes<'a>(op: FileOp, reader: &mut Reader<'a>) -> Result<Request<'a>, Lost> {
    Ok(Request::Change { op, path: reader.string()?, to: None, attributes: attributes(reader)? })
}

fn extended<'a>(reader: &mut Reader<'a>) -> Result<Request<'a>, Lost> {
    let request = match reader.string()? {
        b"posix-rename@openssh.com" => change_two(FileOp::PosixRename, reader)?,
        b"hardlink@openssh.com" => change_two(FileOp::Hardlink, reader)?,
        b"lsetstat@openssh.com" => change_attributes(FileOp::Lsetstat, reader)?,
        b"copy-data" => {
            let from = handle(reader)?;
            reader.u64()?;
            reader.u64()?;
            Request::CopyData { from, to: handle(reader)? }
        }
        b"fsync@openssh.com"
        | b"statvfs@openssh.com"
        | b"fstatvfs@openssh.com"
        | b"limits@openssh.com"
        | b"expand-path@openssh.com"
        | b"home-directory"
        | b"users-groups-by-id@openssh.com" => Request::Quiet,
        name => {
            let name = name.get(..LONGEST_NAME).unwrap_or(name);
            change(FileOp::Extended(bytes::Bytes::copy_from_slice(name)), b"", None)
        }
    };
    Ok(request)
}

fn handle<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Lost> {
    let handle = reader.string()?;
    if handle.len() > LONGEST_HANDLE { Err(reader.malformed()) } else { Ok(handle) }
}

/// `ATTRS` of version 3; pairs of extended attributes are not read.
fn attributes(reader: &mut Reader<'_>) -> Result<Attributes, Lost> {
    let flags = reader.u32()?;
    let mut attributes = Attributes::default();
    if flags & 0x01 != 0 {
        attributes.size = Some(reader.u64()?);
    }
    if flags & 0x02 != 0 {
        attributes.owner = Some(Owner { user: reader.u32()?, group: reader.u32()? });
    }
    if flags & 0x04 != 0 {
        attributes.mode = Some(reader.u32()?);
    }
    if flags & 0x08 != 0 {
        let (accessed, modified) = (reader.u32()?.into(), reader.u32()?.into());
        attributes.times = Some(Times { accessed, modified });
    }
    Ok(attributes)
}

/// What a server answers; all but the first have an id.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    Version(u32),
    Status {
        id: u32,
        code: u32,
        message: &'a [u8],
    },
    Handle {
        id: u32,
        handle: &'a [u8],
    },
    Data {
        id: u32,
    },
    /// Names, attributes, or what an extension answers.
    Told {
        id: u32,
    },
}

impl<'a> Answer<'a> {
    pub(super) fn read(kind: u8, body: &'a [u8]) -> Result<Self, Lost> {
        let mut reader = Reader::new(name(kind), body);
        let id = reader.u32()?;
        Ok(match kind {
            VERSION => Self::Version(id),
            // Some servers send no text.
            STATUS => Self::Status { id, code: reader.u32()?, message: reader.string().unwrap_or_default() },
            HANDLE => Self::Handle { id, handle: handle(&mut reader)? },
            DATA => Self::Data { id },
            NAME | ATTRS | EXTENDED_REPLY => Self::Told { id },
            kind => return Err(Lost::UnknownPacket { kind }),
        })
    }
}

pub(super) fn name(kind: u8) -> &'static str {
    match kind {
        INIT => "init",
        VERSION => "version",
        OPEN => "open",
        CLOSE => "close",
        READ => "read",
        WRITE => "write",
        LSTAT => "lstat",
        FSTAT => "fstat",
        SETSTAT => "setstat",
        FSETSTAT => "fsetstat",
        OPENDIR => "opendir",
        READDIR => "readdir",
        REMOVE => "remove",
        MKDIR => "mkdir",
        RMDIR => "rmdir",
        REALPATH => "realpath",
        STAT => "stat",
        RENAME => "rename",
        READLINK => "readlink",
        SYMLINK => "symlink",
        STATUS => "status",
        HANDLE => "handle",
        DATA => "data",
        NAME => "name",
        ATTRS => "attrs",
        EXTENDED => "extended",
        EXTENDED_REPLY => "extended-reply",
        _ => "unknown",
    }
}
