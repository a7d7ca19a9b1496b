// Signs webhooks with the providers' own libraries: a JSON array of jobs on standard input, their headers on standard output.
// A library that only verifies is asked whether it accepts what was made by its provider's description.

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

import adyen from "@adyen/api-library";
import { sign as octokitSign } from "@octokit/webhooks-methods";
import { Paddle } from "@paddle/paddle-node-sdk";
import "@shopify/shopify-api/adapters/node";
import { createSHA256HMAC } from "@shopify/shopify-api/runtime";
import Razorpay from "razorpay";
import { WebhooksHelper } from "square";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";

const hmac = (secret, text, encoding) => createHmac("sha256", secret).update(text, "utf8").digest(encoding);

function accepted(library, verdict) {
  if (verdict !== true) throw new Error(`${library} does not accept the signature: ${verdict}`);
}

function standard(webhook, prefix, { id, at, body }) {
  return {
    [`${prefix}-id`]: id,
    [`${prefix}-timestamp`]: String(at),
    [`${prefix}-signature`]: webhook.sign(id, new Date(at * 1000), body),
  };
}

const libraries = {
  stripe: ({ secret, body, at }) => ({
    "stripe-signature": new Stripe("sk_test").webhooks.generateTestHeaderString({ payload: body, secret, timestamp: at }),
  }),
  standardwebhooks: (job) => standard(new StandardWebhook(job.secret), "webhook", job),
  svix: (job) => standard(new SvixWebhook(job.secret), "svix", job),
  octokit: async ({ secret, body }) => ({ "x-hub-signature-256": await octokitSign(secret, body) }),
  shopify: async ({ secret, body }) => ({ "x-shopify-hmac-sha256": await createSHA256HMAC(secret, body) }),
  square: async ({ secret, body, url }) => {
    const signature = hmac(secret, url + body, "base64");
    const question = { requestBody: body, signatureHeader: signature, signatureKey: secret, notificationUrl: url };
    accepted("square", await WebhooksHelper.verifySignature(question));
    return { "x-square-hmacsha256-signature": signature };
  },
  razorpay: ({ secret, body }) => {
    const signature = hmac(secret, body, "hex");
    accepted("razorpay", Razorpay.validateWebhookSignature(body, signature, secret));
    return { "x-razorpay-signature": signature };
  },
  paddle: async ({ secret, body, at }) => {
    const header = `ts=${at};h1=${hmac(secret, `${at}:${body}`, "hex")}`;
    // It takes nothing that is older than 5 s.
    if (Math.abs(Date.now() / 1000 - at) < 4) {
      accepted("paddle", await new Paddle("key").webhooks.isSignatureValid(body, secret, header));
    }
    return { "paddle-signature": header };
  },
  adyen: ({ secret, body }) => {
    const request = JSON.parse(body);
    for (const { NotificationRequestItem: item } of request.notificationItems) {
      item.additionalData = { ...item.additionalData, hmacSignature: new adyen.hmacValidator().calculateHmac(item, secret) };
    }
    return { body: JSON.stringify(request) };
  },
};

const signed = [];
for (const job of JSON.parse(readFileSync(0, "utf8"))) {
  signed.push(await libraries[job.library](job));
}
console.log(JSON.stringify(signed));
