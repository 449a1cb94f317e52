//! Single records of a log in several files.

use super::sealed::Sealed;
use super::{FILE_SIZE, Lines, assert_found, check};

async fn written() -> (Sealed, Vec<Lines>, Lines) {
    let sealed = Sealed::interleaved(FILE_SIZE).await;
    let files = sealed.files();
    assert!(files.len() >= 4, "{} files", files.len());
    let lines = files.concat();
    assert_eq!(lines.len(), 15);
    check(&sealed, &lines, &files, "nothing was done");
    (sealed, files, lines)
}

/// Every line's file and place in it.
fn places(files: &[Lines]) -> Vec<(usize, usize)> {
    files.iter().enumerate().flat_map(|(file, lines)| (0..lines.len()).map(move |at| (file, at))).collect()
}

#[tokio::test]
async fn an_edited_record_of_any_file_is_named() {
    let (sealed, files, lines) = written().await;
    for (n, (file, at)) in places(&files).into_iter().enumerate() {
        let length = lines[n].len();
        // Its index, its chain value, its record's beginning, middle and end, and its line feed.
        for byte in [0, 4, 70, length / 4, length / 2, length - 2, length - 1] {
            for mask in [0x01, 0x20, 0x80] {
                let mut edited = files.clone();
                edited[file][at][byte] ^= mask;
                sealed.set_files(&edited);
                assert_found(
                    &sealed.verify(),
                    &lines,
                    &edited.concat(),
                    &format!("byte {byte} of record {n}"),
                );
            }
        }
    }
}

#[tokio::test]
async fn a_record_that_is_gone_or_stands_anywhere_else_as_well_is_named() {
    let (sealed, files, lines) = written().await;
    for (n, (file, at)) in places(&files).into_iter().enumerate() {
        let mut without = files.clone();
        without[file].remove(at);
        check(&sealed, &lines, &without, &format!("record {n} removed"));
        for (to, (to_file, to_at)) in places(&files).into_iter().enumerate() {
            let mut twice = files.clone();
            twice[to_file].insert(to_at, lines[n].clone());
            check(&sealed, &lines, &twice, &format!("record {n} again before {to}"));
        }
        let mut twice = files.clone();
        twice.last_mut().unwrap().push(lines[n].clone());
        check(&sealed, &lines, &twice, &format!("record {n} again at the end"));
    }
}

#[tokio::test]
async fn any_two_records_that_change_places_are_named_and_any_that_is_moved() {
    let (sealed, files, lines) = written().await;
    let places = places(&files);
    for (n, (file, at)) in places.iter().copied().enumerate() {
        for (other, (other_file, other_at)) in places.iter().copied().enumerate() {
            if other <= n {
                continue;
            }
            let mut swapped = files.clone();
            swapped[file][at].clone_from(&lines[other]);
            swapped[other_file][other_at].clone_from(&lines[n]);
            check(&sealed, &lines, &swapped, &format!("records {n} and {other} swapped"));
            let mut moved = files.clone();
            let line = moved[file].remove(at);
            let to = if file == other_file { other_at - 1 } else { other_at };
            moved[other_file].insert(to + 1, line);
            check(&sealed, &lines, &moved, &format!("record {n} moved behind {other}"));
        }
    }
}

#[tokio::test]
async fn a_record_that_is_zeroed_or_put_in_anothers_place_is_named() {
    let (sealed, files, lines) = written().await;
    for (n, (file, at)) in places(&files).into_iter().enumerate() {
        let mut zeroed = files.clone();
        zeroed[file][at].fill(0);
        sealed.set_files(&zeroed);
        let found = sealed.first_bad();
        assert_eq!(found.n, n as u64, "record {n} zeroed: {found}");
        for (other, line) in lines.iter().enumerate().filter(|(other, _)| *other != n) {
            let mut replaced = files.clone();
            replaced[file][at].clone_from(line);
            check(&sealed, &lines, &replaced, &format!("record {other} in the place of {n}"));
        }
    }
}
