use super::*;

fn read<'a>(pointers: &[&str], body: &'a str) -> Result<Vec<Option<Cow<'a, str>>>, String> {
    let mut tree = Tree::default();
    let slots: Vec<usize> = pointers.iter().map(|p| tree.slot(p).expect("a pointer")).collect();
    let found = tree.read(body).map_err(|e| e.to_string())?;
    Ok(slots.into_iter().map(|slot| found.scalar(slot)).collect())
}

#[test]
fn scalars_keep_their_text_and_others_are_none() {
    let body = r#"{"id": 12345678901234567890, "m": 10.10, "t": true, "n": null, "e": "", "o": {}, "s": "a\u00e9\n", "a": [{"x": "y"}], "k/~": 1}"#;
    let found = read(
        &["/id", "/m", "/t", "/n", "/e", "/o", "/s", "/a/0/x", "/k~1~0", "/none"],
        body,
    )
    .expect("JSON");
    let texts: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
    assert_eq!(
        texts,
        [
            Some("12345678901234567890"),
            Some("10.10"),
            Some("true"),
            None,
            None,
            None,
            Some("aé\n"),
            Some("y"),
            Some("1"),
            None
        ]
    );
}

#[test]
fn a_place_may_be_a_scalar_or_an_object_in_its_stead() {
    let both = ["/charge", "/charge/id"];
    assert_eq!(read(&both, r#"{"charge":"ch_1"}"#), Ok(vec![Some("ch_1".into()), None]));
    assert_eq!(
        read(&both, r#"{"charge":{"id":"ch_1"}}"#),
        Ok(vec![None, Some("ch_1".into())])
    );
}

#[test]
fn an_index_has_no_leading_zeros_and_an_object_may_have_numbers_as_keys() {
    let found = read(&["/a/1", "/a/01"], r#"{"a":["x","y"]}"#);
    assert_eq!(found, Ok(vec![Some("y".into()), None]));
    let found = read(&["/a/1", "/a/01"], r#"{"a":{"1":"x","01":"y"}}"#);
    assert_eq!(found, Ok(vec![Some("x".into()), Some("y".into())]));
}

#[test]
fn pointers_have_a_form() {
    for bad in ["a", "", "a/b", "/a~", "/a~2b", "#/a"] {
        let refused = Tree::default().slot(bad).expect_err(bad);
        assert!(refused.contains("JSON Pointer"), "{refused}");
    }
}

#[test]
fn what_is_not_json_or_ambiguous_is_refused() {
    for bad in [
        "",
        " ",
        "{",
        "{}x",
        "\u{feff}{}",
        "{\"a\":1,\"a\":2}",
        "{\"b\":{\"c\":1,\"c\":1}}",
        "nul",
        "{\"a\":01}",
        "{'a':1}",
        "{\"a\":1,}",
        "[1,]",
        "[1 2]",
        "{\"a\" 1}",
        "\"\u{1}\"",
        r#""\x""#,
        r#""\u12g4""#,
        "1.",
        "-",
        "1e",
        "+1",
        "NaN",
        "1e400",
    ] {
        assert!(read(&["/a", "/b/c"], bad).is_err(), "{bad}");
    }
}

/// Also where nobody looks, however they are written, and among few keys as among many.
#[test]
fn a_key_that_stands_twice_is_refused_anywhere() {
    let places = &["/a", "/b"];
    for bad in [
        r#"{"x":1,"x":2}"#,
        r#"{"a":{"x":1,"y":2,"x":3}}"#,
        r#"{"c":[[{"x":{"y":0,"y":0}}]]}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"\u0061":1,"\u0061":2}"#,
    ] {
        let refused = read(places, bad).expect_err(bad);
        assert!(refused.contains("a second time"), "{refused}");
    }
    let keys = |count: usize| -> Vec<String> { (0..count).map(|i| format!("\"k{i}\":{i}")).collect() };
    for count in [1, 20, 31, 32, 33, 34, 65, 1000] {
        let all = keys(count);
        assert!(read(places, &format!("{{{}}}", all.join(","))).is_ok(), "{count}");
        for again in [0, count / 2, count - 1] {
            let body = format!("{{{},{}}}", all.join(","), all[again]);
            assert!(read(places, &body).is_err(), "{again} of {count}");
        }
    }
    let same_key_elsewhere = r#"{"x":{"x":[{"x":1},{"x":2}]},"y":{"x":1}}"#;
    assert!(read(places, same_key_elsewhere).is_ok());
}

#[test]
fn nesting_has_an_end_wherever_it_is() {
    for (open, close) in [("[", "]"), ("{\"x\":", "}")] {
        let nested = |depth: usize| format!("{}0{}", open.repeat(depth), close.repeat(depth));
        assert!(read(&["/a"], &nested(126)).is_ok());
        assert!(read(&["/a"], &nested(127)).is_err());
        assert!(read(&["/a", "/0/0"], &nested(100_000)).is_err());
        assert!(read(&["/a"], &open.repeat(1_000_000)).is_err());
    }
}

#[test]
fn a_refusal_says_where() {
    let refused = read(&["/a"], "{\n \"a\": 1,\n \"b\": tru }").expect_err("it is no JSON");
    assert_eq!(refused, "no value at line 3 column 7");
}

/// Doubles end at 1.8e308; digits alone can be more than that, too.
#[test]
fn a_number_is_finite_however_it_is_written() {
    let nines = "9".repeat(308);
    for fine in [
        &nines,
        &format!("-{nines}"),
        &format!("{nines}.5"),
        &format!("0.{nines}{nines}"),
        "1e308",
    ] {
        let body = format!("{{\"a\":{fine}}}");
        assert_eq!(read(&["/a"], &body), Ok(vec![Some(fine.into())]));
    }
    for infinite in [
        &format!("{nines}9"),
        &format!("-{nines}{nines}"),
        &format!("{nines}9.0"),
        "1e309",
    ] {
        let refused = read(&["/a"], &format!("{{\"a\":{infinite}}}")).expect_err(infinite);
        assert_eq!(refused, "a number that is too large at line 1 column 6");
    }
}

#[test]
fn a_long_key_is_told_by_its_beginning() {
    let key = "é".repeat(40);
    let refused = read(&["/a"], &format!("{{\"{key}\":1,\"{key}\":2}}")).expect_err("the key stands twice");
    assert!(
        refused.starts_with(&format!("the key \"{}\" a second time", "é".repeat(32))),
        "{refused}"
    );
    let refused = read(&["/a"], r#"{"short":1,"short":2}"#).expect_err("the key stands twice");
    assert!(refused.starts_with(r#"the key "short" a second time"#), "{refused}");
}

#[test]
fn the_body_is_read_apart_only_around_several_events() {
    let pointers = |each| {
        let mut trees = Trees::new(each).expect("a pointer");
        let item = ["/a", "/b"].map(|pointer| trees.item_slot(pointer).expect("a pointer"));
        let body = ["/b", "/c", "/d"].map(|pointer| trees.body_slot(pointer).expect("a pointer"));
        let of_body = match trees.each {
            Some(_) => &trees.body,
            None => &trees.item,
        };
        let names = body.map(|slot| of_body.pointer(slot).to_owned());
        (item, body, names)
    };
    let names = ["/b", "/c", "/d"].map(str::to_owned);
    assert_eq!(pointers(None), ([0, 1], [1, 2, 3], names.clone()));
    assert_eq!(pointers(Some("/events")), ([0, 1], [1, 2, 3], names));
}
