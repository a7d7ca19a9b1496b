//! A scenario's own topics, databases and consumer groups, and the product's program in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dev::process::{Process, Program};
use dev::stack::{Stack, free_ports};

use super::{Instance, scratch, secrets};

/// Topics, databases and consumer groups of one scenario.
#[derive(Clone)]
pub struct World {
    pub name: String,
    pub stack: Arc<Stack>,
    pub shard_urls: Vec<String>,
    pub brokers: String,
    pub partitions: (i32, i32),
    /// Variables that every instance gets.
    pub env: Vec<(String, String)>,
    /// The configuration of every instance; the shipped one unless another was given.
    pub config: PathBuf,
    logs: PathBuf,
}

impl World {
    /// A world with the shipped partition counts.
    pub async fn new(stack: &Arc<Stack>, name: &str) -> Self {
        Self::with_partitions(stack, name, (12, 6)).await
    }

    /// A world with other partition counts.
    pub async fn with_partitions(stack: &Arc<Stack>, name: &str, partitions: (i32, i32)) -> Self {
        let shard_urls = stack.create_databases(name).await.expect("databases");
        let logs = scratch().join("logs");
        std::fs::create_dir_all(&logs).expect("a folder for logs");
        Self {
            name: name.to_owned(),
            stack: stack.clone(),
            shard_urls,
            brokers: stack.brokers(),
            partitions,
            env: Vec::new(),
            config: Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml"),
            logs,
        }
    }

    /// From now on instances reach the servers by way of their proxies.
    pub fn through_proxies(mut self) -> Self {
        self.shard_urls = self.stack.proxied_shard_urls(&self.name);
        self.brokers = self.stack.proxied_brokers();
        self
    }

    /// Sets a variable for every instance.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives every instance the shipped configuration as `change` leaves it.
    pub fn configured(mut self, change: impl FnOnce(String) -> String) -> Self {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        self.config = self.logs.join(format!("{}.toml", self.name));
        std::fs::write(&self.config, change(text)).expect("the configuration can be written");
        self
    }

    /// The same world with the configuration at `path`.
    pub fn with_config(&self, path: &Path) -> Self {
        Self {
            config: path.to_owned(),
            ..self.clone()
        }
    }

    /// Where logs go.
    pub fn log_dir(&self) -> &Path {
        &self.logs
    }

    pub fn orders(&self) -> String {
        format!("{}.orders", self.name)
    }

    pub fn disputes(&self) -> String {
        format!("{}.disputes", self.name)
    }

    pub fn parked(&self) -> String {
        format!("{}.parked", self.name)
    }

    /// The topics with their partition counts, dead-letter topics last.
    pub fn topics(&self) -> Vec<(String, i32)> {
        let (orders, disputes) = self.partitions;
        vec![
            (self.orders(), orders),
            (self.disputes(), disputes),
            (format!("{}.DLQ", self.orders()), orders),
            (format!("{}.DLQ", self.disputes()), disputes),
        ]
    }

    /// The program, with the shipped configuration and this world's variables.
    pub fn program(&self, name: &str, command: &[&str], env: &[(&str, &str)]) -> Program {
        let log = self.logs.join(format!("{}-{name}.log", self.name));
        let mut program = Program::new(name, env!("CARGO_BIN_EXE_hookmill"), log);
        program = program
            .args(command.iter().copied())
            .args(["-c".into(), self.config.clone().into_os_string()]);
        program = program
            .env("HOOKMILL_KAFKA__BROKERS", &self.brokers)
            .env("HOOKMILL_KAFKA__GROUP_PREFIX", &self.name)
            .env("HOOKMILL_TOPICS__ORDERS__NAME", self.orders())
            .env("HOOKMILL_TOPICS__ORDERS__PARTITIONS", self.partitions.0.to_string())
            .env("HOOKMILL_TOPICS__DISPUTES__NAME", self.disputes())
            .env("HOOKMILL_TOPICS__DISPUTES__PARTITIONS", self.partitions.1.to_string())
            .env("HOOKMILL_TOPICS__PARKED__NAME", self.parked())
            .env("HOOKMILL_TOPICS__PARKED__PARTITIONS", "1")
            .env("HOOKMILL_SHARD_URLS", self.shard_urls.join(","))
            .env("HOOKMILL_INGEST__WORKERS", "1");
        for (source, secret) in secrets() {
            program = program.env(format!("HOOKMILL_SECRET_{}", source.to_uppercase()), secret);
        }
        for (name, value) in &self.env {
            program = program.env(name, value);
        }
        for (name, value) in env {
            program = program.env(*name, *value);
        }
        program
    }

    /// Starts an instance and does not wait for it.
    pub fn spawn(&self, name: &str, env: &[(&str, &str)]) -> Instance {
        let port = free_ports(1).expect("a port")[0];
        self.spawn_listening(name, &format!("127.0.0.1:{port}"), env)
    }

    /// The same with the operators' listener at `admin`.
    pub fn spawn_listening(&self, name: &str, admin: &str, env: &[(&str, &str)]) -> Instance {
        let port = free_ports(1).expect("a port")[0];
        let ingest = format!("127.0.0.1:{port}");
        let program = self.program(name, &["serve"], env);
        let program = program
            .env("HOOKMILL_INGEST__LISTEN", &ingest)
            .env("HOOKMILL_ADMIN__LISTEN", admin);
        let process = Process::spawn(program).expect("the product's binary starts");
        Instance {
            process,
            url: format!("http://{ingest}"),
            admin: format!("http://{admin}"),
            client: reqwest::Client::new(),
        }
    }

    /// Starts an instance and waits until it is ready.
    pub async fn start(&self, name: &str) -> Instance {
        self.start_with(name, &[]).await
    }

    /// The same with more variables.
    pub async fn start_with(&self, name: &str, env: &[(&str, &str)]) -> Instance {
        let instance = self.spawn(name, env);
        instance.ready().await;
        instance
    }

    /// The same of an instance that only takes webhooks.
    pub async fn start_taking(&self, name: &str) -> Instance {
        let only = [
            ("HOOKMILL_SERVICES__ORDERS", "false"),
            ("HOOKMILL_SERVICES__DISPUTES", "false"),
        ];
        self.start_with(name, &only).await
    }

    /// Runs a command to its end: exit code, standard output and error together.
    pub async fn run(&self, name: &str, command: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        // Ports that are free unless `env` says otherwise: the usual ones may be anybody's.
        let ports = free_ports(2).expect("ports");
        let [ingest, admin] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
        let mut all = vec![
            ("HOOKMILL_INGEST__LISTEN", ingest.as_str()),
            ("HOOKMILL_ADMIN__LISTEN", admin.as_str()),
        ];
        all.extend_from_slice(env);
        let program = self.program(name, command, &all);
        // A log of a former run would be taken for this one's.
        let _ = std::fs::remove_file(&program.log);
        let process = Process::spawn(program).expect("the product's binary starts");
        let status = process
            .wait(Duration::from_secs(60))
            .await
            .unwrap_or_else(|| panic!("{}", process.obituary()));
        let said = std::fs::read_to_string(process.log()).expect("it logs");
        (status.code().unwrap_or(-1), said)
    }
}
