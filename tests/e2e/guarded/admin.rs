//! The operators' listener off loopback: health for everybody, the rest for who has the token.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};

use crate::harness::{World, light, shared_stack, until};

const TOKEN: &str = "planted-admin-token";

#[test]
fn off_loopback_only_health_is_open() {
    light(async {
        let world = World::new(&shared_stack().await, "admin_open").await;
        let port = dev::stack::free_ports(1).expect("a port")[0];
        let everywhere = format!("0.0.0.0:{port}");
        let mut instance = world.spawn_listening("only", &everywhere, &[("HOOKMILL_ADMIN_TOKEN", TOKEN)]);
        instance.admin = format!("http://127.0.0.1:{port}");
        let get = async |path: &str, authorization: Option<&[u8]>| {
            let mut request = instance.client.get(format!("{}{path}", instance.admin));
            if let Some(value) = authorization {
                request = request.header(AUTHORIZATION, HeaderValue::from_bytes(value).expect("a value"));
            }
            let answer = request.send().await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        };
        until("ready without a token", Duration::from_secs(60), async || {
            assert!(instance.process.is_running(), "{}", instance.process.obituary());
            get("/health/ready", None)
                .await
                .is_some_and(|(status, _)| status == 200)
        })
        .await;
        let (status, _) = get("/health/live", None).await.expect("an answer");
        assert_eq!(status, 200);

        let right = format!("Bearer {TOKEN}");
        let longer = format!("Bearer {TOKEN}x");
        let wrong: [Option<&[u8]>; 7] = [
            None,
            Some(b""),
            Some(b"Bearer "),
            Some(TOKEN.as_bytes()),
            Some(b"Bearer planted-admin-toke"),
            Some(longer.as_bytes()),
            Some(b"Bearer \xff\xfe"),
        ];
        for path in [
            "/stats",
            "/metrics",
            "/",
            "/nothing",
            "/stats/",
            "//stats",
            "/health/../stats",
        ] {
            for given in wrong {
                let (status, body) = get(path, given).await.expect("an answer");
                assert!(
                    status == 401 || (status == 404 && path == "/nothing"),
                    "{path} {given:?}: {status}"
                );
                assert!(
                    !body.contains("shard_writer") && !body.contains(TOKEN),
                    "{path}: {body}"
                );
            }
        }
        for path in ["/stats", "/metrics", "/"] {
            let (status, body) = get(path, Some(right.as_bytes())).await.expect("an answer");
            assert_eq!(status, 200, "{path}");
            assert!(!body.contains(TOKEN), "{path}: {body}");
        }
        instance.stop().await;
        assert!(!instance.log().contains(TOKEN));
    });
}
