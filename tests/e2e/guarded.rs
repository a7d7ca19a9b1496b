//! Nobody gets in: TLS of both listeners, of Kafka and of Postgres, tried on real servers with an authority made for the
//! occasion; the admin token; and secrets, which are said nowhere.

mod admin;
mod listeners;
mod secrets;
mod servers;
