//! The rule of masking, from both sides.

use proptest::prelude::*;

use super::*;

fn mask() -> InputMask {
    InputMask::new(Masking::ByPromptAndEcho)
}

/// What was typed with `.` for each masked byte.
fn typed(mask: &mut InputMask, bytes: &[u8], now_us: u64) -> String {
    let mut stretches = Vec::new();
    mask.input(bytes, now_us, &mut stretches);
    let shown = stretches.iter().map(|stretch| match stretch {
        MaskedInput::Clear(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        MaskedInput::Masked { bytes, .. } => ".".repeat(*bytes),
    });
    shown.collect()
}

#[test]
fn a_prompt_masks_up_to_enter() {
    let mut mask = mask();
    mask.output(b"bob@web-1:~$ sudo -s\r\n[sudo] password for bob: ");
    assert_eq!(typed(&mut mask, b"hunt", 0), "....");
    assert_eq!(typed(&mut mask, b"er2\x7f3\r", 1), ".....\r");
    mask.output(b"\r\nroot@web-1:~# ");
    assert_eq!(typed(&mut mask, b"id\r", 2), "id\r");
}

#[test]
fn what_is_shown_meanwhile_does_not_end_a_masked_run() {
    let mut mask = mask();
    mask.output(b"Password: ");
    assert_eq!(typed(&mut mask, b"a", 0), ".");
    mask.output(b"*");
    assert_eq!(typed(&mut mask, b"b", 1), ".");
    mask.output(b"\r\nBroadcast message\r\n$ ");
    assert_eq!(typed(&mut mask, b"c\r", 2), ".\r");
    assert_eq!(typed(&mut mask, b"d", 3), "d");
}

#[test]
fn interrupts_and_ends_end_a_masked_run_and_are_recorded() {
    for end in ["\x03", "\x04", "\n", "\r\n"] {
        let mut mask = mask();
        mask.output(b"Password: ");
        assert_eq!(typed(&mut mask, format!("ab{end}").as_bytes(), 0), format!("..{end}"));
        mask.output(b"\r\n$ ");
        assert_eq!(typed(&mut mask, b"ls", 1), "ls");
    }
}

#[test]
fn a_prompt_that_still_stands_after_enter_masks_on() {
    let mut mask = mask();
    mask.output(b"New password: ");
    assert_eq!(typed(&mut mask, b"one\rone\r", 0), "...\r...\r");
}

#[test]
fn prompts_are_found_through_escapes_and_cuts() {
    let prompts: [&[u8]; 7] = [
        b"\x1b[1;31mPassword:\x1b[0m ",
        b"\x1b]0;a title: not shown\x07Password: \x1b[K",
        b"\x1b]2;title\x1b\\Password: \x1b[?25h",
        b"loading 10%\rloading 99%\rPassword: ",
        b"\x1b[10;5HPassword: ",
        "\x1b[2K\x1b[G? Contraseña: ".as_bytes(),
        b"Passwort\x08\x08\x08\x08\x08\x08\x08\x08Password: ",
    ];
    for prompt in prompts {
        for size in 1..prompt.len() {
            let mut mask = mask();
            prompt.chunks(size).for_each(|chunk| mask.output(chunk));
            assert_eq!(typed(&mut mask, b"x", 0), ".", "{prompt:?} cut every {size}");
        }
    }
    for other in
        [&b"\x1b]0;Password: \x07$ "[..], b"Password: \r$ ", b"Password: \r\n", b"Password: \x1b[H$ "]
    {
        let mut mask = mask();
        mask.output(other);
        assert_eq!(typed(&mut mask, b"x", 0), "x", "{other:?}");
    }
}

#[test]
fn what_the_user_typed_is_no_prompt() {
    let mut mask = mask();
    mask.output(b"$ ");
    for byte in b"echo password:" {
        assert_eq!(typed(&mut mask, &[*byte], 0), char::from(*byte).to_string());
        mask.output(&[*byte]);
    }
    assert_eq!(typed(&mut mask, b"; rm -rf /\r", 0), "; rm -rf /\r");
}

#[test]
fn a_line_that_is_not_echoed_is_masked_from_the_third_character_on() {
    let mut mask = mask();
    mask.output(b"Say the word\r\n");
    assert_eq!(typed(&mut mask, b"s", 0), "s");
    assert_eq!(typed(&mut mask, b"e", 150_000), "e");
    assert_eq!(typed(&mut mask, b"sa", 400_000), "..");
    assert_eq!(typed(&mut mask, b"me\r", 410_000), "..\r");
    mask.output(b"\r\n$ ");
    assert_eq!(typed(&mut mask, b"ls", 900_000), "ls", "the next line begins anew");
}

#[test]
fn a_line_that_is_echoed_is_recorded_however_slowly_it_is_typed() {
    let mut mask = mask();
    for (now, text) in (0..).zip(["l", "s", " ", "-", "l", "é", "x"]) {
        assert_eq!(typed(&mut mask, text.as_bytes(), now * 1_000_000), text);
        mask.output(text.as_bytes());
    }
}

#[test]
fn keys_that_print_nothing_are_not_missed() {
    let mut mask = mask();
    for (now, keys) in (0..).zip(["\x1b[A", "\x1bOB", "\t", "\x12", "\x1b[1;5C", "\x1bb", "\x7f", "x"]) {
        assert_eq!(typed(&mut mask, keys.as_bytes(), now * 1_000_000), keys);
    }
}

#[test]
fn full_screen_programs_are_recorded() {
    let mut mask = mask();
    mask.output(b"\x1b[?1049h\x1b[H~\r\n~");
    for now in 0..20 {
        assert_eq!(typed(&mut mask, b"j", now * 1_000_000), "j");
    }
    mask.output(b"\x1b[24;1HEnter passphrase: ");
    assert_eq!(typed(&mut mask, b"j", 30_000_000), ".");
}

#[test]
fn each_way_of_masking_can_be_left_out() {
    let mut never = InputMask::new(Masking::Never);
    never.output(b"Password: ");
    assert_eq!(typed(&mut never, b"abc\n", 0), "abc\n");
    let mut prompt = InputMask::new(Masking::ByPrompt);
    for now in 0..9 {
        assert_eq!(typed(&mut prompt, b"a", now * 1_000_000), "a");
    }
    prompt.output(b"PIN: ");
    assert_eq!(typed(&mut prompt, b"a", 0), ".");
}

#[derive(Debug, Clone)]
enum Happens {
    Output(Vec<u8>),
    Input(Vec<u8>),
    Later(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let key = prop_oneof![4 => b'a'..=b'z', 1 => prop::sample::select(&b"\r\n\x03\x04\x1b[:\x7f"[..]), 1 => any::<u8>()];
    let shown = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::sample::select(vec![
            &b"Password: "[..],
            b"\r\n$ ",
            b"\x1b[?1049h",
            b"\x1b[?1049l",
            b"\x1b]",
            b"\x1b[K"
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    prop_oneof![
        shown.prop_map(Happens::Output),
        prop::collection::vec(key, 0..20).prop_map(Happens::Input),
        (0..500_000_u64).prop_map(Happens::Later),
    ]
}

proptest! {
    #[test]
    fn what_is_masked_and_what_is_clear_are_the_input(happenings in prop::collection::vec(happens(), 0..40)) {
        let (mut mask, mut now) = (mask(), 0);
        for happening in happenings {
            match happening {
                Happens::Output(bytes) => mask.output(&bytes),
                Happens::Later(us) => now += us,
                Happens::Input(bytes) => {
                    let (mut stretches, mut at) = (Vec::new(), 0);
                    mask.input(&bytes, now, &mut stretches);
                    for stretch in stretches {
                        match stretch {
                            MaskedInput::Clear(clear) => {
                                prop_assert!(!clear.is_empty());
                                prop_assert_eq!(clear, &bytes[at..at + clear.len()]);
                                at += clear.len();
                            }
                            MaskedInput::Masked { bytes, .. } => at += bytes,
                        }
                    }
                    prop_assert_eq!(at, bytes.len());
                }
            }
        }
    }

    #[test]
    fn nothing_after_a_prompt_is_clear_before_the_line_ends(
        before in prop::collection::vec(happens(), 0..10),
        secret in prop::collection::vec(any::<u8>().prop_filter("no end", |byte| !ends_line(*byte)), 1..60),
        shown in prop::collection::vec(any::<u8>(), 0..60),
        size in 1_usize..20,
    ) {
        let (mut mask, mut now) = (mask(), 0);
        for happening in before {
            match happening {
                Happens::Output(bytes) => mask.output(&bytes),
                Happens::Input(bytes) => mask.input(&bytes, now, &mut Vec::new()),
                Happens::Later(us) => now += us,
            }
        }
        // Whatever was begun is over: the strings and sequences too.
        mask.output(b"\x18\r\n");
        mask.output(b"Password: ");
        for (index, chunk) in secret.chunks(size).enumerate() {
            let mut stretches = Vec::new();
            mask.input(chunk, now, &mut stretches);
            let masked = matches!(stretches.as_slice(), [MaskedInput::Masked { bytes, .. }] if *bytes == chunk.len());
            prop_assert!(masked, "{stretches:?}");
            mask.output(shown.get(index..).unwrap_or_default());
            now += 300_000;
        }
    }

    #[test]
    fn a_screen_is_the_same_wherever_its_output_is_cut(
        shown in prop::collection::vec(happens(), 0..20),
        size in 1_usize..9,
    ) {
        let bytes: Vec<u8> = shown
            .into_iter()
            .filter_map(|happening| if let Happens::Output(bytes) = happening { Some(bytes) } else { None })
            .flatten()
            .collect();
        let (mut whole, mut cut) = (mask(), mask());
        whole.output(&bytes);
        bytes.chunks(size).for_each(|chunk| cut.output(chunk));
        prop_assert_eq!(whole.screen.asks_for_secret(), cut.screen.asks_for_secret());
        prop_assert_eq!(whole.screen.is_alternate(), cut.screen.is_alternate());
    }
}

#[test]
fn what_is_kept_of_the_screen_has_a_bound() {
    let mut mask = mask();
    for _ in 0..100 {
        mask.output(&[b'x'; 3000]);
        mask.output(&[b'\t'; 3000]);
        mask.output(b"\x1b[");
        mask.output(&[b'1'; 3000]);
        assert!(mask.screen.kept() <= 2048);
    }
    mask.output(b"mPassword: ");
    assert_eq!(typed(&mut mask, b"x", 0), ".");
}
