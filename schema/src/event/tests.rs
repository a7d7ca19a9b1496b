use super::*;

fn sample(body: &str) -> NewEvent<'_> {
    NewEvent {
        source: "stripe",
        event_id: "evt_\"1\"",
        kind: Kind::Order,
        event_type: "checkout.session.completed",
        occurred_at: DateTime::from_timestamp(1_760_000_000, 123_000_000).expect("a time"),
        user_id: "u1",
        order_id: Some("o1"),
        dispute_id: None,
        status: Status::Paid,
        provider_status: Some("complété"),
        amount_minor: Some(9_007_199_254_740_993),
        currency: Some("EUR"),
        entity_version: None,
        received_at: DateTime::from_timestamp(1_760_000_001, 0).expect("a time"),
        body,
    }
}

fn record(value: &[u8]) -> Record {
    Record::new(3, Some(5), Some(b"u1"), Some(value), std::iter::empty())
}

fn refused(value: &str) -> DecodeError {
    Event::decode(record(value.as_bytes()), Kind::Order)
        .expect_err("it is no event")
        .1
}

#[test]
fn what_is_encoded_is_read_back_and_the_body_is_exact() {
    for body in [
        "{\"n\": 12345678901234567890.10, \"s\":\"\\u0000\"}",
        " \n{\"a\":1}\r\n",
        "[]",
        "\"text\"",
    ] {
        let value = sample(body).encode().expect("it encodes");
        let event = Event::decode(record(&value), Kind::Order).expect("it decodes");
        assert_eq!(event.payload(), body.as_bytes());
        assert_eq!(event.event_id(), "evt_\"1\"");
        assert_eq!(
            (event.source(), event.user_id(), event.order_id(), event.dispute_id()),
            ("stripe", "u1", Some("o1"), None)
        );
        assert_eq!(
            (event.status(), event.provider_status()),
            (Status::Paid, Some("complété"))
        );
        assert_eq!(event.amount_minor(), Some(9_007_199_254_740_993));
        assert_eq!(event.occurred_at_us(), 1_760_000_000_123_000);
        assert_eq!(event.received_at_us(), 1_760_000_001_000_000);
    }
}

#[test]
fn an_event_as_it_stands_on_kafka() {
    let new = NewEvent {
        event_id: "evt_1",
        dispute_id: Some("d1"),
        entity_version: Some(-7),
        ..sample(" {\"a\": 1}")
    };
    let text = |new: &NewEvent<'_>| String::from_utf8(new.encode().expect("it encodes")).expect("JSON is UTF-8");
    assert_eq!(
        text(&new),
        concat!(
            r#"{"specversion":"1.0","id":"evt_1","source":"stripe","type":"checkout.session.completed","#,
            r#""time":"2025-10-09T08:53:20.123Z","subject":"d1","datacontenttype":"application/json","#,
            r#""partitionkey":"u1","kind":"order","userid":"u1","orderid":"o1","disputeid":"d1","status":"paid","#,
            r#""providerstatus":"complété","amountminor":"9007199254740993","currency":"EUR","entityversion":"-7","#,
            r#""receivedtime":"2025-10-09T08:53:21Z","data": {"a": 1}}"#,
        )
    );
    let least = NewEvent {
        order_id: None,
        dispute_id: None,
        provider_status: None,
        amount_minor: None,
        currency: None,
        entity_version: None,
        ..new
    };
    assert_eq!(
        text(&least),
        concat!(
            r#"{"specversion":"1.0","id":"evt_1","source":"stripe","type":"checkout.session.completed","#,
            r#""time":"2025-10-09T08:53:20.123Z","subject":"u1","datacontenttype":"application/json","#,
            r#""partitionkey":"u1","kind":"order","userid":"u1","status":"paid","#,
            r#""receivedtime":"2025-10-09T08:53:21Z","data": {"a": 1}}"#,
        )
    );
}

#[test]
fn every_character_survives_in_a_text() {
    let long = ['\u{ffff}', '\u{10000}', '\u{10ffff}'];
    for c in (0..=0x2100).filter_map(char::from_u32).chain(long) {
        let text = format!("a{c}b");
        let new = NewEvent {
            event_type: &text,
            order_id: Some(&text),
            ..sample("{}")
        };
        let value: serde_json::Value =
            serde_json::from_slice(&new.encode().expect("it encodes")).expect("any reader of JSON reads it");
        for member in ["type", "orderid", "subject"] {
            assert_eq!(value[member], text.as_str(), "{c:?}");
        }
    }
}

#[test]
fn an_event_of_another_encoder_has_data_without_the_space_around_it() {
    let value = String::from_utf8(sample("{}").encode().expect("it encodes")).expect("JSON is UTF-8");
    for theirs in [
        ", \"data\": {\"x\": 1} , \"extra\": 1",
        ",\"data\": {\"x\": 1} ,\"extra\":1",
        ",\"data\" : {\"x\": 1} ",
    ] {
        let spaced = value.replace(",\"data\":{}", theirs);
        let event = Event::decode(record(spaced.as_bytes()), Kind::Order).expect("it decodes");
        assert_eq!(event.payload(), b"{\"x\": 1}", "{theirs}");
    }
}

#[test]
fn every_attribute_is_read_as_text_and_as_bytes() {
    let new = NewEvent {
        dispute_id: Some("d1"),
        entity_version: Some(7),
        ..sample("{}")
    };
    let decoded = |new: &NewEvent<'_>| {
        let value = new.encode().expect("it encodes");
        Event::decode(record(&value), new.kind).expect("it decodes")
    };
    let event = decoded(&new);
    assert_eq!(event.event_type(), "checkout.session.completed");
    assert_eq!(
        (event.dispute_id(), event.currency(), event.entity_version()),
        (Some("d1"), Some("EUR"), Some(7))
    );
    assert_eq!(event.raw(event.source), b"stripe");
    assert_eq!(event.raw_option(event.currency), Some(&b"EUR"[..]));
    assert_eq!(event.raw_option(None), None);
    assert_eq!(event.entity(), (&b"stripe"[..], &b"o1"[..]));
    let rank = Kind::Order.rank(Status::Paid);
    let key = (7, 1_760_000_000_123_000, rank, "evt_\"1\"");
    assert_eq!(event.state_key(), key);
    // Where the provider does not count, whatever it does count is later.
    let uncounted = decoded(&sample("{}"));
    assert_eq!(uncounted.state_key(), (-1, key.1, key.2, key.3));
    let dispute = decoded(&NewEvent {
        kind: Kind::Dispute,
        ..new
    });
    assert_eq!(dispute.entity(), (&b"stripe"[..], &b"d1"[..]));
}

#[test]
fn without_a_time_of_receipt_it_is_the_records_and_then_the_events_own() {
    let value = String::from_utf8(sample("{}").encode().expect("it encodes")).expect("JSON is UTF-8");
    let value = value.replace("receivedtime", "other");
    let received = |timestamp_ms| {
        let record = Record::new(3, timestamp_ms, None, Some(value.as_bytes()), std::iter::empty());
        Event::decode(record, Kind::Order).expect("it decodes").received_at_us()
    };
    assert_eq!(received(Some(1_760_000_002_345)), 1_760_000_002_345_000);
    assert_eq!(received(None), 1_760_000_000_123_000);
}

#[test]
fn what_is_no_event_is_refused_with_the_attribute() {
    let value = String::from_utf8(sample("{}").encode().expect("it encodes")).expect("JSON is UTF-8");
    assert!(matches!(refused("nonsense"), DecodeError::NotJson(_)));
    assert!(matches!(refused("[]"), DecodeError::NotJson(_)));
    let DecodeError::NotJson(why) = refused(&value.replace("\"u1\"", "1")) else {
        panic!("a number is no text")
    };
    assert!(why.starts_with("invalid type: integer `1`, expected a string"), "{why}");
    assert_eq!(
        refused(&value.replace("\"userid\":\"u1\"", "\"userid\":\"\"")),
        DecodeError::Missing("userid")
    );
    assert_eq!(
        refused(&value.replace("orderid", "other")),
        DecodeError::Missing("orderid")
    );
    assert_eq!(
        refused(&value.replace(",\"data\":{}", "")),
        DecodeError::Missing("data")
    );
    for (from, to, attribute) in [
        ("2025-10-09T", "yesterday", "time"),
        ("\"9007199254740993\"", "\"1.5\"", "amountminor"),
        ("\"1.0\"", "\"0.3\"", "specversion"),
        ("\"kind\":\"order\"", "\"kind\":\"dispute\"", "kind"),
    ] {
        let wrong = value.replace(from, to);
        assert_ne!(wrong, value, "{from} is not in {value}");
        assert!(
            matches!(refused(&wrong), DecodeError::Wrong { attribute: a, .. } if a == attribute),
            "{attribute}"
        );
    }
    let tombstone = Record::new(1, None, Some(b"u"), None, std::iter::empty());
    assert_eq!(
        Event::decode(tombstone, Kind::Order).expect_err("no value").1,
        DecodeError::NoValue
    );
}

#[test]
fn the_record_comes_back_untouched_from_a_refusal() {
    let before = record(b"nonsense");
    let (after, _) = Event::decode(before.clone(), Kind::Order).expect_err("it is no event");
    assert!(before == after);
}
