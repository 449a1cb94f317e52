//! What a disk can do without Sallyport: a sync for as many lines as there are writers, and group commit with nothing
//! but lines in it, by the same writers on the same threads. The first is what no log could reach whose writers come
//! back only after the sync; the second what the waking up and coming back of that many writers leaves of it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Lanes, MEASURE};

/// A file whose blocks have been written, which is written round and round.
struct Allocated {
    file: File,
    at: usize,
}

impl Allocated {
    const SIZE: usize = 64 << 20;

    fn new(directory: &Path) -> Self {
        let file = File::create(directory.join("bare")).unwrap();
        file.write_all_at(&vec![0; Self::SIZE], 0).unwrap();
        file.sync_all().unwrap();
        Self { file, at: 0 }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() > Self::SIZE {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at as u64).unwrap();
        self.file.sync_data().unwrap();
        self.at += bytes.len();
    }
}

/// Syncs a second of writes of so many bytes, one after the other.
pub(super) fn syncs(directory: &Path, bytes: usize) -> f64 {
    let (mut file, piece) = (Allocated::new(directory), vec![b'x'; bytes]);
    let (begun, mut syncs) = (Instant::now(), 0_u64);
    while begun.elapsed() < MEASURE {
        file.append(&piece);
        syncs += 1;
    }
    syncs as f64 / begun.elapsed().as_secs_f64()
}

/// Lines that are to be written next, and the number of the sync that they go with.
#[derive(Default)]
struct Next {
    lines: Vec<u8>,
    writers: usize,
    sync: u64,
    over: bool,
}

#[derive(Default)]
struct Log {
    next: Mutex<Next>,
    more: Condvar,
}

impl Log {
    /// Adds a line; the number of the sync to wait for.
    fn add(&self, line: &[u8]) -> u64 {
        let mut next = self.next.lock().unwrap();
        next.lines.extend_from_slice(line);
        next.writers += 1;
        self.more.notify_one();
        next.sync
    }

    /// Syncs whatever has come, once as many came as came last or a share of the last sync has passed; until it is over.
    fn write(&self, mut file: Allocated, share: f64, told: &[watch::Sender<u64>]) {
        let (mut lines, mut last, mut sync_took) = (Vec::new(), 1, Duration::ZERO);
        loop {
            let mut next = self.next.lock().unwrap();
            while next.writers == 0 {
                if next.over {
                    return;
                }
                next = self.more.wait(next).unwrap();
            }
            let until = Instant::now() + sync_took.mul_f64(share);
            while next.writers < last
                && let Some(left) = until.checked_duration_since(Instant::now())
            {
                next = self.more.wait_timeout(next, left).unwrap().0;
            }
            std::mem::swap(&mut lines, &mut next.lines);
            let sync = next.sync;
            last = std::mem::take(&mut next.writers);
            next.sync += 1;
            drop(next);
            let begun = Instant::now();
            file.append(&lines);
            sync_took = begun.elapsed();
            lines.clear();
            for lane in told {
                lane.send_replace(sync + 1);
            }
        }
    }
}

/// Lines a second of so many writers on `lanes`, each waiting for its own: the better of not waiting for others and of
/// waiting for them an eighth of a sync.
pub(super) async fn group_commit(directory: &Path, lanes: &Lanes, writers: usize, line: usize) -> f64 {
    let at_once = run(directory, lanes, writers, line, 0.0).await;
    let in_a_while = run(directory, lanes, writers, line, 0.125).await;
    at_once.max(in_a_while)
}

async fn run(directory: &Path, lanes: &Lanes, writers: usize, line: usize, share: f64) -> f64 {
    let (over, count, log) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(Log::default()));
    let tasks = TaskTracker::new();
    // The writing thread wakes one task of each lane, which tells the others: one system call for each lane.
    let (mut to_lanes, mut told) = (Vec::new(), Vec::new());
    for handle in &lanes.handles {
        let (to_lane, mut from_log) = watch::channel(0);
        let (tell, from_messenger) = watch::channel(0);
        tasks.spawn_on(
            async move {
                while from_log.changed().await.is_ok() {
                    tell.send_replace(*from_log.borrow_and_update());
                }
            },
            handle,
        );
        to_lanes.push(to_lane);
        told.push(from_messenger);
    }
    let file = Allocated::new(directory);
    let writing = {
        let log = log.clone();
        std::thread::spawn(move || log.write(file, share, &to_lanes))
    };
    let mut writing_ones = Vec::new();
    for writer in 0..writers {
        let (over, count, log) = (over.clone(), count.clone(), log.clone());
        let (mut told, line) = (told[writer % told.len()].clone(), vec![b'x'; line]);
        let work = async move {
            while !over.load(Ordering::Relaxed) {
                let sync = log.add(&line);
                told.wait_for(|synced| *synced > sync).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        writing_ones.push(tasks.spawn_on(work, lanes.handle(writer as u64)));
    }
    let (begun, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(MEASURE).await;
    let done = count.load(Ordering::Relaxed) - before;
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    for writer in writing_ones {
        writer.await.unwrap();
    }
    log.next.lock().unwrap().over = true;
    log.more.notify_one();
    writing.join().unwrap();
    tasks.close();
    tasks.wait().await;
    rate
}
