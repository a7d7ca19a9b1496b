//! What is verified and not understood is not lost: it is parked, and comes back when the mapping is mended.

use std::time::Duration;

use dev::send::sign_body;
use serde_json::{Value, json};

use crate::harness::{Instance, World, light, secrets, shared_stack};

const SOON: Duration = Duration::from_secs(60);

const PARKING: &str = "\n[[sources]]\nname = \"shop\"\npreset = \"standard\"\nsecrets = [\"env:HOOKMILL_SECRET_STANDARD\"]\nunmapped = \"park\"\ninvalid = \"park\"\n";
const MENDED: &str = "[[sources.map]]\nname = \"parcel\"\nwhen = { \"/type\" = \"parcel.paid\" }\nkind = \"order\"\nevent_id = \"header:webhook-id\"\nevent_type = \"/type\"\noccurred_at = { from = \"/timestamp\", as = \"rfc3339\" }\norder_id = \"/data/id\"\nuser_id = \"/data/owner\"\n[[sources.map]]\nname = \"order\"\nuser_id = [\"/data/user_id\", \"/data/owner\"]\n";

async fn post(instance: &Instance, id: &str, body: &Value) -> (u16, Value) {
    let secret = secrets()
        .into_iter()
        .find(|(name, _)| name == "standard")
        .expect("a secret")
        .1;
    let body = body.to_string();
    let headers = sign_body("standard", body.as_bytes(), id, &secret, "", chrono::Utc::now()).expect("signed");
    let headers: Vec<(String, String)> = headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let response = instance.post("/webhooks/shop", &headers, body.as_bytes()).await;
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[test]
fn parked_mended_and_replayed_once() {
    light(async {
        let world = World::new(&shared_stack().await, "parked").await;
        let shipped =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")).expect("it is there");
        let at = chrono::Utc::now().to_rfc3339();
        let event = |kind: &str, data: Value| json!({ "type": kind, "timestamp": at, "data": data });
        let parking = world.clone().configured(|_| shipped.clone() + PARKING);
        let instance = parking.start("parking").await;
        let good = post(
            &instance,
            "m1",
            &event("order.paid", json!({ "id": "o1", "user_id": "u1" })),
        )
        .await;
        assert_eq!((good.0, &good.1["accepted"][0]["id"]), (202, &json!("m1")));
        let unknown = event("parcel.paid", json!({ "id": "o2", "owner": "u2" }));
        assert_eq!(
            post(&instance, "m2", &unknown).await,
            (202, json!({ "accepted": [], "parked": 1 }))
        );
        let lacking = event("order.paid", json!({ "id": "o3", "owner": "u3" }));
        assert_eq!(
            post(&instance, "m3", &lacking).await,
            (202, json!({ "accepted": [], "parked": 1 }))
        );
        let hopeless = event("order.paid", json!({ "id": "o4" }));
        assert_eq!(post(&instance, "m4", &hopeless).await.0, 202);

        let list = async |world: &World, name: &str| -> Vec<Value> {
            let (code, said) = world.run(name, &["parked", "list", "--output", "json"], &[]).await;
            assert_eq!(code, 0, "{said}");
            serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{said}"))
        };
        let parked = list(&parking, "list").await;
        let why: Vec<&str> = parked.iter().filter_map(|p| p["why"].as_str()).collect();
        assert_eq!(why, ["unmapped", "invalid", "invalid"]);
        let (code, said) = parking
            .run(
                "show",
                &["parked", "show", parked[0]["id"].as_str().expect("an id")],
                &[],
            )
            .await;
        assert!(
            code == 0 && said.contains(&unknown.to_string()) && said.contains("webhook-id: m2"),
            "{said}"
        );

        let mended = world.clone().configured(|_| shipped.clone() + PARKING + MENDED);
        let replay = ["parked", "replay", "--all", "--output", "json"];
        let (code, said) = mended
            .run("try", &["parked", "replay", "--all", "--dry-run"], &[])
            .await;
        assert!(code == 3 && said.contains("2 would be replayed, 1 stay"), "{said}");
        assert_eq!(list(&mended, "list-2").await.len(), 3, "only tried");
        let (code, said) = mended.run("replay", &replay, &[]).await;
        assert_eq!(code, 3, "one stays: {said}");
        assert_eq!(list(&mended, "list-3").await.len(), 1);
        let (code, said) = mended.run("again", &replay, &[]).await;
        assert!(code == 3 && said.contains("\"replayed\":[]"), "{said}");
        world.landed(SOON).await;
        let mut events: Vec<String> = world
            .events()
            .await
            .into_iter()
            .map(|e| format!("{} {}", e.event_id, e.user_id))
            .collect();
        events.sort();
        assert_eq!(events, ["m1 u1", "m2 u2", "m3 u3"]);
        let left = list(&mended, "list-4").await[0]["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let (code, said) = mended.run("discard", &["parked", "discard", &left], &[]).await;
        assert_eq!(code, 0, "{said}");
        assert!(list(&mended, "list-5").await.is_empty());
        let stats = instance.stats().await;
        let source = stats["sources"]
            .as_array()
            .expect("sources")
            .iter()
            .find(|s| s["name"] == "shop")
            .expect("ours")
            .clone();
        assert!(source["secrets"][0]["last_matched"].is_string(), "{source}");
        instance.stop().await;
    });
}
