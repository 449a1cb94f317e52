//! Whole files of a log, cut off, missing, emptied and exchanged; whole recordings; checkpoints of earlier.

use std::fs;

use sallyport::audit::verify::Kind;

use super::log::connection;
use super::sealed::Sealed;
use super::{FILE_SIZE, Lines, assert_found, check, lines_in};

/// Numbers that are the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// The lines that the files hold as they are.
fn there(sealed: &Sealed) -> Lines {
    let journal =
        |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().starts_with("journal-");
    let files = sealed.image().into_iter().filter(|(path, _)| journal(path));
    files.flat_map(|(_, bytes)| lines_in(&bytes)).collect()
}

#[tokio::test]
async fn any_file_that_is_cut_off_anywhere_is_found() {
    let sealed = Sealed::interleaved(FILE_SIZE).await;
    let (image, written) = (sealed.image(), sealed.files().concat());
    let mut random = Random(0x5a11_7005);
    for (number, lines) in (1..).zip(sealed.files()) {
        let whole = &image[&sealed.file(number)];
        let data: usize = lines.iter().map(Vec::len).sum();
        let mut cuts: Vec<usize> = (0..=lines.len()).map(|kept| lines[..kept].concat().len()).collect();
        cuts.extend((0..60).map(|_| random.below(data)));
        // Where a boundary is missed by one.
        cuts.extend([1, data - 1, data - 2]);
        for cut in cuts {
            let mut zeroed = whole.clone();
            zeroed[cut..].fill(0);
            for (how, bytes) in [("cut off", &whole[..cut]), ("zeroed", &zeroed[..])] {
                fs::write(sealed.file(number), bytes).unwrap();
                assert_found(
                    &sealed.verify(),
                    &written,
                    &there(&sealed),
                    &format!("file {number} {how} at {cut}"),
                );
            }
        }
        sealed.restore(&image);
    }
    assert!(sealed.verify().is_whole());
}

#[tokio::test]
async fn any_file_that_is_gone_emptied_or_stands_for_another_is_found() {
    let sealed = Sealed::interleaved(FILE_SIZE).await;
    let (image, written) = (sealed.image(), sealed.files().concat());
    let count = u32::try_from(sealed.files().len()).unwrap();
    let check = |what: &str| {
        assert_found(&sealed.verify(), &written, &there(&sealed), what);
        sealed.restore(&image);
    };
    for number in 1..=count {
        fs::remove_file(sealed.file(number)).unwrap();
        check(&format!("file {number} is gone"));
        fs::write(sealed.file(number), b"").unwrap();
        check(&format!("file {number} is empty"));
        // The files behind it take its place.
        for next in number + 1..=count {
            fs::rename(sealed.file(next), sealed.file(next - 1)).unwrap();
        }
        if number == count {
            fs::remove_file(sealed.file(number)).unwrap();
        }
        check(&format!("file {number} is gone and the others are renamed"));
        for other in (1..=count).filter(|other| *other != number) {
            fs::copy(sealed.file(other), sealed.file(number)).unwrap();
            check(&format!("file {other} stands for file {number}"));
            fs::write(sealed.file(number), &image[&sealed.file(other)]).unwrap();
            fs::write(sealed.file(other), &image[&sealed.file(number)]).unwrap();
            check(&format!("files {number} and {other} are exchanged"));
        }
        // One more behind the last.
        fs::copy(sealed.file(number), sealed.file(count + 1)).unwrap();
        check(&format!("file {number} stands at the end again"));
    }
    assert!(sealed.verify().is_whole());
}

#[tokio::test]
async fn any_recording_that_is_gone_is_found() {
    let sealed = Sealed::interleaved(FILE_SIZE).await;
    let (files, written) = (sealed.files(), sealed.files().concat());
    for number in 1..=3 {
        let rec = format!("\"rec\":\"{}\"", connection(number));
        let is_of = |line: &Vec<u8>| String::from_utf8_lossy(line).contains(&rec);
        let without = |lines: &Lines| lines.iter().filter(|line| !is_of(line)).cloned().collect();
        let left: Vec<Lines> = files.iter().map(without).collect();
        assert_eq!(left.concat().len() + 4, written.len());
        check(&sealed, &written, &left, &format!("recording {number} is gone"));
    }
    // Signed anew by somebody with the key, what is left says that there was one.
    for number in 1..=3 {
        let sealed = Sealed::interleaved(64 << 10).await;
        let rec = connection(number).to_string();
        let of = |json: &Vec<u8>| String::from_utf8_lossy(json).contains(&format!("\"rec\":\"{rec}\""));
        let left: Vec<_> = sealed.jsons().into_iter().filter(|json| !of(json)).collect();
        sealed.relink(&left);
        assert!(matches!(sealed.first_bad().kind, Kind::Truncated | Kind::Rewritten));
        sealed.sign_with_stolen_key();
        let found = sealed.first_bad();
        assert_eq!((found.kind, found.rec), (Kind::MissingRecording, Some(rec)));
    }
}

/// Notes as they stand in `checkpoints.log`.
fn stream_of(notes: &[String]) -> String {
    notes.join("\n") + "\n"
}

#[tokio::test]
async fn a_checkpoint_of_earlier_hides_nothing() {
    let sealed = Sealed::interleaved(FILE_SIZE).await;
    let (image, files, written) = (sealed.image(), sealed.files(), sealed.files().concat());
    let (newest, all) = (sealed.dir().join("checkpoint"), sealed.dir().join("checkpoints.log"));
    let text = fs::read_to_string(&all).unwrap();
    // A note has an empty line in it, and one behind it.
    let parts: Vec<&str> = text.split_inclusive("\n\n").collect();
    let notes: Vec<String> = parts.chunks(2).map(|note| note.concat().trim_end().to_owned() + "\n").collect();
    let size = |note: &str| note.lines().nth(1).unwrap().parse::<usize>().unwrap();
    let sizes: Vec<usize> = notes.iter().map(|note| size(note)).collect();
    assert_eq!(sizes.first(), Some(&0));
    assert!(sizes.is_sorted() && sizes.len() >= 6 && sizes.last() == Some(&15), "{sizes:?}");
    let honest = sealed.verify();
    let cut_to = |size: usize| {
        let mut left = size;
        let cut = |lines: &Lines| {
            let kept = left.min(lines.len());
            left -= kept;
            lines[..kept].to_vec()
        };
        files.iter().map(cut).collect::<Vec<_>>()
    };
    for (index, note) in notes.iter().enumerate().filter(|(_, note)| size(note) < 15) {
        // By itself it takes nothing away: the others still vouch for all.
        fs::write(&newest, note).unwrap();
        assert_eq!(sealed.verify(), honest);
        check(&sealed, &written, &cut_to(size(note)), "an earlier checkpoint, and the log cut off after it");
        sealed.restore(&image);
        // Among the others it is out of order.
        for at in index + 1..=notes.len() {
            let mut replayed = notes.clone();
            replayed.insert(at, note.clone());
            let is_out_of_order = size(note) < size(&replayed[at - 1]);
            fs::write(&all, stream_of(&replayed)).unwrap();
            let report = sealed.verify();
            assert_eq!(report.is_whole(), !is_out_of_order, "note {index} again at {at}: {report}");
            if let Some(found) = report.first_bad {
                assert_eq!((found.kind, found.file.as_str()), (Kind::CheckpointForged, "checkpoints.log"));
            }
        }
        sealed.restore(&image);
        // Everything put back to an earlier state is what it was then; who kept a checkpoint since, sees it.
        let pin = tempfile::NamedTempFile::new().unwrap();
        fs::copy(&newest, pin.path()).unwrap();
        fs::write(&newest, note).unwrap();
        fs::write(&all, stream_of(&notes[..=index])).unwrap();
        sealed.set_files(&cut_to(size(note)));
        let pinned = sealed.verify_with(&[pin.path().to_owned()]).first_bad.unwrap();
        assert_eq!((pinned.kind, pinned.n), (Kind::Truncated, size(note) as u64), "{pinned}");
        sealed.restore(&image);
    }
    assert_eq!(sealed.verify(), honest);
}
