//! The measured program: its database with a merchant, and the process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::postgres::Cluster;
use crate::{Engine, cpu};

/// PostgreSQL settings in addition to those of the tests: more memory, and more time between checkpoints.
const POSTGRES_SETTINGS: [&str; 3] = [
    "alter system set shared_buffers = '256MB'",
    "alter system set max_wal_size = '4GB'",
    "alter system set checkpoint_timeout = '30min'",
];

/// A database, and the command lines to work on it.
pub(crate) struct Home<'a> {
    program: &'a Path,
    cache_mib: u32,
    directory: TempDir,
    cluster: Option<Cluster>,
    url: String,
}

impl<'a> Home<'a> {
    pub(crate) fn new(engine: Engine, program: &'a Path, cache_mib: u32) -> Self {
        let directory = tempfile::tempdir().expect("there is a place for temporary files");
        let (cluster, url) = match engine {
            Engine::Sqlite => (None, format!("sqlite://{}", directory.path().join("tollgate.db").display())),
            Engine::Postgres => {
                let cluster = Cluster::start();
                let url = cluster.database();
                crate::floor::set_up(&url, &POSTGRES_SETTINGS);
                cluster.stop_immediate();
                cluster.start_again();
                (Some(cluster), url)
            }
        };
        let home = Self { program, cache_mib, directory, cluster, url };
        let status = home.command(&["migrate"]).status().expect("the program was built for this");
        assert!(status.success(), "`tollgate migrate` failed");
        home
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(arguments)
            .arg(format!("--database-url={}", self.url))
            .arg(format!("--data-dir={}", self.directory.path().display()))
            .env_clear()
            .env("TOLLGATE__TOKENS__KEYS", "5a".repeat(32))
            .env("TOLLGATE__LIMITS__NEW_SESSIONS_PER_CLIENT_PER_MINUTE", "0")
            .env("TOLLGATE__DATABASE__CACHE_MIB_MAX", self.cache_mib.to_string())
            .stdin(Stdio::null());
        command
    }
}

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port of the loopback interface is free")
}

/// Returns once somebody listens there.
pub(crate) fn wait_for(address: SocketAddr) {
    while TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `tollgate serve`, killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    ops: SocketAddr,
    child: Child,
    postmaster: Option<u32>,
}

impl Server {
    pub(crate) fn start(home: &Home<'_>) -> Self {
        let [address, ops] = [(); 2].map(|()| free_address());
        // It logs with the default settings, to a file.
        let log = File::create(home.directory.path().join("log")).expect("a directory of our own");
        let child = home
            .command(&["serve", &format!("--listen={address}")])
            .env("TOLLGATE__OPS__LISTEN", ops.to_string())
            .stdout(log.try_clone().expect("a file that is open"))
            .stderr(log)
            .spawn()
            .expect("the program was built for this");
        let postmaster = home.cluster.as_ref().map(|_| crate::floor::postmaster(&home.url));
        let server = Self { address, ops, child, postmaster };
        wait_for(address);
        server
    }

    /// The value of a metric without labels, or with these.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.ops).expect("the server has a listener for operations");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n")
            .expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("metrics are text");
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
        value.parse().expect("a counter")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn postmaster(&self) -> Option<u32> {
        self.postmaster
    }

    /// Returns once the server has next to nothing to do, or will not for a while. While it sweeps it always
    /// has something, and that is to be measured: so not for long.
    pub(crate) fn settle(&self) {
        for _ in 0..12 {
            let before = cpu::of_process(self.pid());
            std::thread::sleep(Duration::from_millis(150));
            if cpu::of_process(self.pid()) - before <= 0.01 {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A failure cannot be reported here.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
