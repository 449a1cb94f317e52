//! What a client opens under a permit, as many at once as one connection may have.

use std::sync::Arc;

use super::carrier::Carrier;
use super::forward::{self, Listeners};
use super::server::{Arrival, ClientChannel, OpenReply, Opening};
use super::session::{self, Prelude};

/// Takes what a client opens, each in a task of its own.
pub(super) struct Channels<'a> {
    carrier: &'a Arc<Carrier>,
    listeners: Arc<Listeners>,
}

impl<'a> Channels<'a> {
    pub(super) fn new(carrier: &'a Arc<Carrier>) -> Self {
        Self { carrier, listeners: Arc::default() }
    }

    pub(super) async fn take(&self, arrival: Arrival) {
        let (carrier, listeners) = (Arc::clone(self.carrier), Arc::clone(&self.listeners));
        match arrival {
            // Said once, long ago.
            Arrival::Authenticated { .. } => {}
            Arrival::Opened(Opening::Session, channel, reply) => {
                self.serve_session(channel, Some(reply), Prelude::default()).await;
            }
            Arrival::Opened(opening, channel, reply) => self.serve_forward(opening, channel, reply).await,
            Arrival::Listen { address, port, answer } => {
                let work = async move { listeners.listen(&carrier, address, port, answer).await };
                self.carrier.tasks.spawn(work);
            }
            Arrival::ListenPath { path, answer } => {
                let work = async move { listeners.listen_path(&carrier, path, answer).await };
                self.carrier.tasks.spawn(work);
            }
            Arrival::Unlisten { address, port, answer } => {
                let place = (address, port);
                let work = async move { listeners.unlisten(&carrier, place, false, answer).await };
                self.carrier.tasks.spawn(work);
            }
            Arrival::UnlistenPath { path, answer } => {
                let work = async move { listeners.unlisten(&carrier, (path, 0), true, answer).await };
                self.carrier.tasks.spawn(work);
            }
            Arrival::Refused(what) => {
                carrier.note_refused(what, what, "this kind of channel is not offered".to_owned()).await;
            }
        }
    }

    pub(super) async fn serve_session(
        &self,
        channel: ClientChannel,
        reply: Option<OpenReply>,
        prelude: Prelude,
    ) {
        let Some(place) = self.carrier.place() else {
            return self.full(reply).await;
        };
        let carrier = Arc::clone(self.carrier);
        self.carrier.tasks.spawn(async move {
            session::serve(&carrier, channel, reply, prelude).await;
            drop(place);
        });
    }

    async fn serve_forward(&self, opening: Opening, channel: ClientChannel, reply: OpenReply) {
        let Some(place) = self.carrier.place() else {
            return self.full(Some(reply)).await;
        };
        let carrier = Arc::clone(self.carrier);
        self.carrier.tasks.spawn(async move {
            forward::direct(&carrier, &opening, channel, reply).await;
            drop(place);
        });
    }

    async fn full(&self, reply: Option<OpenReply>) {
        let why = self.carrier.note_full().await;
        if let Some(reply) = reply {
            reply.prohibit(why).await;
        }
    }
}
