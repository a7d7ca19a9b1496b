"""Signs webhooks with the providers' own libraries: a JSON array of jobs on standard input, their headers on standard output.

A library that only verifies is asked whether it accepts what was made by its provider's description.
"""

import base64
import datetime
import hashlib
import hmac
import json
import sys

import razorpay
import standardwebhooks
import stripe
import svix
from Adyen.util import generate_notification_sig
from paddle_billing.Notifications.PaddleSignature import PaddleSignature
from square.utils.webhooks_helper import verify_signature


def digest(secret, text):
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256)


def standard(webhook, prefix, job):
    at = datetime.datetime.fromtimestamp(job["at"], datetime.timezone.utc)
    return {
        f"{prefix}-id": job["id"],
        f"{prefix}-timestamp": str(job["at"]),
        f"{prefix}-signature": webhook.sign(job["id"], at, job["body"]),
    }


def sign_stripe(job):
    header = stripe.WebhookSignature.generate_signature_header(job["body"], job["secret"], job["at"])
    return {"stripe-signature": header}


def sign_square(job):
    signature = base64.b64encode(digest(job["secret"], job["url"] + job["body"]).digest()).decode()
    assert verify_signature(
        request_body=job["body"],
        signature_header=signature,
        signature_key=job["secret"],
        notification_url=job["url"],
    )
    return {"x-square-hmacsha256-signature": signature}


def sign_razorpay(job):
    signature = digest(job["secret"], job["body"]).hexdigest()
    assert razorpay.Utility().verify_webhook_signature(job["body"], signature, job["secret"])
    return {"x-razorpay-signature": signature}


def sign_paddle(job):
    text = f"{job['at']}:{job['body']}".encode()
    return {"paddle-signature": f"ts={job['at']};h1={PaddleSignature.calculate_hmac(job['secret'], text).hexdigest()}"}


def sign_adyen(job):
    request = json.loads(job["body"])
    for wrapper in request["notificationItems"]:
        item = wrapper["NotificationRequestItem"]
        signature = generate_notification_sig(item, job["secret"]).decode()
        item.setdefault("additionalData", {})["hmacSignature"] = signature
    return {"body": json.dumps(request)}


LIBRARIES = {
    "stripe": sign_stripe,
    "standardwebhooks": lambda job: standard(standardwebhooks.Webhook(job["secret"]), "webhook", job),
    "svix": lambda job: standard(svix.Webhook(job["secret"]), "svix", job),
    "square": sign_square,
    "razorpay": sign_razorpay,
    "paddle": sign_paddle,
    "adyen": sign_adyen,
}

print(json.dumps([LIBRARIES[job["library"]](job) for job in json.load(sys.stdin)]))
