//! Literal encodings with what PostgreSQL writes of them; and that nothing panics.

use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.replace(' ', "").as_bytes()).unwrap()
}

#[track_caller]
fn check(oid: u32, cases: &[(&str, &str)]) {
    for (hex, expected) in cases {
        assert_eq!(text(oid, &bytes(hex), true).as_deref(), Some(*expected), "{oid}: {hex}");
    }
}

#[track_caller]
fn check_unreadable(oid: u32, cases: &[&str]) {
    for hex in cases {
        assert_eq!(text(oid, &bytes(hex), true), None, "{oid}: {hex}");
    }
}

#[test]
fn integers_and_truths() {
    check(oid::BOOL, &[("01", "true"), ("00", "false")]);
    check(oid::INT2, &[("8000", "-32768"), ("0007", "7")]);
    check(oid::INT4, &[("80000000", "-2147483648"), ("0000002a", "42")]);
    check(oid::INT8, &[("8000000000000000", "-9223372036854775808"), ("00000000000003e8", "1000")]);
    check(oid::OID, &[("ffffffff", "4294967295")]);
    check_unreadable(oid::BOOL, &["", "0100"]);
    check_unreadable(oid::INT4, &["", "000000", "0000000000"]);
}

#[test]
fn floats_have_the_shortest_digits_and_an_exponent_where_postgresql_has_one() {
    for (number, expected) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (1.5, "1.5"),
        (100.0, "100"),
        (-1234.5, "-1234.5"),
        (0.1, "0.1"),
        (0.000_1, "0.0001"),
        (0.000_01, "1e-05"),
        (0.000_012_3, "1.23e-05"),
        (123_456_789_012_345.0, "123456789012345"),
        (1e14, "100000000000000"),
        (1e15, "1e+15"),
        (1.25e300, "1.25e+300"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(text(oid::FLOAT8, &f64::to_be_bytes(number), true).as_deref(), Some(expected));
    }
    for (number, expected) in
        [(0.1, "0.1"), (123_456.0, "123456"), (1e6, "1e+06"), (1.5e-5, "1.5e-05"), (f32::NAN, "NaN")]
    {
        assert_eq!(text(oid::FLOAT4, &f32::to_be_bytes(number), true).as_deref(), Some(expected));
    }
    check_unreadable(oid::FLOAT8, &["00000000", "000000000000000000"]);
}

#[test]
fn numerics_are_written_digit_by_digit() {
    check(
        oid::NUMERIC,
        &[
            ("0000 0000 0000 0000", "0"),
            ("0000 0000 0000 0002", "0.00"),
            ("0000 0000 4000 0002", "0.00"),
            ("0002 0000 0000 0002 0001 1388", "1.50"),
            ("0002 0000 4000 0002 0001 1388", "-1.50"),
            // 12345678.9012
            ("0003 0001 0000 0004 04d2 162e 2334", "12345678.9012"),
            // 10000 and 1e8: digits that are zero are not sent.
            ("0001 0001 0000 0000 0001", "10000"),
            ("0001 0002 0000 0000 0001", "100000000"),
            // 0.0001, and 0.00000001 with two more digits.
            ("0001 ffff 0000 0004 0001", "0.0001"),
            ("0001 fffe 0000 000a 0001", "0.0000000100"),
            ("0000 0000 c000 0000", "NaN"),
            ("0000 0000 d000 0000", "Infinity"),
            ("0000 0000 f000 0000", "-Infinity"),
        ],
    );
    check_unreadable(
        oid::NUMERIC,
        &[
            "",
            "0001 0000 0000 0000",
            "0001 0000 0000 0000 2710",
            "0000 0000 1000 0000",
            "0000 0000 0000 4000",
            "0000 0000 0000 0000 00",
            // It would take 131,072 digits.
            "0001 7fff 0000 0000 0001",
        ],
    );
}

#[test]
fn texts_and_bytes() {
    for oid in [oid::TEXT, oid::VARCHAR, oid::BPCHAR, oid::NAME, oid::JSON, oid::XML, oid::UNKNOWN] {
        check(oid, &[("", ""), ("c3bc20e29883", "ü ☃"), ("4e554c4c", "NULL")]);
        check_unreadable(oid, &["ff", "61e298"]);
    }
    check(oid::CHAR, &[("78", "x"), ("00", ""), ("ff", "\\377")]);
    check_unreadable(oid::CHAR, &["", "7878"]);
    check(oid::BYTEA, &[("", "\\x"), ("00ff0a", "\\x00ff0a")]);
    check(oid::JSONB, &[("017b7d", "{}")]);
    check_unreadable(oid::JSONB, &["", "027b7d"]);
    check(oid::UUID, &[("a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")]);
    check_unreadable(oid::UUID, &["a0eebc99"]);
    check_unreadable(600, &["00"]);
    check_unreadable(0, &["61"]);
}

#[test]
fn dates_and_times() {
    check(
        oid::DATE,
        &[
            ("00000000", "2000-01-01"),
            ("0000003b", "2000-02-29"),
            ("ffffffff", "1999-12-31"),
            ("7fffffff", "infinity"),
            ("80000000", "-infinity"),
            // The first and the last that PostgreSQL has.
            ("ffda97a7", "4714-11-24 BC"),
            ("7fda970c", "5874897-12-31"),
            // 0044-03-15 BC
            ("fff49d7b", "0044-03-15 BC"),
        ],
    );
    check_unreadable(oid::DATE, &["ffda97a6", "7fda970d", "000000", "0000000000"]);
    check(
        oid::TIME,
        &[
            ("0000000000000000", "00:00:00"),
            ("000000141dd76000", "24:00:00"),
            ("00000000000186a0", "00:00:00.1"),
            ("0000000000000001", "00:00:00.000001"),
        ],
    );
    check_unreadable(oid::TIME, &["ffffffffffffffff", "000000141dd76001"]);
    check(
        oid::TIMETZ,
        &[
            ("0000000000000000 ffffe3e0", "00:00:00+02"),
            ("0000000000000000 00004d58", "00:00:00-05:30"),
            ("0000000000000000 ffffffff", "00:00:00+00:00:01"),
            ("0000000000000000 00000000", "00:00:00+00"),
        ],
    );
    check_unreadable(oid::TIMETZ, &["0000000000000000 0000e100", "0000000000000000 80000000"]);
    check(
        oid::TIMESTAMP,
        &[
            ("0000000000000000", "2000-01-01 00:00:00"),
            ("ffffffffffffffff", "1999-12-31 23:59:59.999999"),
            ("7fffffffffffffff", "infinity"),
            ("8000000000000000", "-infinity"),
        ],
    );
    check_unreadable(oid::TIMESTAMP, &["8000000000000001", "7ffffffffffffffe", "00000000"]);
    check(oid::TIMESTAMPTZ, &[("000000000bebc200", "2000-01-01 00:03:20+00")]);
    let before = (-63_240_000_i64 * 1_000_000 * 1000).to_be_bytes();
    assert_eq!(text(oid::TIMESTAMPTZ, &before, true).as_deref(), Some("0005-01-02 13:20:00+00 BC"));
}

#[test]
fn intervals_are_in_the_style_of_postgres() {
    let interval = |micros: i64, days: i32, months: i32| {
        let bytes = [&micros.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat();
        text(oid::INTERVAL, &bytes, true).unwrap()
    };
    assert_eq!(interval(0, 0, 0), "00:00:00");
    assert_eq!(interval(3_723_500_000, 3, 14), "1 year 2 mons 3 days 01:02:03.5");
    assert_eq!(interval(0, 1, 1), "1 mon 1 day");
    assert_eq!(interval(0, -1, 12), "1 year -1 days");
    assert_eq!(interval(1, 3, -1), "-1 mons +3 days 00:00:00.000001");
    assert_eq!(interval(7_200_000_000, -1, 0), "-1 days +02:00:00");
    assert_eq!(interval(-1_000_000, 1, 0), "1 day -00:00:01");
    assert_eq!(interval(i64::MIN, 0, 0), "-2562047788:00:54.775808");
    assert_eq!(interval(i64::MAX, i32::MAX, i32::MAX), "infinity");
    assert_eq!(interval(i64::MIN, i32::MIN, i32::MIN), "-infinity");
}

#[test]
fn addresses() {
    check(
        oid::INET,
        &[
            ("02 20 00 04 c0000201", "192.0.2.1"),
            ("02 18 00 04 c0000201", "192.0.2.1/24"),
            ("03 80 00 10 00000000000000000000000000000001", "::1"),
            ("03 40 00 10 20010db8000000000000000000000001", "2001:db8::1/64"),
            ("03 80 00 10 00000000000000000000ffffc0000201", "::ffff:192.0.2.1"),
            ("03 80 00 10 000000000000000000000000c0000201", "::192.0.2.1"),
        ],
    );
    check(
        oid::CIDR,
        &[
            ("02 20 01 04 c0000201", "192.0.2.1/32"),
            ("03 20 01 10 20010db8000000000000000000000000", "2001:db8::/32"),
        ],
    );
    check_unreadable(oid::INET, &["", "02 21 00 04 c0000201", "02 20 01 04 c0000201", "02 20 00 03 c00002"]);
    check_unreadable(oid::INET, &["04 20 00 04 c0000201", "02 20 00 04 c0000201 00"]);
}

fn array(element: u32, dimensions: &[(i32, i32)], values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(i32::try_from(dimensions.len()).unwrap().to_be_bytes());
    bytes.extend(i32::from(values.contains(&None)).to_be_bytes());
    bytes.extend(element.to_be_bytes());
    for (length, lower) in dimensions {
        bytes.extend(length.to_be_bytes());
        bytes.extend(lower.to_be_bytes());
    }
    for value in values {
        bytes.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }
    bytes
}

#[test]
fn arrays_are_quoted_where_they_must_be() {
    let texts = ["a", "", "NULL", "null", "b c", "q\"q", "back\\slash", "{}", "x,y", "ü"];
    let values: Vec<Option<&[u8]>> = texts.iter().map(|text| Some(text.as_bytes())).chain([None]).collect();
    let whole = array(oid::TEXT, &[(11, 1)], &values);
    let expected = r#"{a,"","NULL","null","b c","q\"q","back\\slash","{}","x,y",ü,NULL}"#;
    assert_eq!(text(1009, &whole, true).as_deref(), Some(expected));

    let numbers: Vec<[u8; 4]> = (1..=6_i32).map(i32::to_be_bytes).collect();
    let numbers: Vec<Option<&[u8]>> = numbers.iter().map(|number| Some(&number[..])).collect();
    let nested = array(oid::INT4, &[(2, 1), (3, 1)], &numbers);
    assert_eq!(text(1007, &nested, true).as_deref(), Some("{{1,2,3},{4,5,6}}"));
    let deep = array(oid::INT4, &[(1, 1), (2, 1), (3, 1)], &numbers);
    assert_eq!(text(1007, &deep, true).as_deref(), Some("{{{1,2,3},{4,5,6}}}"));
    let shifted = array(oid::INT4, &[(2, 0), (3, -1)], &numbers);
    assert_eq!(text(1007, &shifted, true).as_deref(), Some("[0:1][-1:1]={{1,2,3},{4,5,6}}"));
    assert_eq!(text(1007, &array(oid::INT4, &[], &[]), true).as_deref(), Some("{}"));
    let truths = array(oid::BOOL, &[(2, 1)], &[Some(&[1]), Some(&[0])]);
    assert_eq!(text(1000, &truths, true).as_deref(), Some("{t,f}"));
    let bytes = array(oid::BYTEA, &[(1, 1)], &[Some(&[0, 255])]);
    assert_eq!(text(1001, &bytes, true).as_deref(), Some(r#"{"\\x00ff"}"#));

    // Elements of another type, too few, too many, too many dimensions.
    for unreadable in [
        array(oid::INT8, &[(1, 1)], &[Some(&[0; 4])]),
        array(oid::INT4, &[(2, 1)], &[Some(&[0; 4])]),
        array(oid::INT4, &[(1, 1)], &[Some(&[0; 4]), None]),
        array(oid::INT4, &[(1, 1)], &[Some(&[0; 5])]),
        array(oid::INT4, &[(1, 1); 7], &[Some(&[0; 4])]),
        array(oid::INT4, &[(-1, 1)], &[]),
        array(oid::INT4, &[(i32::MAX, 1); 6], &[Some(&[0; 4])]),
    ] {
        assert_eq!(text(1007, &unreadable, true), None);
    }
}

#[test]
fn of_a_head_everything_is_shown_that_it_tells() {
    assert_eq!(text(oid::TEXT, b"ab\xe2\x98", false).as_deref(), Some("ab"));
    assert_eq!(text(oid::TEXT, b"ab\xff\x98", false), None);
    assert_eq!(text(oid::BYTEA, b"ab", false).as_deref(), Some("\\x6162"));
    assert_eq!(text(oid::NUMERIC, &bytes("0000 0000 0000 0000"), false), None);
    let numbers = array(oid::INT4, &[(900, 1)], &[Some(&[0, 0, 0, 7]), Some(&[0, 0, 0, 8])]);
    assert_eq!(text(1007, &numbers, false).as_deref(), Some("{7,8,"));
    assert_eq!(text(1007, &numbers[..numbers.len() - 1], false).as_deref(), Some("{7,"));
    let texts = array(oid::TEXT, &[(2, 1)], &[Some(b"a b"), Some(b"\"long one")]);
    assert_eq!(text(1009, &texts[..texts.len() - 4], false).as_deref(), Some(r#"{"a b","\"long"#));
}

#[test]
fn no_text_is_much_longer_than_its_value() {
    let wide = bytes("0001 03e7 0000 0000 0001");
    assert_eq!(text(oid::NUMERIC, &wide, true).unwrap().len(), 3997);
    let many = vec![Some(&wide[..]); 200];
    assert_eq!(text(1231, &array(oid::NUMERIC, &[(200, 1)], &many), true), None);
}

/// Every type that is known, and one that is not.
fn types() -> impl Strategy<Value = u32> {
    let known = (0..4000).filter(|oid| {
        array::element(*oid).is_some() || array::element(*oid + 1).is_some() || (16..3900).contains(oid)
    });
    prop::sample::select(known.collect::<Vec<u32>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(oid in types(), bytes in prop::collection::vec(any::<u8>(), 0..80), is_whole: bool) {
        let _ = text(oid, &bytes, is_whole);
    }

    #[test]
    fn arbitrary_arrays_never_panic(
        oid in prop::sample::select(vec![1000_u32, 1007, 1009, 1115, 1187, 1231, 1041]),
        lengths in prop::collection::vec((0..4_i32, -2..3_i32), 0..7),
        rest in prop::collection::vec(prop_oneof![Just(0_u8), Just(4), Just(255), any::<u8>()], 0..80),
        is_whole: bool,
    ) {
        let element = array::element(oid).unwrap();
        let _ = text(oid, &[array(element, &lengths, &[]), rest].concat(), is_whole);
    }

    #[test]
    fn numbers_come_back(short: i16, number: i32, long: i64, single: f32, double: f64) {
        prop_assert_eq!(text(oid::INT2, &short.to_be_bytes(), true), Some(short.to_string()));
        prop_assert_eq!(text(oid::INT4, &number.to_be_bytes(), true), Some(number.to_string()));
        prop_assert_eq!(text(oid::INT8, &long.to_be_bytes(), true), Some(long.to_string()));
        let single_text = text(oid::FLOAT4, &single.to_be_bytes(), true).unwrap();
        let read: f32 = single_text.parse().unwrap();
        prop_assert!(read.to_bits() == single.to_bits() || single.is_nan());
        let double_text = text(oid::FLOAT8, &double.to_be_bytes(), true).unwrap();
        let read: f64 = double_text.parse().unwrap();
        prop_assert!(read.to_bits() == double.to_bits() || double.is_nan());
    }

    #[test]
    fn numerics_come_back(groups in prop::collection::vec(0..10_000_u16, 1..6), before in 0..6_usize, is_negative: bool) {
        // So many groups of four digits before the point, the others behind it.
        let before = before.min(groups.len());
        let (weight, scale) = (i16::try_from(before).unwrap() - 1, (groups.len() - before) * 4);
        let mut bytes = u16::try_from(groups.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(weight.to_be_bytes());
        bytes.extend(if is_negative { [0x40, 0] } else { [0, 0] });
        bytes.extend(u16::try_from(scale).unwrap().to_be_bytes());
        bytes.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
        let written = text(oid::NUMERIC, &bytes, true).unwrap();
        let digits = groups.iter().map(|group| format!("{group:04}")).collect::<Vec<_>>().concat();
        let kept: String = written.chars().filter(char::is_ascii_digit).collect();
        prop_assert_eq!(kept.trim_start_matches('0'), digits.trim_start_matches('0'));
        prop_assert_eq!(written.split_once('.').map_or(0, |(_, fraction)| fraction.len()), scale);
        prop_assert_eq!(written.starts_with('-'), is_negative && digits.bytes().any(|digit| digit != b'0'));
    }

    #[test]
    fn dates_come_back(days in -2_451_545..2_145_031_949_i32) {
        let written = text(oid::DATE, &days.to_be_bytes(), true).unwrap();
        let (date, is_before) = match written.strip_suffix(" BC") { Some(date) => (date, true), None => (&*written, false) };
        let parts: Vec<i64> = date.split('-').map(|part| part.parse().unwrap()).collect();
        let [year, month, day] = parts[..] else { panic!("{written}") };
        let year = if is_before { 1 - year } else { year };
        // Days of a Julian day number, by the formula of Fliegel and Van Flandern.
        let shift = (14 - month) / 12;
        let (y, m) = (year + 4800 - shift, month + 12 * shift - 3);
        let julian = day + (153 * m + 2) / 5 + 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) - 32_045;
        prop_assert_eq!(julian - 2_451_545, i64::from(days));
    }
}
