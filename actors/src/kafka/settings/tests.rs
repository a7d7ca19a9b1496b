use super::*;

#[test]
fn any_property_passes_and_the_narrower_table_wins() {
    let mut settings = KafkaSettings::default();
    settings.properties.insert("security.protocol".into(), "ssl".into());
    settings.properties.insert("ssl_ca_location".into(), "/ca.pem".into());
    settings.producer.insert("linger.ms".into(), "1".into());
    let producer = settings.producer(Duration::from_secs(3), 1 << 20);
    assert_eq!(producer.get("security.protocol"), Some("ssl"));
    assert_eq!(producer.get("ssl.ca.location"), Some("/ca.pem"));
    assert_eq!(producer.get("linger.ms"), Some("1"));
    assert_eq!(settings.consumer("t", Traffic::Heavy).get("linger.ms"), None);
}

#[test]
fn a_password_is_a_reference_and_is_never_shown() {
    let path = std::env::temp_dir().join(format!("hookmill-kafka-secret-{}", std::process::id()));
    std::fs::write(&path, "hunter2\n").expect("a temporary file");
    let mut settings = KafkaSettings::default();
    let reference = format!("file:{}", path.display());
    settings.properties.insert("sasl.password".into(), reference);
    settings.producer.insert("ssl.key.password".into(), "hunter3".into());
    let settings = settings.resolved().expect("the file is there");
    std::fs::remove_file(&path).expect("the temporary file");
    assert_eq!(settings.client().get("sasl.password"), Some("hunter2"));
    let shown = format!("{settings:?}");
    assert!(shown.contains("sasl.password") && !shown.contains("hunter"), "{shown}");
    let mut unset = KafkaSettings::default();
    unset
        .consumer
        .insert("sasl.password".into(), "env:HOOKMILL_TEST_NOT_SET".into());
    let message = unset.resolved().expect_err("the variable is not set");
    assert!(
        message.contains("kafka.consumer.\"sasl.password\"") && message.contains("HOOKMILL_TEST_NOT_SET"),
        "{message}"
    );
}

#[test]
fn a_misspelt_property_is_told_without_its_value() {
    let mut settings = KafkaSettings::default();
    settings.properties.insert("sasl.pasword".into(), "hunter2".into());
    let error = settings
        .client()
        .create_native_config()
        .err()
        .expect("no such property");
    assert!(error.to_string().contains("hunter2"), "the library repeats it");
    let message = super::super::told(&error);
    assert!(
        message.contains("sasl.pasword") && !message.contains("hunter2"),
        "{message}"
    );
}

#[test]
fn what_the_promises_stand_on_cannot_be_set() {
    let mut settings = KafkaSettings::default();
    settings.producer.insert("acks".into(), "1".into());
    assert!(
        settings
            .validate()
            .is_err_and(|e| e.contains("kafka.producer.\"acks\""))
    );
    // By their aliases and as the environment writes them, too; and what would be overwritten in silence.
    for key in [
        "partitioner",
        "transactional_id",
        "queuing.strategy",
        "metadata.broker.list",
        "delivery_timeout_ms",
        "message.timeout.ms",
        "message.max.bytes",
        "auto.commit.enable",
        "statistics.interval.ms",
    ] {
        for table in [0, 1, 2] {
            let mut settings = KafkaSettings::default();
            let tables = [&mut settings.properties, &mut settings.producer, &mut settings.consumer];
            let [properties, producer, consumer] = tables;
            [properties, producer, consumer][table].insert(key.into(), "x".into());
            assert!(
                settings
                    .validate()
                    .is_err_and(|e| e.contains(key) && e.contains("remove the line")),
                "{key}"
            );
        }
    }
}

#[test]
fn what_only_the_clients_notice_is_told_by_client_and_property() {
    let refused = |change: fn(&mut KafkaSettings)| {
        let mut settings = KafkaSettings::default();
        change(&mut settings);
        settings
            .try_clients("t", Duration::from_secs(3), 1 << 20)
            .expect_err("librdkafka refuses it")
    };
    let good = KafkaSettings::default().try_clients("t", Duration::from_secs(3), 1 << 20);
    assert_eq!(good, Ok(()));
    let unknown = refused(|s| drop(s.producer.insert("no_such".into(), "abc".into())));
    assert!(
        unknown.contains("[kafka.producer]") && unknown.contains("no.such"),
        "{unknown}"
    );
    let no_number = refused(|s| drop(s.consumer.insert("session.timeout.ms".into(), "abc".into())));
    assert!(
        no_number.contains("[kafka.consumer]") && no_number.contains("session.timeout.ms"),
        "{no_number}"
    );
    // Each is right by itself.
    let unfit = refused(|s| drop(s.consumer.insert("max.poll.interval.ms".into(), "5000".into())));
    assert!(unfit.contains("max.poll.interval.ms"), "{unfit}");
    // A password on the wrong line.
    let misplaced = refused(|s| drop(s.properties.insert("security.protocol".into(), "hunter2".into())));
    assert!(
        misplaced.contains("security.protocol") && !misplaced.contains("hunter2"),
        "{misplaced}"
    );
}

#[test]
fn what_is_said_for_one_kind_of_client_or_by_another_name_counts() {
    let mut settings = KafkaSettings::default();
    let in_flight = |settings: &KafkaSettings| {
        let config = settings.producer(Duration::from_secs(3), 1 << 20);
        assert_eq!(config.get("max.in.flight"), None);
        config.get("max.in.flight.requests.per.connection").map(str::to_owned)
    };
    assert_eq!(in_flight(&settings).as_deref(), Some("3"));
    settings.properties.insert("max_in_flight".into(), "4".into());
    assert_eq!(in_flight(&settings).as_deref(), Some("4"));
    settings.producer.insert("max.in.flight".into(), "5".into());
    assert_eq!(in_flight(&settings).as_deref(), Some("5"));
}

#[test]
fn the_broker_side_protocol_goes_without_what_the_broker_decides() {
    let mut settings = KafkaSettings::default();
    settings.consumer.insert("group.protocol".into(), "consumer".into());
    let config = settings.consumer("t", Traffic::Heavy);
    assert_eq!(config.get("session.timeout.ms"), None);
    assert_eq!(config.get("partition.assignment.strategy"), None);
}

#[test]
fn where_little_comes_a_fetch_waits_longer_unless_configured() {
    let mut settings = KafkaSettings::default();
    let ahead = |traffic| {
        let config = settings.consumer("t", traffic);
        config.get("queued.max.messages.kbytes").map(str::to_owned)
    };
    assert_eq!(ahead(Traffic::Heavy).as_deref(), Some("512"));
    assert_eq!(
        ahead(Traffic::Light).as_deref(),
        Some("1024"),
        "or it is read at half the rate"
    );
    let wait = |settings: &KafkaSettings, traffic| {
        let config = settings.consumer("t", traffic);
        config.get("fetch.wait.max.ms").map(str::to_owned)
    };
    assert_eq!(wait(&settings, Traffic::Heavy).as_deref(), Some("20"));
    assert_eq!(wait(&settings, Traffic::Light).as_deref(), Some("100"));
    settings.consumer.insert("fetch.wait.max.ms".into(), "50".into());
    for traffic in [Traffic::Heavy, Traffic::Light] {
        assert_eq!(wait(&settings, traffic).as_deref(), Some("50"));
    }
}
