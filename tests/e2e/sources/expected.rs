//! The samples and the rows that they must become, worked out by hand from the bodies and the providers' documents, and
//! never from what the program made of them.

use crate::harness::samples;

/// A row of an event table, without what the road adds: offset and times of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub kind: &'static str,
    pub source: &'static str,
    pub event_id: String,
    pub user_id: String,
    pub order_id: Option<String>,
    pub dispute_id: Option<String>,
    pub event_type: String,
    pub status: String,
    pub provider_status: Option<String>,
    pub amount_minor: Option<i64>,
    pub currency: Option<String>,
    pub entity_version: Option<i64>,
    /// As RFC 3339, in UTC.
    pub occurred_at: String,
}

/// A webhook and its row.
pub struct Case {
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub row: Row,
}

/// A sample as it is.
pub fn sample(file: &str) -> String {
    std::fs::read_to_string(samples().join(file)).expect("a sample")
}

/// A sample with the first occurrence of each text exchanged.
fn edited(file: &str, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(sample(file), |body, (from, to)| {
        assert!(body.contains(from), "{from} is not in {file}");
        body.replacen(from, to, 1)
    })
}

/// A bare object of Stripe as the event that carries it.
fn wrapped(file: &str, id: &str, event_type: &str, created: i64) -> String {
    let object = sample(file);
    format!(
        r#"{{"id":"{id}","object":"event","created":{created},"type":"{event_type}","data":{{"object":{object}}}}}"#
    )
}

/// `(user, entity)` of an order without amount, to be completed with `..`.
fn order(source: &'static str, user_id: &str, order_id: &str) -> Row {
    Row {
        kind: "order",
        source,
        event_id: String::new(),
        user_id: user_id.to_owned(),
        order_id: Some(order_id.to_owned()),
        dispute_id: None,
        event_type: String::new(),
        status: String::new(),
        provider_status: None,
        amount_minor: None,
        currency: None,
        entity_version: None,
        occurred_at: String::new(),
    }
}

fn dispute(source: &'static str, user_id: &str, order_id: &str, dispute_id: &str) -> Row {
    Row {
        kind: "dispute",
        dispute_id: Some(dispute_id.to_owned()),
        ..order(source, user_id, order_id)
    }
}

impl Row {
    fn event(self, event_id: &str, event_type: &str, occurred_at: &str) -> Self {
        Self {
            event_id: event_id.to_owned(),
            event_type: event_type.to_owned(),
            occurred_at: occurred_at.to_owned(),
            ..self
        }
    }

    fn is(self, status: &str, provider_status: &str) -> Self {
        Self {
            status: status.to_owned(),
            provider_status: Some(provider_status.to_owned()),
            ..self
        }
    }

    fn worth(self, amount_minor: i64, currency: &str) -> Self {
        Self {
            amount_minor: Some(amount_minor),
            currency: Some(currency.to_owned()),
            ..self
        }
    }

    fn version(self, version: i64) -> Self {
        Self {
            entity_version: Some(version),
            ..self
        }
    }

    fn sent_as(self, body: impl Into<Vec<u8>>, headers: &[(&'static str, &str)]) -> Case {
        Case {
            headers: headers
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            body: body.into(),
            row: self,
        }
    }
}

/// Every webhook that is sent, in the order of sending.
pub fn cases() -> Vec<Case> {
    [
        stripe_disputes(),
        stripe_orders(),
        shopify(),
        square(),
        razorpay(),
        standard(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Stripe's samples share an event id, so each gets one of its own. `created` is 1619701111 = 2021-04-29T12:58:31Z.
fn stripe_disputes() -> Vec<Case> {
    let same = "evt_3KtQThJDPojXS6LN0E06aNxq";
    let pi = "pi_1IqtG9JDPojXS6LNOGnYrIqq";
    let of_intent = || dispute("stripe", &format!("pi:{pi}"), pi, "dp_1MLuxQJDPojXS6LNrukJCBBG");
    let events = ["created", "closed", "funds_reinstated", "funds_withdrawn", "updated"].map(|what| {
        let file = format!("stripe-charge.dispute.{what}.json");
        let id = format!("evt_dispute_{what}");
        of_intent()
            .event(&id, &format!("charge.dispute.{what}"), "2021-04-29T12:58:31Z")
            .is("inquiry_needs_response", "warning_needs_response")
            .worth(1000, "USD")
            .sent_as(edited(&file, &[(same, &id)]), &[])
    });
    // No payment intent: the charge stands in, as order and in the key.
    let old = "ch_000000000000000000000000";
    let of_charge = dispute("stripe", &format!("ch:{old}"), old, "dp_000000000000000000000000")
        .event(
            "evt_000000000000000000000000",
            "charge.dispute.created",
            "2022-03-26T18:39:00Z",
        )
        .is("inquiry_needs_response", "warning_needs_response")
        .worth(100, "USD")
        .sent_as(sample("stripe-old-charge.dispute.created.json"), &[]);
    let bare = "ch_1PgafuB7WZ01zgkWXYmPNZs8";
    let of_bare = dispute("stripe", &format!("ch:{bare}"), bare, "dp_1Pgc71B7WZ01zgkWMevJiAUx")
        .event("evt_bare_dispute", "charge.dispute.updated", "2023-11-14T22:13:20Z")
        .is("inquiry_needs_response", "warning_needs_response")
        .worth(1000, "USD")
        .sent_as(
            wrapped(
                "stripe-object-dispute.json",
                "evt_bare_dispute",
                "charge.dispute.updated",
                1_700_000_000,
            ),
            &[],
        );
    events.into_iter().chain([of_charge, of_bare]).collect()
}

/// 1619697430 = 2021-04-29T11:57:10Z, 1326853478 = 2012-01-18T02:24:38Z, 1700000000 = 2023-11-14T22:13:20Z.
fn stripe_orders() -> Vec<Case> {
    let of = |pi: &str| order("stripe", &format!("pi:{pi}"), pi);
    let (paid, refunded) = ("pi_1IqxJOJDPojXS6LN9uOebAea", "pi_3Kl36gJDPojXS6LN02fQVtKR");
    let (old, open) = ("pi_00000000000000", "pi_1PgafyB7WZ01zgkWSjxsAJo3");
    let bare = "ch_1PgafuB7WZ01zgkWXYmPNZs8";
    let intent = "evt_1IlYUUJDPojXS6LN7NEWYSm2";
    vec![
        of(paid)
            .event(
                "evt_T8nSaZqtPudigUMqnnbY4D4v",
                "checkout.session.completed",
                "2021-04-29T11:57:10Z",
            )
            .is("paid", "paid")
            .worth(999, "EUR")
            .sent_as(sample("stripe-checkout.session.completed.json"), &[]),
        // The type says what became of the intent; the object in the sample was taken before that.
        of(paid)
            .event(
                "evt_intent_succeeded",
                "payment_intent.succeeded",
                "2021-04-29T11:57:10Z",
            )
            .is("paid", "payment_intent.succeeded")
            .worth(1000, "USD")
            .sent_as(
                edited(
                    "stripe-payment_intent.succeeded.json",
                    &[(intent, "evt_intent_succeeded")],
                ),
                &[],
            ),
        of(paid)
            .event("evt_intent_canceled", "payment_intent.canceled", "2021-04-29T11:57:10Z")
            .is("cancelled", "payment_intent.canceled")
            .worth(1000, "USD")
            .sent_as(
                edited(
                    "stripe-payment_intent.canceled.json",
                    &[(intent, "evt_intent_canceled")],
                ),
                &[],
            ),
        of(refunded)
            .event("evt_refunded", "charge.refunded", "2021-04-29T12:58:31Z")
            .is("refunded", "true")
            .worth(2500, "USD")
            .sent_as(
                edited(
                    "stripe-charge.refunded.json",
                    &[("evt_3KtQThJDPojXS6LN0E06aNxq", "evt_refunded")],
                ),
                &[],
            ),
        of(old)
            .event(
                "evt_00000000000000",
                "checkout.session.completed",
                "2012-01-18T02:24:38Z",
            )
            .is("paid", "paid")
            .worth(25000, "USD")
            .sent_as(sample("stripe-old-checkout.session.completed.payment_mode.json"), &[]),
        of(open)
            .event("evt_bare_intent", "payment_intent.created", "2023-11-14T22:13:20Z")
            .is("pending", "requires_payment_method")
            .worth(1099, "USD")
            .sent_as(
                wrapped(
                    "stripe-object-payment_intent.json",
                    "evt_bare_intent",
                    "payment_intent.created",
                    1_700_000_000,
                ),
                &[],
            ),
        // Neither amount nor currency in this object: the columns stay empty.
        of(open)
            .event(
                "evt_bare_checkout",
                "checkout.session.completed",
                "2023-11-14T22:13:25Z",
            )
            .is("pending", "unpaid")
            .sent_as(
                wrapped(
                    "stripe-object-checkout.session.json",
                    "evt_bare_checkout",
                    "checkout.session.completed",
                    1_700_000_005,
                ),
                &[],
            ),
        order("stripe", &format!("ch:{bare}"), bare)
            .event("evt_bare_charge", "charge.refunded", "2023-11-14T22:13:20Z")
            .is("partially_refunded", "false")
            .worth(100, "USD")
            .sent_as(
                wrapped(
                    "stripe-object-charge.json",
                    "evt_bare_charge",
                    "charge.refunded",
                    1_700_000_000,
                ),
                &[],
            ),
    ]
}

const SHOP: &str = "shop.example.com";

/// All order samples are one cancelled order, so some are edited to go through its life. The offset of -05:00 counts.
fn shopify() -> Vec<Case> {
    let of_order = || {
        order(
            "shopify",
            "order:shop.example.com/820982911946154500",
            "shop.example.com/820982911946154500",
        )
    };
    let of_dispute = || {
        dispute(
            "shopify",
            "order:shop.example.com/820982911946154500",
            "shop.example.com/820982911946154500",
            "shop.example.com/285332461850802050",
        )
    };
    let send = |row: Row, id: &str, triggered: &str, body: String| {
        let topic = row.event_type.clone();
        row.sent_as(
            body,
            &[
                ("x-shopify-topic", &topic),
                ("x-shopify-event-id", id),
                ("x-shopify-webhook-id", "not the identity"),
                ("x-shopify-shop-domain", SHOP),
                ("x-shopify-triggered-at", triggered),
            ],
        )
    };
    let mut cases = Vec::new();
    for (topic, file) in [
        ("orders/create", "shopify-orders-create.json"),
        ("orders/updated", "shopify-orders-updated.json"),
        ("orders/cancelled", "shopify-orders-cancelled.json"),
    ] {
        // One event id for three topics: the topic is part of the identity.
        let row = of_order()
            .event(&format!("e-1:{topic}"), topic, "2022-01-01T00:00:00Z")
            .is("cancelled", "voided")
            .worth(41495, "USD");
        cases.push(send(row, "e-1", "2026-01-02T03:04:05.678Z", sample(file)));
    }
    let life = |file, updated_at: &str, fulfillment: &str| {
        edited(
            file,
            &[
                (
                    r#""cancelled_at": "2021-12-31T19:00:00-05:00""#,
                    r#""cancelled_at": null"#,
                ),
                (r#""financial_status": "voided""#, r#""financial_status": "paid""#),
                (
                    r#""fulfillment_status": null"#,
                    &format!(r#""fulfillment_status": {fulfillment}"#),
                ),
                (
                    r#""updated_at": "2021-12-31T19:00:00-05:00""#,
                    &format!(r#""updated_at": "{updated_at}""#),
                ),
            ],
        )
    };
    let steps = [
        (
            "orders/paid",
            "shopify-orders-paid.json",
            "2022-01-01T10:00:00+09:00",
            "null",
        ),
        (
            "orders/partially_fulfilled",
            "shopify-orders-partially_fulfilled.json",
            "2022-01-01T02:00:00Z",
            r#""partial""#,
        ),
        (
            "orders/fulfilled",
            "shopify-orders-fulfilled.json",
            "2022-01-01T03:00:00.5Z",
            r#""fulfilled""#,
        ),
    ];
    let becomes = [
        ("2022-01-01T01:00:00Z", "paid", "paid"),
        ("2022-01-01T02:00:00Z", "partially_fulfilled", "partial"),
        ("2022-01-01T03:00:00.500Z", "fulfilled", "fulfilled"),
    ];
    for ((topic, file, updated_at, fulfillment), (at, status, word)) in steps.into_iter().zip(becomes) {
        let row = of_order()
            .event(&format!("e-2:{topic}"), topic, at)
            .is(status, word)
            .worth(41495, "USD");
        cases.push(send(
            row,
            "e-2",
            "2026-01-02T03:04:05.678Z",
            life(file, updated_at, fulfillment),
        ));
    }
    // A refund says neither the order's state nor its total: that something was paid back is all that is known.
    let refund = Row {
        status: "partially_refunded".to_owned(),
        ..of_order().event("#e-4:refunds/create", "refunds/create", "2022-01-01T00:00:00Z")
    };
    let triggered = "2026-01-02T03:04:05.678Z";
    cases.push(send(refund, "e-4", triggered, sample("shopify-refunds-create.json")));
    // A dispute says itself only when it began; when it changed is in the header.
    for (topic, file, at) in [
        (
            "disputes/create",
            "shopify-disputes-create.json",
            "2026-01-02T03:04:05.678Z",
        ),
        (
            "disputes/update",
            "shopify-disputes-update.json",
            "2026-01-03T00:00:00Z",
        ),
    ] {
        let row = of_dispute()
            .event(&format!("e-3:{topic}"), topic, at)
            .is("under_review", "under_review")
            .worth(1150, "CAD");
        cases.push(send(row, "e-3", at, sample(file)));
    }
    cases
}

/// Order and payment feed one row by different counters, so only disputes have a version.
fn square() -> Vec<Case> {
    let thin = || {
        order(
            "square",
            "order:5S9MXCS9Y99KK/eA3vssLHKJrv9H0IdJCM3gNqfdcZY",
            "eA3vssLHKJrv9H0IdJCM3gNqfdcZY",
        )
        .is("pending", "OPEN")
    };
    let payment = || {
        order(
            "square",
            "order:6SSW7HV8K2ST5/03O3USaPaAaFnI6kkwB1JxGgBsUZY",
            "03O3USaPaAaFnI6kkwB1JxGgBsUZY",
        )
        .worth(100, "USD")
    };
    let disputed = || {
        dispute(
            "square",
            "payment:0HPGX5JYE6EE1/fbmsaEOpoARDKxiSGH1fqPuqoqFZY",
            "payment:fbmsaEOpoARDKxiSGH1fqPuqoqFZY",
            "ORSEVtZAJxb37RA1EiGw",
        )
        .worth(8801, "USD")
    };
    let refunded = || {
        let order = "haOyDuHiqtAXMk0d8pDKXpL7Jg4F";
        order_of_refund(order).worth(1000, "USD")
    };
    let same = "bc316346-6691-4243-88ed-6d651a0d0c47";
    vec![
        refunded()
            .event(same, "refund.created", "2020-02-06T21:27:41.846Z")
            .is("partially_refunded", "PENDING")
            .sent_as(sample("square-refund.created.json"), &[]),
        // Both samples have one id.
        refunded()
            .event("refund-updated", "refund.updated", "2020-02-06T22:14:16.381Z")
            .is("partially_refunded", "COMPLETED")
            .sent_as(edited("square-refund.updated.json", &[(same, "refund-updated")]), &[]),
        disputed()
            .event(
                "6f606f30-53d0-495a-87f0-958576fc954f",
                "dispute.evidence.created",
                "2020-02-19T21:27:28.851Z",
            )
            .is("needs_response", "EVIDENCE_REQUIRED")
            .version(2)
            .sent_as(sample("square-dispute.evidence.created.json"), &[]),
        thin()
            .event(
                "116038d3-2948-439f-8679-fc86dbf80f69",
                "order.created",
                "2020-04-16T23:14:26.129Z",
            )
            .sent_as(sample("square-order.created.json"), &[]),
        thin()
            .event(
                "4b8e5c91-9f17-4cf1-900a-4a0629f81add",
                "order.updated",
                "2020-04-16T23:14:26.359Z",
            )
            .sent_as(sample("square-order.updated.json"), &[]),
        thin()
            .event(
                "b3adf364-4937-436e-a833-49c72b4baee8",
                "order.fulfillment.updated",
                "2020-04-16T23:16:30.789Z",
            )
            .sent_as(sample("square-order.fulfillment.updated.json"), &[]),
        // The later event first: the state must not go back.
        payment()
            .event(
                "6a8f5f28-54a1-4eb0-a98a-3111513fd4fc",
                "payment.updated",
                "2020-11-22T21:19:00.831Z",
            )
            .is("paid", "COMPLETED")
            .sent_as(sample("square-payment.updated.json"), &[]),
        payment()
            .event(
                "13b867cf-db3d-4b1c-90b6-2f32a9d78124",
                "payment.created",
                "2020-11-22T21:16:51.198Z",
            )
            .is("authorized", "APPROVED")
            .sent_as(sample("square-payment.created.json"), &[]),
        disputed()
            .event(
                "ce8464b5-6628-4ac2-9264-e06c34df3e82",
                "dispute.created",
                "2020-02-19T21:24:53.258Z",
            )
            .is("needs_response", "EVIDENCE_REQUIRED")
            .version(1)
            .sent_as(sample("square-dispute.created.json"), &[]),
        disputed()
            .event(
                "e89ff114-1972-4be0-9481-a621f2385fff",
                "dispute.state.updated",
                "2020-02-19T21:34:41.851Z",
            )
            .is("won", "WON")
            .version(6)
            .sent_as(sample("square-dispute.state.updated.json"), &[]),
    ]
}

fn order_of_refund(id: &str) -> Row {
    order("square", &format!("order:6SSW7HV8K2ST5/{id}"), id)
}

/// The event's identity stands in a header. 1567674606 = 2019-09-05T09:10:06Z.
fn razorpay() -> Vec<Case> {
    let of = |id: &str| order("razorpay", &format!("order:{id}"), id);
    let disputed = || {
        let order = "order_EFtkA6f5jdkfud";
        dispute("razorpay", &format!("order:{order}"), order, "disp_EsIAlDcoUr8CaQ")
    };
    // Payments without an order: the payment stands in.
    let without = |payment: &str, id: &str| dispute("razorpay", &format!("payment:{payment}"), payment, id);
    let closed = || without("pay_EsIKS2bpFiWghA", "disp_EsIMubKldQtcu5");
    let reviewed = || {
        let row = without("pay_EsIStomuIwFQ6U", "disp_EsIUyp8XlaZOUt");
        row.worth(130_000, "INR")
    };
    let (one, other) = ("order_DESlLckIVRkHWj", "order_DEATVTRRctwEGb");
    let at = "2019-09-05T09:10:06Z";
    [
        of(one)
            .event("rz-1", "order.paid", at)
            .is("paid", "paid")
            .worth(100, "INR"),
        of(one)
            .event("rz-2", "payment.authorized", at)
            .is("authorized", "authorized")
            .worth(100, "INR"),
        of(one)
            .event("rz-3", "payment.captured", at)
            .is("paid", "captured")
            .worth(100, "INR"),
        of(other)
            .event("rz-4", "payment.failed", "2019-09-04T15:16:55Z")
            .is("failed", "failed")
            .worth(50_000, "INR"),
        of("order_FPoIeimWki9j8A")
            .event("rz-r", "refund.processed", "2020-08-18T07:01:11Z")
            .is("partially_refunded", "partial")
            .worth(50_000, "INR"),
        disputed()
            .event("rz-5", "payment.dispute.created", "2020-05-19T17:06:17Z")
            .is("needs_response", "open")
            .worth(39_000, "INR"),
        disputed()
            .event("rz-6", "payment.dispute.action_required", "2020-05-19T17:06:17Z")
            .is("needs_response", "open")
            .worth(390_000, "INR"),
        disputed()
            .event("rz-7", "payment.dispute.lost", "2020-05-19T17:10:38Z")
            .is("lost", "lost")
            .worth(39_000, "INR"),
        closed()
            .event("rz-8", "payment.dispute.closed", "2020-05-19T17:20:56Z")
            .is("closed", "closed")
            .worth(10_000, "INR"),
        reviewed()
            .event("rz-9", "payment.dispute.won", "2020-05-19T17:26:12Z")
            .is("won", "won"),
        reviewed()
            .event("rz-0", "payment.dispute.under_review", "2020-05-19T17:26:12Z")
            .is("under_review", "under_review"),
    ]
    .into_iter()
    .map(|row| {
        let file = format!("razorpay-{}.json", row.event_type);
        let id = row.event_id.clone();
        row.sent_as(sample(&file), &[("x-razorpay-event-id", &id)])
    })
    .collect()
}

/// The scheme leaves the body to the sender: these are ours, with what JSON allows and programs stumble over.
fn standard() -> Vec<Case> {
    let of = || order("standard", "usr \"7\" é", "9007199254740993");
    // Ids above 2^53, a NUL, digits that no float keeps, and white space around it all.
    let body = [
        "\n { ",
        r#""type" : "order.created", "timestamp":"2026-01-02T03:04:05.123456Z","data":{"id":9007199254740993,"#,
        r#""user_id":"usr \"7\" \u00e9","amount":9223372036854775807,"currency":"jpy","status":"created","#,
        r#""version":1,"note":"a\u0000b","weight":0.10000000000000000000000000001}}"#,
        "\r\n\t ",
    ]
    .concat();
    let paid = [
        r#"{"type":"order.paid","timestamp":"2026-01-02T03:04:05.123456Z","data":{"order_id":"9007199254740993","#,
        r#""user_id":"usr \"7\" é","amount":-5,"status":"paid","version":2}}"#,
    ]
    .concat();
    let odd = [
        r#"{"type":"dispute.created","timestamp":"2026-01-02T04:04:05+01:00","data":{"dispute_id":"d1","#,
        r#""order_id":"","user_id":"u1","status":"on fire"}}"#,
    ]
    .concat();
    vec![
        of().event("msg_1", "order.created", "2026-01-02T03:04:05.123456Z")
            .is("pending", "created")
            .worth(i64::MAX, "JPY")
            .version(1)
            .sent_as(body, &[]),
        of().event("msg_2", "order.paid", "2026-01-02T03:04:05.123456Z")
            .is("paid", "paid")
            .worth(-5, "USD")
            .version(2)
            .sent_as(paid, &[]),
        // No order, no amount, and a word that nobody knows: kept beside `unknown`. The preset's currency is USD.
        Row {
            order_id: None,
            currency: Some("USD".to_owned()),
            ..dispute("standard", "u1", "", "d1")
        }
        .event("msg_3", "dispute.created", "2026-01-02T03:04:05Z")
        .is("unknown", "on fire")
        .sent_as(odd, &[]),
    ]
}

/// Webhooks that are verified and wanted by no mapping, with their headers: (source, body, the type that is answered).
pub fn ignored() -> Vec<(&'static str, String, &'static str)> {
    [
        ("stripe", "stripe-charge.succeeded.json", "charge.succeeded"),
        ("stripe", "stripe-object-event.json", "plan.created"),
        ("shopify", "shopify-orders-edited.json", "orders/edited"),
        ("shopify", "shopify-orders-delete.json", "orders/delete"),
        (
            "shopify",
            "shopify-order_transactions-create.json",
            "order_transactions/create",
        ),
        ("standard", "standardwebhooks-example.json", "contact.created"),
    ]
    .map(|(source, file, event_type)| (source, sample(file), event_type))
    .to_vec()
}

/// Which event each entity's state must be, of those above: the greatest version, then time, then progress, then id.
pub const STATES: &[(&str, &str, &str, &str)] = &[
    (
        "dispute",
        "stripe",
        "dp_1MLuxQJDPojXS6LNrukJCBBG",
        "evt_dispute_updated",
    ),
    (
        "dispute",
        "stripe",
        "dp_000000000000000000000000",
        "evt_000000000000000000000000",
    ),
    ("dispute", "stripe", "dp_1Pgc71B7WZ01zgkWMevJiAUx", "evt_bare_dispute"),
    ("order", "stripe", "pi_1IqxJOJDPojXS6LN9uOebAea", "evt_intent_canceled"),
    ("order", "stripe", "pi_3Kl36gJDPojXS6LN02fQVtKR", "evt_refunded"),
    ("order", "stripe", "pi_00000000000000", "evt_00000000000000"),
    ("order", "stripe", "pi_1PgafyB7WZ01zgkWSjxsAJo3", "evt_bare_checkout"),
    ("order", "stripe", "ch_1PgafuB7WZ01zgkWXYmPNZs8", "evt_bare_charge"),
    (
        "order",
        "shopify",
        "shop.example.com/820982911946154500",
        "e-2:orders/fulfilled",
    ),
    (
        "dispute",
        "shopify",
        "shop.example.com/285332461850802050",
        "e-3:disputes/update",
    ),
    (
        "order",
        "square",
        "eA3vssLHKJrv9H0IdJCM3gNqfdcZY",
        "b3adf364-4937-436e-a833-49c72b4baee8",
    ),
    (
        "order",
        "square",
        "03O3USaPaAaFnI6kkwB1JxGgBsUZY",
        "6a8f5f28-54a1-4eb0-a98a-3111513fd4fc",
    ),
    (
        "dispute",
        "square",
        "ORSEVtZAJxb37RA1EiGw",
        "e89ff114-1972-4be0-9481-a621f2385fff",
    ),
    ("order", "square", "haOyDuHiqtAXMk0d8pDKXpL7Jg4F", "refund-updated"),
    ("order", "razorpay", "order_FPoIeimWki9j8A", "rz-r"),
    ("order", "razorpay", "order_DESlLckIVRkHWj", "rz-3"),
    ("order", "razorpay", "order_DEATVTRRctwEGb", "rz-4"),
    ("dispute", "razorpay", "disp_EsIAlDcoUr8CaQ", "rz-7"),
    ("dispute", "razorpay", "disp_EsIMubKldQtcu5", "rz-8"),
    ("dispute", "razorpay", "disp_EsIUyp8XlaZOUt", "rz-9"),
    ("order", "standard", "9007199254740993", "msg_2"),
    ("dispute", "standard", "d1", "msg_3"),
];
