//! Writes packets.

#[derive(Debug, Clone, Default)]
pub(super) struct Stream {
    pub(super) bytes: Vec<u8>,
}

pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

pub(super) fn attributes(mode: u32) -> Vec<u8> {
    [4_u32.to_be_bytes(), mode.to_be_bytes()].concat()
}

impl Stream {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn packet(&mut self, kind: u8, id: u32, fields: &[&[u8]]) -> &mut Self {
        let body = [&[kind][..], &id.to_be_bytes(), &fields.concat()].concat();
        self.bytes.extend(string(&body));
        self
    }

    pub(super) fn init(&mut self) -> &mut Self {
        self.packet(1, 3, &[])
    }

    pub(super) fn version(&mut self, version: u32) -> &mut Self {
        self.packet(2, version, &[&string(b"fsync@openssh.com"), &string(b"1")])
    }

    pub(super) fn open(&mut self, id: u32, path: &str, flags: u32) -> &mut Self {
        self.packet(3, id, &[&string(path.as_bytes()), &flags.to_be_bytes(), &attributes(0o644)])
    }

    pub(super) fn close(&mut self, id: u32, handle: &[u8]) -> &mut Self {
        self.packet(4, id, &[&string(handle)])
    }

    pub(super) fn read(&mut self, id: u32, handle: &[u8], offset: u64, length: u32) -> &mut Self {
        self.packet(5, id, &[&string(handle), &offset.to_be_bytes(), &length.to_be_bytes()])
    }

    pub(super) fn write(&mut self, id: u32, handle: &[u8], offset: u64, data: &[u8]) -> &mut Self {
        self.packet(6, id, &[&string(handle), &offset.to_be_bytes(), &string(data)])
    }

    pub(super) fn status(&mut self, id: u32, code: u32) -> &mut Self {
        self.packet(101, id, &[&code.to_be_bytes(), &string(b"text"), &string(b"en")])
    }

    pub(super) fn handle(&mut self, id: u32, handle: &[u8]) -> &mut Self {
        self.packet(102, id, &[&string(handle)])
    }

    pub(super) fn data(&mut self, id: u32, data: &[u8]) -> &mut Self {
        self.packet(103, id, &[&string(data)])
    }
}
