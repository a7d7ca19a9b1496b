//! The commands that tell before a start what it would meet, and that make what is missing.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{World, light, shared_stack, until};

/// The findings of `check --output json`.
fn findings(said: &str) -> Vec<Value> {
    let line = said
        .lines()
        .find(|line| line.starts_with('['))
        .unwrap_or_else(|| panic!("no JSON: {said}"));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn check_topics_and_migrate() {
    light(async {
        let world = World::new(&shared_stack().await, "commands").await;
        let manual = [
            ("HOOKMILL_KAFKA__CREATE_TOPICS", "false"),
            ("HOOKMILL_POSTGRES__MIGRATE_ON_START", "false"),
        ];

        // Nothing is there yet. Where a start would make it, that is fine; else each finding says which command does.
        let (code, said) = world.run("check", &["check"], &[]).await;
        assert_eq!(code, 0, "{said}");
        for line in [
            "ok    config: ",
            "ok    sources: 5 sources",
            "ok    kafka: cluster ",
            "ok    topic commands.orders: does not exist yet",
            "ok    shard 1: reachable; `hookmill serve` will apply",
        ] {
            assert!(said.lines().any(|l| l.starts_with(line)), "{line} is not in: {said}");
        }
        let (code, said) = world.run("check", &["check"], &manual).await;
        assert_eq!(code, 1, "{said}");
        for word in [
            "FAIL  topic commands.orders.DLQ: ",
            "hookmill topics create",
            "FAIL  shard 0: ",
            "run `hookmill migrate`",
        ] {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        assert_eq!(world.sum(tables).await, 0, "a check makes nothing");

        // All that is wrong in one list, also for programs.
        let wrong = [
            ("HOOKMILL_SECRET_SHOPIFY", ""),
            ("HOOKMILL_SHARD_URLS", "postgres://postgres:hunter2@127.0.0.1:1/x"),
            ("HOOKMILL_TOPICS__DISPUTES__PARTITIONS", "5"),
        ];
        let (code, said) = world.run("check_json", &["check", "--output", "json"], &wrong).await;
        assert_eq!(code, 1, "{said}");
        let failed: Vec<Value> = findings(&said).into_iter().filter(|f| f["level"] == "fail").collect();
        let subjects: Vec<&str> = failed.iter().filter_map(|f| f["subject"].as_str()).collect();
        assert_eq!(subjects, ["sources", "shard 0"], "{said}");
        assert!(
            failed[0]["message"]
                .as_str()
                .is_some_and(|m| m.contains("HOOKMILL_SECRET_SHOPIFY")),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");

        let (code, said) = world.run("topics_list", &["topics", "list"], &[]).await;
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("commands.orders ") && said.contains("does not exist"),
            "{said}"
        );
        let (code, said) = world.run("topics_create", &["topics", "create"], &[]).await;
        assert_eq!(code, 0, "{said}");
        for (topic, _) in world.topics() {
            assert!(said.contains(&format!("created {topic}\n")), "{topic}: {said}");
        }
        let (code, said) = world
            .run("topics_create", &["topics", "create", "--output", "json"], &[])
            .await;
        assert_eq!((code, said.trim()), (0, r#"{"created":[]}"#));
        let (code, said) = world
            .run("topics_list", &["topics", "list", "--output", "json"], &[])
            .await;
        let listed: Value = serde_json::from_str(said.trim()).expect("JSON");
        let topics = listed["topics"].as_array().expect("topics");
        let partitions: Vec<i64> = topics.iter().filter_map(|t| t["partitions"].as_i64()).collect();
        assert_eq!((code, partitions), (0, vec![12, 6, 12, 6, 1]), "{said}");
        assert!(topics.iter().all(|t| t["problem"].is_null()), "{said}");
        for (topic, partitions) in world.topics() {
            assert_eq!(
                world.watermarks(&topic, partitions).await.len(),
                usize::try_from(partitions).expect("small")
            );
        }
        let (code, said) = world
            .run("topics", &["topics"], &[("HOOKMILL_TOPICS__ORDERS__PARTITIONS", "9")])
            .await;
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("commands.orders") && said.contains("12 partitions, the configuration says 9"),
            "{said}"
        );

        // Two at once: one does it, the other waits and finds nothing left to do.
        let (one, two) = tokio::join!(
            world.run("migrate_one", &["migrate", "--output", "json"], &[]),
            world.run("migrate_two", &["migrate", "--output", "json"], &[]),
        );
        let mut applied = [0, 0];
        for (code, said) in [&one, &two] {
            assert_eq!(*code, 0, "{said}");
            // Before it may stand that one waits for the other.
            let answer: Value = serde_json::from_str(said.lines().last().expect("an answer")).expect("JSON");
            for (shard, names) in answer["applied"].as_array().expect("shards").iter().enumerate() {
                applied[shard] += names.as_array().expect("names").len();
            }
        }
        let migrations = world.sum("SELECT count(*) FROM __diesel_schema_migrations").await;
        assert!(
            applied[0] > 0 && applied[0] == applied[1],
            "each once on each shard: {one:?} {two:?}"
        );
        assert_eq!(applied.iter().sum::<usize>() as i64, migrations);
        let (code, said) = world.run("migrate_again", &["migrate"], &[]).await;
        assert_eq!((code, said.trim()), (0, "shard 0: up to date\nshard 1: up to date"));

        // Now a start that makes nothing itself finds all it needs.
        let (code, said) = world.run("check_after", &["check"], &manual).await;
        assert_eq!(code, 0, "{said}");
        assert!(!said.contains("FAIL") && said.contains("tables up to date"), "{said}");
        let instance = world.start_with("manual", &manual).await;
        instance.stop().await;
        let (code, said) = world.run("check_used", &["check", "--output", "json"], &manual).await;
        assert_eq!(code, 0, "{said}");
        assert!(findings(&said).iter().all(|f| f["level"] == "ok"), "{said}");
        let (one, two) = (&world.shard_urls[0], &world.shard_urls[1]);
        let swapped = format!("{two},{one}");
        let (code, said) = world
            .run("check_swapped", &["check"], &[("HOOKMILL_SHARD_URLS", &swapped)])
            .await;
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("FAIL  shard 0: ") && said.contains("it is shard 1"),
            "{said}"
        );
    });
}

/// For another process that migrates as well, and for somebody who uses a table that is to be altered.
#[test]
fn a_migration_says_whom_it_waits_for() {
    light(async {
        let world = World::new(&shared_stack().await, "held_up").await;
        let other = world.stack.shard(0).connect(&world.name).await.expect("a session");
        for (name, hold, word, release, done) in [
            (
                "lock",
                "SELECT pg_advisory_lock(hashtext('hookmill:migrations'))",
                "another process migrates this shard",
                "SELECT pg_advisory_unlock_all()",
                "shard 1: applied ",
            ),
            (
                "table",
                "BEGIN; DELETE FROM __diesel_schema_migrations WHERE version = '20261127000000'; COMMIT;
                 BEGIN; LOCK TABLE order_events IN ACCESS SHARE MODE",
                "somebody uses the tables that are to be altered",
                "COMMIT",
                "shard 1: up to date",
            ),
        ] {
            other.batch_execute(hold).await.expect("it can be held");
            let log = world.log_dir().join(format!("held_up-{name}.log"));
            let released = async {
                let said = async || std::fs::read_to_string(&log).is_ok_and(|said| said.contains(word));
                until("it says whom it waits for", Duration::from_secs(30), said).await;
                other.batch_execute(release).await.expect("it can be released");
            };
            let ((code, said), ()) = tokio::join!(world.run(name, &["migrate"], &[]), released);
            assert_eq!(code, 0, "{said}");
            assert!(said.contains("shard 0: applied ") && said.contains(done), "{said}");
        }
        let (code, said) = world.run("after", &["migrate"], &[]).await;
        assert_eq!((code, said.trim()), (0, "shard 0: up to date\nshard 1: up to date"));
    });
}

#[test]
fn two_instances_that_start_at_once_on_nothing() {
    light(async {
        let world = World::new(&shared_stack().await, "at_once").await;
        let (one, two) = (world.spawn("one", &[]), world.spawn("two", &[]));
        tokio::join!(one.ready(), two.ready());
        for (topic, partitions) in world.topics() {
            assert_eq!(
                world.watermarks(&topic, partitions).await.len(),
                usize::try_from(partitions).expect("small")
            );
        }
        assert_eq!(world.sum("SELECT count(*) FROM shard_identity").await, 2);
        one.stop().await;
        two.stop().await;
    });
}
