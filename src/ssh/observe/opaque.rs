//! Both directions of a channel that is no longer understood.

use super::file::FileEvent;
use super::stream::StreamObserver;

#[derive(Debug)]
pub(super) struct Opaque {
    pub(super) client: StreamObserver,
    pub(super) server: StreamObserver,
}

impl Opaque {
    pub(super) fn new() -> Self {
        Self { client: StreamObserver::new(0), server: StreamObserver::new(0) }
    }

    pub(super) fn finish(self) -> FileEvent {
        FileEvent::Opaque { client: self.client.finish(), server: self.server.finish() }
    }
}
