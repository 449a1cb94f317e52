//! Bounded channels whose places cost a pointer each: tokio makes places for 32 messages at once, and
//! large messages that seldom come would cost every idle connection some tens of kilobytes.

use tokio::sync::mpsc;

#[derive(Debug)]
pub struct Sender<T>(mpsc::Sender<Box<T>>);

#[derive(Debug)]
pub struct Receiver<T>(mpsc::Receiver<Box<T>>);

/// The other side is gone, or for [`Sender::try_send`] the channel may be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message was not taken")]
pub struct NotTaken;

pub fn channel<T>(places: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(places);
    (Sender(sender), Receiver(receiver))
}

impl<T> Sender<T> {
    /// Waits for a place. Not taken, the message is dropped.
    pub async fn send(&self, message: T) -> Result<(), NotTaken> {
        self.0.send(Box::new(message)).await.map_err(|_| NotTaken)
    }

    pub fn try_send(&self, message: T) -> Result<(), NotTaken> {
        self.0.try_send(Box::new(message)).map_err(|_| NotTaken)
    }
}

impl<T> Receiver<T> {
    /// `None` when nobody can send any more. Cancel-safe.
    pub async fn recv(&mut self) -> Option<T> {
        self.0.recv().await.map(|message| *message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_in_order_and_a_full_channel_takes_no_more() {
        let (sender, mut receiver) = channel(2);
        sender.send(1).await.unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(NotTaken));
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(1), Some(2)));
        drop(sender);
        assert_eq!(receiver.recv().await, None::<i32>);
    }
}
