//! Ways into the servers that ask for TLS and a password, beside the open ones.

use std::path::Path;

use anyhow::{Context, Result};

use crate::tls::Issued;

/// Who may come in by TLS, and what the servers show. To Kafka (`SASL_SSL`, by PLAIN or SCRAM-SHA-512) as well as to
/// Postgres, which takes this user in no other way.
#[derive(Clone, Debug)]
pub struct Secure {
    /// The servers' certificate.
    pub issued: Issued,
    /// The user.
    pub user: String,
    /// Its password; without quotes and commas.
    pub password: String,
}

impl Secure {
    /// What a broker's configuration says beside the rest, for its listener SECURE on `port`.
    pub(super) fn of_broker(&self, dir: &Path) -> Result<String> {
        let Self { issued, user, password } = self;
        // Kafka wants key and certificate in one file.
        let both = dir.join("kafka-secure.pem");
        let key = std::fs::read_to_string(&issued.key).with_context(|| issued.key.display().to_string())?;
        let certificate = std::fs::read_to_string(&issued.certificate)?;
        std::fs::write(&both, format!("{key}{certificate}"))?;
        let (both, security) = (both.display(), "org.apache.kafka.common.security");
        Ok(format!(
            "listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={both}
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config={security}.plain.PlainLoginModule required user_{user}=\"{password}\";
listener.name.secure.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;
"
        ))
    }

    /// The user as the tool that formats Kafka's storage takes it.
    pub(super) fn scram(&self) -> String {
        format!("SCRAM-SHA-512=[name={},password={}]", self.user, self.password)
    }

    /// Who may come to a shard: this user by TLS and password only, all others as before.
    pub(super) fn hba(&self) -> String {
        let user = &self.user;
        format!("hostssl all {user} all scram-sha-256\nhost all {user} all reject\nhost all all 127.0.0.1/32 trust\n")
    }

    /// Makes the user on a shard, where it is not there yet.
    pub(super) fn role(&self) -> String {
        let Self { user, password, .. } = self;
        format!(
            "DO $$ BEGIN CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'; EXCEPTION WHEN duplicate_object THEN END $$"
        )
    }
}
