//! What a source of one's own says of its rules.

use chrono::Utc;

use super::super::*;

const AROUND: &str = "name = \"s\"\npreset = \"standard\"\neach = \"/events\"\n";
const RULE: &str = "[[map]]\nname = \"mine\"\nkind = \"order\"\nwhen = { \"/type\" = \"sold\" }\nevent_id = \"/id\"\nevent_type = \"/type\"\noccurred_at = { from = \"/at\", as = \"rfc3339\" }\norder_id = \"/order\"\nuser_id = [\"/buyer\", \"/guest\"]\nstatus = [{ from = \"/state\", map = { done = \"paid\" } }]\n";

fn compile(text: &str) -> Result<Source, String> {
    let config: SourceConfig = toml::from_str(text).map_err(|error| error.to_string())?;
    config.compile_unverified().map_err(|error| error.to_string())
}

#[test]
fn a_rule_needs_the_id_of_its_kind() {
    for (kind, missing) in [("order", "order_id"), ("dispute", "dispute_id")] {
        let rule = RULE
            .replace("order_id = \"/order\"\n", "")
            .replace("\"order\"", &format!("{kind:?}"));
        let refused = compile(&format!("{AROUND}{rule}")).expect_err("it has no id");
        assert!(refused.contains(&format!("does not say `{missing}`")), "{refused}");
    }
}

#[test]
fn a_trace_names_the_rule_and_the_places_that_gave_each_field() {
    let source = compile(&format!("{AROUND}{RULE}")).expect("it compiles");
    assert_eq!(source.each(), Some("/events"));
    let body = br#"{"events":[{"type":"sold","id":"e","at":"2026-01-01T00:00:00Z","order":"o","guest":"g","state":"done"},{"type":"sold","state":"new"},{"type":"other"}]}"#;
    let traces = source
        .trace(&Incoming::post(&[][..], body, Utc::now()))
        .expect("it is read");
    let [Some(first), Some(second), None] = &traces[..] else {
        panic!("{traces:?}")
    };
    assert_eq!(first.rule, "mine");
    let field = |trace: &Trace, name| {
        let field = trace
            .fields
            .iter()
            .find(|field| field.field == name)
            .expect("it is there");
        (field.place.clone(), field.value.clone())
    };
    let gave = |place: &str, value: &str| (Some(place.to_owned()), Some(value.to_owned()));
    assert_eq!(field(first, "user_id"), gave("/guest", "g"));
    assert_eq!(field(first, "status"), gave("/state", "done"));
    // Its word is in no table, and that it is there decides nothing.
    assert_eq!(field(second, "status"), (None, None));
}
