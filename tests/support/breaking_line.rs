//! Stands before a server as the line to it, which breaks: somewhere amid what the server answers, so that the rest is lost
//! and whoever asked cannot know what was done.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::load::Moments;

/// What breaks does so within this many bytes of the server's: a login has about four thousand.
const WITHIN: u64 = 9_000;

#[derive(Debug)]
pub struct BreakingLine {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    moments: Moments,
    percent: u64,
    broken: u64,
}

impl BreakingLine {
    /// Breaks nothing as yet.
    pub fn before(behind: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(Shared { moments: Moments(seed), percent: 0, broken: 0 }));
        let ours = Arc::clone(&shared);
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let ours = Arc::clone(&ours);
                std::thread::spawn(move || carry(client, behind, &ours));
            }
        });
        Self { port, shared }
    }

    /// So many percent of the connections that are made from now on break.
    pub fn set(&self, percent: u64) {
        self.shared.lock().unwrap().percent = percent;
    }

    /// How many connections have broken.
    pub fn broken(&self) -> u64 {
        self.shared.lock().unwrap().broken
    }
}

fn carry(client: TcpStream, behind: u16, shared: &Mutex<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", behind)) else { return };
    let after = {
        let mut shared = shared.lock().unwrap();
        let breaks = shared.moments.next() % 100 < shared.percent;
        breaks.then(|| shared.moments.next() % WITHIN)
    };
    let (asks, takes) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let asking = std::thread::spawn(move || pass(asks, takes, None));
    if pass(server, client, after) {
        shared.lock().unwrap().broken += 1;
    }
    asking.join().unwrap();
}

/// Whether so many bytes have passed, and it broke.
fn pass(mut from: TcpStream, mut to: TcpStream, after: Option<u64>) -> bool {
    let mut left = after.unwrap_or(u64::MAX);
    let mut bytes = [0; 4096];
    let broke = loop {
        let Ok(read @ 1..) = from.read(&mut bytes) else { break false };
        let read = u64::try_from(read).unwrap();
        let passes = usize::try_from(read.min(left)).unwrap();
        if to.write_all(bytes.get(..passes).unwrap()).is_err() {
            break false;
        }
        left -= read.min(left);
        if left == 0 {
            break true;
        }
    };
    for side in [from, to] {
        let _gone_already = side.shutdown(Shutdown::Both);
    }
    broke
}
