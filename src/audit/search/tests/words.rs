//! Whatever people do, in whatever order, and however often the index is taken up anew: every word is found, by the index as
//! by reading everything, and none that is not there.

use proptest::prelude::*;

use super::*;
use crate::audit::record::ChannelEnded;

/// What somebody does, in a word or two.
#[derive(Debug, Clone)]
enum Step {
    Begin(u8),
    Statement(u8, Vec<String>),
    Shell(u8),
    Line(u8, Vec<String>),
    HalfALine(u8, String),
    Long(u8, String),
    FullScreen(u8, String),
    ChannelEnd(u8),
    End(u8),
    /// The index is brought up to date, so far; perhaps by a process of its own.
    Index {
        most: u64,
        reopened: bool,
    },
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9éß漢_./-]{1,12}"
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..4_u8;
    let words = || proptest::collection::vec(word(), 1..6);
    prop_oneof![
        2 => who.clone().prop_map(Step::Begin),
        3 => (who.clone(), words()).prop_map(|(who, words)| Step::Statement(who, words)),
        2 => who.clone().prop_map(Step::Shell),
        4 => (who.clone(), words()).prop_map(|(who, words)| Step::Line(who, words)),
        2 => (who.clone(), word()).prop_map(|(who, word)| Step::HalfALine(who, word)),
        1 => (who.clone(), word()).prop_map(|(who, word)| Step::Long(who, word)),
        1 => (who.clone(), word()).prop_map(|(who, word)| Step::FullScreen(who, word)),
        1 => who.clone().prop_map(Step::ChannelEnd),
        1 => who.prop_map(Step::End),
        3 => (0..20_000_u64, any::<bool>()).prop_map(|(most, reopened)| Step::Index { most, reopened }),
    ]
}

fn channel_ended(ch: u32) -> Body {
    Body::ChannelEnded(ChannelEnded {
        ch,
        exit_status: Some(0),
        exit_signal: None,
        bytes_in: 0,
        bytes_out: 0,
        duration_us: 0,
        why: None,
    })
}

/// Plays steps into a journal and gives the words that must be found.
async fn play(house: &mut House, steps: &[Step]) -> Vec<String> {
    let mut open: BTreeMap<u8, (Recorder, bool)> = BTreeMap::new();
    let (mut begun, mut n, mut written) = (0, 0, Vec::new());
    for step in steps {
        match step {
            Step::Index { most, reopened } => {
                if *reopened {
                    house.reopen();
                }
                house.index.update(*most).unwrap();
            }
            Step::Begin(who) => {
                begun += 1;
                let name = format!("{}-user", char::from(b'a' + who));
                let recorder = house.begin(begun, &name, "target").await;
                if let Some((old, _)) = open.insert(*who, (recorder, false)) {
                    end(old).await;
                }
            }
            Step::End(who) => {
                if let Some((recorder, _)) = open.remove(who) {
                    end(recorder).await;
                }
            }
            Step::Statement(who, _)
            | Step::Shell(who)
            | Step::Line(who, _)
            | Step::HalfALine(who, _)
            | Step::Long(who, _)
            | Step::FullScreen(who, _)
            | Step::ChannelEnd(who) => {
                let Some((recorder, has_shell)) = open.get_mut(who) else { continue };
                n += 1;
                let bodies = bodies(step, n, has_shell, &mut written);
                house.record(recorder, &bodies).await;
            }
        }
    }
    for (recorder, _) in open.into_values() {
        recorder.forget();
    }
    written
}

fn bodies(step: &Step, n: u64, has_shell: &mut bool, written: &mut Vec<String>) -> Vec<Body> {
    match step {
        Step::Statement(_, words) => {
            written.extend(words.iter().cloned());
            vec![statement(n, &words.join(" \n "))]
        }
        Step::Shell(_) if !*has_shell => {
            *has_shell = true;
            vec![pty(1)]
        }
        Step::ChannelEnd(_) if *has_shell => {
            *has_shell = false;
            vec![channel_ended(1)]
        }
        Step::Line(_, words) => {
            written.extend(words.iter().cloned());
            let coloured: Vec<String> =
                words.iter().map(|word| format!("\x1b[1;32mxx\x08\x08{word}\x1b[0m")).collect();
            let bytes = format!("\r\n{}\r\n", coloured.join(" ")).into_bytes();
            // In pieces, wherever they are cut.
            bytes.chunks(7).map(|piece| shown(1, piece)).collect()
        }
        Step::HalfALine(_, word) => {
            written.push(word.clone());
            vec![shown(1, format!(" {word} ").as_bytes())]
        }
        Step::Long(_, word) => {
            written.push(word.clone());
            let filling = "0123456789 abcdef ".repeat(1_500);
            vec![shown(1, format!("\r\n{filling}{word}\r\n{filling}").as_bytes())]
        }
        Step::FullScreen(_, word) if *has_shell => {
            written.push(word.clone());
            let text = format!(
                "\x1b[?1049h\x1b[2J\x1b[3;5H\x1b[7m{word}\x1b[m\x1b[10;1Hmore\x1b[3;1H\x1b[J\x1b[?1049l"
            );
            vec![shown(1, text.as_bytes())]
        }
        _ => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_word_is_found_and_none_that_is_not_there(
        steps in proptest::collection::vec(step(), 1..40), absent in "[a-z]{4,9}", present in any::<proptest::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut house = House::new();
        let written = runtime.block_on(play(&mut house, &steps));
        for word in written.iter().take(12) {
            prop_assert!(!house.find(&Query::new(word, 1_000)).is_empty(), "{word} in {steps:?}");
        }
        for hit in house.find(&Query::new(&absent, 1_000)) {
            let is_there = text::fold(&hit.excerpt).contains(&absent);
            prop_assert!(is_there, "{absent} in {hit:?}");
        }
        if !written.is_empty() {
            let word = &written[present.index(written.len())];
            let part: String = word.chars().skip(1).take(5).collect();
            house.find(&Query { principal: Some("b-user".to_owned()), ..Query::new(&part, 5) });
        }
    }
}
