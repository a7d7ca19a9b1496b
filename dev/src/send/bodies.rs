//! Bodies in the providers' documented shapes, of realistic size.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::generator::{Entity, Expected, Webhook};

/// A step of an entity's life: the provider's type of event, the provider's word for the state, the canonical state.
type Step = (&'static str, &'static str, &'static str);

fn life(entity: &Entity) -> &'static [Step] {
    match (entity.source, entity.dispute) {
        ("stripe", false) => &[
            ("payment_intent.created", "requires_payment_method", "pending"),
            (
                "payment_intent.amount_capturable_updated",
                "requires_capture",
                "authorized",
            ),
            ("payment_intent.succeeded", "succeeded", "paid"),
            ("checkout.session.completed", "paid", "paid"),
            ("charge.refunded", "true", "refunded"),
        ],
        ("stripe", true) => &[
            ("charge.dispute.created", "needs_response", "needs_response"),
            ("charge.dispute.updated", "under_review", "under_review"),
            ("charge.dispute.closed", "won", "won"),
        ],
        ("shopify", false) => &[
            ("orders/create", "pending", "pending"),
            ("orders/updated", "authorized", "authorized"),
            ("orders/paid", "paid", "paid"),
            ("orders/fulfilled", "paid", "fulfilled"),
        ],
        ("shopify", true) => &[
            ("disputes/create", "needs_response", "needs_response"),
            ("disputes/update", "under_review", "under_review"),
            ("disputes/update", "lost", "lost"),
        ],
        ("square", false) => &[
            ("order.created", "OPEN", "pending"),
            ("payment.created", "APPROVED", "authorized"),
            ("payment.updated", "COMPLETED", "paid"),
            ("order.updated", "COMPLETED", "paid"),
        ],
        ("square", true) => &[
            ("dispute.created", "EVIDENCE_REQUIRED", "needs_response"),
            ("dispute.state.updated", "PROCESSING", "under_review"),
            ("dispute.state.updated", "WON", "won"),
        ],
        ("razorpay", false) => &[
            ("payment.authorized", "authorized", "authorized"),
            ("payment.captured", "captured", "paid"),
            ("order.paid", "paid", "paid"),
        ],
        ("razorpay", true) => &[
            ("payment.dispute.created", "open", "needs_response"),
            ("payment.dispute.under_review", "under_review", "under_review"),
            ("payment.dispute.lost", "lost", "lost"),
        ],
        (_, false) => &[
            ("order.created", "created", "pending"),
            ("order.paid", "paid", "paid"),
            ("order.updated", "partially_fulfilled", "partially_fulfilled"),
            ("order.fulfilled", "fulfilled", "fulfilled"),
        ],
        (_, true) => &[
            ("dispute.created", "needs_response", "needs_response"),
            ("dispute.updated", "under_review", "under_review"),
            ("dispute.closed", "won", "won"),
        ],
    }
}

/// How many events an entity has.
pub(super) fn steps(entity: &Entity) -> usize {
    life(entity).len()
}

/// The entity's next event.
pub(super) fn webhook(entity: &Entity, sequence: u64) -> Webhook {
    let life = life(entity);
    let step = life[entity.step.min(life.len() - 1)];
    let made = match entity.source {
        "stripe" => stripe(entity, step),
        "shopify" => shopify(entity, step),
        "square" => square(entity, step),
        "razorpay" => razorpay(entity, step),
        _ => standard(entity, step),
    };
    let expect = Expected {
        source: entity.source,
        event_id: made.event_id,
        kind: if entity.dispute { "dispute" } else { "order" },
        user_id: made.user_id,
        order_id: made.order_id,
        dispute_id: made.dispute_id,
        status: step.2,
        occurred_at: entity.at,
        sequence,
        poison: false,
    };
    Webhook {
        source: entity.source,
        headers: made.headers,
        body: made.body.to_string().into_bytes(),
        expect,
    }
}

struct Made {
    headers: Vec<(&'static str, String)>,
    body: Value,
    event_id: String,
    user_id: String,
    order_id: String,
    dispute_id: Option<String>,
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn major(amount: u64) -> String {
    format!("{}.{:02}", amount / 100, amount % 100)
}

fn address(entity: &Entity) -> Value {
    json!({ "city": "Springfield", "country": "US", "line1": format!("{} Evergreen Terrace", entity.amount % 900 + 1), "line2": null, "postal_code": "49007", "state": "OR" })
}

fn stripe(entity: &Entity, (event, word, _): Step) -> Made {
    let Entity {
        id, amount, at, step, ..
    } = entity;
    let (intent, event_id) = (format!("pi_{id}"), format!("evt_{id}s{step}"));
    let billing = json!({ "address": address(entity), "email": format!("{}@example.com", entity.user), "name": "Jenny Rosen", "phone": null });
    let object = match event {
        "charge.refunded" => json!({
            "id": format!("ch_{id}"), "object": "charge", "amount": amount, "amount_captured": amount, "amount_refunded": amount, "currency": "usd",
            "customer": format!("cus_{id}"), "payment_intent": intent, "paid": true, "refunded": true, "status": "succeeded", "billing_details": billing,
            "metadata": {}, "outcome": { "network_status": "approved_by_network", "risk_level": "normal", "seller_message": "Payment complete.", "type": "authorized" },
        }),
        "checkout.session.completed" => json!({
            "id": format!("cs_test_{id}"), "object": "checkout.session", "amount_subtotal": amount, "amount_total": amount, "currency": "usd",
            "client_reference_id": entity.user, "customer": format!("cus_{id}"), "customer_details": billing, "mode": "payment", "payment_intent": intent,
            "payment_status": word, "status": "complete", "metadata": {}, "success_url": "https://example.com/success", "payment_method_types": ["card"],
        }),
        _ if entity.dispute => json!({
            "id": format!("dp_{id}"), "object": "dispute", "amount": amount, "balance_transactions": [], "charge": format!("ch_{id}"), "currency": "usd",
            "evidence_details": { "due_by": at.timestamp() + 604_800, "has_evidence": false, "past_due": false, "submission_count": 0 },
            "is_charge_refundable": false, "livemode": false, "metadata": {}, "payment_intent": intent, "reason": "fraudulent", "status": word,
            "evidence": { "customer_email_address": format!("{}@example.com", entity.user), "customer_name": null, "product_description": null, "uncategorized_text": null },
        }),
        _ => json!({
            "id": intent, "object": "payment_intent", "amount": amount, "amount_capturable": 0, "amount_received": amount, "capture_method": "automatic",
            "client_secret": null, "confirmation_method": "automatic", "created": at.timestamp(), "currency": "usd", "customer": null, "metadata": {},
            "payment_method_types": ["card", "link"], "receipt_email": format!("{}@example.com", entity.user), "shipping": billing, "status": word,
        }),
    };
    let body = json!({
        "id": event_id, "object": "event", "api_version": "2024-06-20", "created": at.timestamp(), "data": { "object": object }, "livemode": false,
        "pending_webhooks": 1, "request": { "id": format!("req_{id}"), "idempotency_key": null }, "type": event,
    });
    let dispute_id = entity.dispute.then(|| format!("dp_{id}"));
    Made {
        headers: vec![],
        body,
        event_id,
        user_id: format!("pi:{intent}"),
        order_id: intent,
        dispute_id,
    }
}

/// A number that an id's text stands for, above 2^53 as Shopify's may be.
fn number(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    }) >> 1
}

fn shopify(entity: &Entity, (event, word, canonical): Step) -> Made {
    let Entity {
        id, amount, at, step, ..
    } = entity;
    let (shop, order) = ("hookmill-test.myshopify.com", number(id));
    let fulfilment = (canonical == "fulfilled").then_some("fulfilled");
    let body = if entity.dispute {
        json!({
            "id": order - 1, "order_id": order, "type": "chargeback", "amount": major(*amount), "currency": "USD", "reason": "fraudulent",
            "network_reason_code": "4837", "status": word, "evidence_due_by": rfc3339(*at), "evidence_sent_on": null, "finalized_on": null, "initiated_at": rfc3339(*at),
        })
    } else {
        json!({
            "id": order, "admin_graphql_api_id": format!("gid://shopify/Order/{order}"), "cancelled_at": null, "confirmed": true, "contact_email": format!("{}@example.com", entity.user),
            "created_at": rfc3339(*at), "currency": "USD", "current_subtotal_price": major(*amount), "current_total_price": major(*amount), "current_total_tax": "0.00",
            "customer": { "id": order / 7, "email": format!("{}@example.com", entity.user), "first_name": "John", "last_name": "Smith", "state": "disabled", "verified_email": true },
            "financial_status": word, "fulfillment_status": fulfilment, "name": "#9999", "order_number": 1234, "test": true, "total_price": major(*amount),
            "updated_at": rfc3339(*at), "billing_address": address(entity), "shipping_address": address(entity),
            "line_items": [{ "id": 866_550_311_766_439_020_u64, "name": "IPod Nano - 8GB", "price": major(*amount), "quantity": 1, "sku": "IPOD2008PINK", "taxable": true, "variant_id": 808_950_810 }],
        })
    };
    let unique = format!("{id}s{step}");
    let headers = vec![
        ("x-shopify-topic", event.to_owned()),
        ("x-shopify-shop-domain", shop.to_owned()),
        ("x-shopify-event-id", unique.clone()),
        ("x-shopify-webhook-id", format!("delivery-{unique}")),
        ("x-shopify-triggered-at", rfc3339(*at)),
    ];
    let order_id = format!("{shop}/{order}");
    let dispute_id = entity.dispute.then(|| format!("{shop}/{}", order - 1));
    Made {
        headers,
        body,
        event_id: format!("{unique}:{event}"),
        user_id: format!("order:{order_id}"),
        order_id,
        dispute_id,
    }
}

fn square(entity: &Entity, (event, word, _): Step) -> Made {
    let Entity {
        id, amount, at, step, ..
    } = entity;
    let (merchant, event_id) = ("6SSW7HV8K2ST5", format!("sq-{id}s{step}"));
    let (order, payment, dispute) = (format!("order{id}"), format!("payment{id}"), format!("dispute{id}"));
    let money = json!({ "amount": amount, "currency": "USD" });
    let (kind, data_id, object) = match event {
        "order.created" => (
            "order_created",
            &order,
            json!({ "order_created": { "created_at": rfc3339(*at), "location_id": "FPYCBCHYMXFK1", "order_id": order, "state": word, "version": step + 1 } }),
        ),
        "order.updated" => (
            "order_updated",
            &order,
            json!({ "order_updated": { "created_at": rfc3339(*at), "location_id": "FPYCBCHYMXFK1", "order_id": order, "state": word, "updated_at": rfc3339(*at), "version": step + 1 } }),
        ),
        _ if entity.dispute => (
            "dispute",
            &dispute,
            json!({ "dispute": {
                "amount_money": money, "brand_dispute_id": "r9rKGSBBQbywBNnWWIiGFg", "card_brand": "VISA", "created_at": rfc3339(*at), "disputed_payment": { "payment_id": payment },
                "due_at": rfc3339(*at), "id": dispute, "location_id": "VJDQQP3CG14EY", "reason": "NO_KNOWLEDGE", "reported_at": rfc3339(*at), "state": word, "updated_at": rfc3339(*at), "version": step + 1,
            } }),
        ),
        _ => (
            "payment",
            &payment,
            json!({ "payment": {
                "amount_money": money, "approved_money": money, "capabilities": ["EDIT_TIP_AMOUNT", "EDIT_TIP_AMOUNT_UP"], "created_at": rfc3339(*at), "delay_action": "CANCEL", "delay_duration": "PT168H",
                "card_details": { "avs_status": "AVS_ACCEPTED", "card": { "bin": "540988", "card_brand": "MASTERCARD", "card_type": "CREDIT", "exp_month": 11, "exp_year": 2028, "last_4": "9029" }, "cvv_status": "CVV_ACCEPTED", "entry_method": "KEYED" },
                "id": payment, "location_id": "S8GWD5R9QB376", "order_id": order, "receipt_number": "hYy9", "source_type": "CARD", "status": word, "total_money": money, "updated_at": rfc3339(*at), "version": step + 1,
            } }),
        ),
    };
    let body = json!({
        "merchant_id": merchant, "type": event, "event_id": event_id, "created_at": rfc3339(*at),
        "data": { "type": kind, "id": data_id, "object": object },
    });
    let (key, order_id) = if entity.dispute {
        (format!("payment:{merchant}/{payment}"), format!("payment:{payment}"))
    } else {
        (format!("order:{merchant}/{order}"), order)
    };
    Made {
        headers: vec![],
        body,
        event_id,
        user_id: key,
        order_id,
        dispute_id: entity.dispute.then_some(dispute),
    }
}

fn razorpay(entity: &Entity, (event, word, _): Step) -> Made {
    let Entity {
        id, amount, at, step, ..
    } = entity;
    let (order, payment, dispute, event_id) = (
        format!("order_{id}"),
        format!("pay_{id}"),
        format!("disp_{id}"),
        format!("rzp-{id}s{step}"),
    );
    let state = if event.starts_with("payment.dispute") || event == "order.paid" {
        "captured"
    } else {
        word
    };
    let mut payload = json!({ "payment": { "entity": {
        "id": payment, "entity": "payment", "amount": amount, "currency": "INR", "status": state, "order_id": order, "invoice_id": null, "international": false,
        "method": "netbanking", "amount_refunded": 0, "refund_status": null, "captured": state == "captured", "description": null, "card_id": null, "bank": "HDFC",
        "email": format!("{}@example.com", entity.user), "contact": "+919876543210", "notes": [], "fee": 2, "tax": 0, "error_code": null, "created_at": at.timestamp(),
    } } });
    if event == "order.paid" {
        payload["order"] = json!({ "entity": {
            "id": order, "entity": "order", "amount": amount, "amount_paid": amount, "amount_due": 0, "currency": "INR", "receipt": "rcptid #1", "status": word, "attempts": 1, "notes": [], "created_at": at.timestamp(),
        } });
    }
    if entity.dispute {
        payload["dispute"] = json!({ "entity": {
            "id": dispute, "entity": "dispute", "payment_id": payment, "amount": amount, "currency": "INR", "amount_deducted": 0, "reason_code": "chargeback", "respond_by": at.timestamp(), "status": word, "phase": "chargeback", "created_at": at.timestamp(),
        } });
    }
    let body = json!({ "entity": "event", "account_id": "acc_BFQ7uQEaa7j2z7", "event": event, "contains": ["payment"], "payload": payload, "created_at": at.timestamp() });
    let headers = vec![("x-razorpay-event-id", event_id.clone())];
    Made {
        headers,
        body,
        event_id,
        user_id: format!("order:{order}"),
        order_id: order,
        dispute_id: entity.dispute.then_some(dispute),
    }
}

fn standard(entity: &Entity, (event, word, _): Step) -> Made {
    let Entity {
        id, amount, at, step, ..
    } = entity;
    let (order, dispute) = (format!("ord_{id}"), format!("dsp_{id}"));
    let mut data = json!({
        "id": if entity.dispute { &dispute } else { &order }, "order_id": order, "user_id": entity.user, "amount": amount, "currency": "EUR", "status": word, "version": step + 1,
        "shipping": address(entity), "billing": address(entity), "customer": { "email": format!("{}@example.com", entity.user), "name": "Zoë Müller" },
        "lines": [{ "sku": "TEA-001", "name": "Darjeeling, first flush", "quantity": 2, "unit_amount": amount / 2 }, { "sku": "CUP-007", "name": "Porcelain cup", "quantity": 1, "unit_amount": 0 }],
    });
    if entity.dispute {
        data["dispute_id"] = json!(dispute);
    }
    let body = json!({ "type": event, "timestamp": rfc3339(*at), "data": data });
    Made {
        headers: vec![],
        body,
        event_id: format!("msg_{id}s{step}"),
        user_id: entity.user.clone(),
        order_id: order,
        dispute_id: entity.dispute.then_some(dispute),
    }
}
