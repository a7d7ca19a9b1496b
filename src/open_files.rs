//! The system's limit of open files, which bounds connections: raised as far as it lets us, and told where it does not.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// Files beside the listeners' connections: logs, Kafka's and the shards' connections, and room for some.
const BESIDE: usize = 512;

/// Raises the limit for this process to what the system allows, and says what that is.
pub fn raise() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return usize::MAX;
    };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}

/// How many webhook connections there is room for under a limit of `files`, where that is less than configured; and what
/// to do about it.
pub fn too_few(config: &Config, files: usize) -> Option<(usize, String)> {
    let wanted = config.ingest.max_connections;
    let beside = config.admin.max_connections + BESIDE;
    let room = files.saturating_sub(beside).max(1);
    (config.services.ingest && room < wanted).then(|| {
        let advice = format!(
            "ingest.max_connections = {wanted} needs {} open files and the system allows {files}: there will be at most {room} connections; \
             raise the limit (ulimit -n, LimitNOFILE), or lower ingest.max_connections",
            wanted + beside
        );
        (room, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_rest() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
        let config = Config::load(&path).expect("the shipped config.toml is right");
        assert_eq!(too_few(&config, usize::MAX), None);
        assert_eq!(too_few(&config, 16384 + 256 + BESIDE), None);
        let (room, advice) = too_few(&config, 1024).expect("too few");
        assert_eq!(room, 256);
        assert!(
            advice.contains("ulimit -n") && advice.contains("256 connections"),
            "{advice}"
        );
    }
}
