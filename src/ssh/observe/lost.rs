//! Why an observer no longer understands what passes.

/// The text is what the record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("a packet of {length} bytes is longer than those of the protocol")]
    PacketLength { length: u32 },
    #[error("a `{packet}` packet is not as the protocol has it")]
    Malformed { packet: &'static str },
    #[error("a packet of type {kind} is not known to the protocol's version 3")]
    UnknownPacket { kind: u8 },
    #[error("the exchange did not begin with the protocol's version")]
    NotBegun,
    #[error("version {version} of the protocol was agreed, and only 3 is read")]
    Version { version: u32 },
    #[error("request id {id} was used while its last use was unanswered")]
    IdInUse { id: u32 },
    #[error("request id {id} was answered and had not been used")]
    Unasked { id: u32 },
    #[error("request id {id} was answered by a packet of another kind")]
    Answer { id: u32 },
    #[error("a handle was used that had not been given")]
    UnknownHandle,
    #[error("more {of} than are kept")]
    TooMany { of: &'static str },
    #[error("what was sent is not a line of the copy protocol")]
    CopyLine,
    #[error("what was answered is not an answer of the copy protocol")]
    CopyAnswer,
    #[error("the sender went on after its line was refused")]
    WentOn,
}
