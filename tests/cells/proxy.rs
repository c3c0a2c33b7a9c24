//! The proxies of `config/cells`, with their own files, in front of servers of a test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::RunningCell;

const HAPROXY: &str = include_str!("../../config/cells/haproxy.cfg");
const NGINX: &str = include_str!("../../config/cells/nginx.conf");
const NGINX_MODULE: &str = "/usr/lib/nginx/modules/ngx_http_js_module.so";
const FILES: [(&str, &str); 4] = [
    ("cells.js", include_str!("../../config/cells/cells.js")),
    ("cells.map", include_str!("../../config/cells/cells.map")),
    ("hosts.map", include_str!("../../config/cells/hosts.map")),
    ("moved.map", include_str!("../../config/cells/moved.map")),
];

/// A proxy in front of three cells, stopped when this is dropped.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    /// As in `tollgate cell move --proxy`.
    pub(super) name: &'static str,
    child: Child,
    directory: TempDir,
}

impl Proxy {
    pub(super) fn haproxy(cells: &[RunningCell]) -> Self {
        let (directory, address) = (directory_with_files(), free_address());
        let config = replaced(
            &with_servers(HAPROXY, cells, |line| line.contains("-b 10.0.")),
            &[
                (":8443 ssl crt /etc/haproxy/tls.pem alpn h2,http/1.1", &address.to_string()),
                ("/etc/haproxy/cells", path_of(&directory)),
            ],
        );
        let path = directory.path().join("haproxy.cfg");
        fs::write(&path, config).expect("the directory can be written to");
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-W", "-db", "-f"]).arg(path);
        Self::start(command, "haproxy", address, directory)
    }

    pub(super) fn nginx(cells: &[RunningCell]) -> Self {
        assert!(Path::new(NGINX_MODULE).exists(), "tests/run installs libnginx-mod-http-js");
        let (directory, address) = (directory_with_files(), free_address());
        let config = replaced(
            &with_servers(NGINX, cells, |line| line.contains(".12:8080") || line.contains("ssl_certificate")),
            &[("8443 ssl", &address.to_string()), ("/etc/nginx/cells", path_of(&directory))],
        );
        let path = directory.path().join("nginx.conf");
        fs::write(&path, in_context(&config, directory.path())).expect("the directory can be written to");
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(path).args(["-e", "stderr"]);
        Self::start(command, "nginx", address, directory)
    }

    /// The file that says what moved to another cell.
    pub(super) fn moved_map(&self) -> PathBuf {
        self.directory.path().join("moved.map")
    }

    /// A command that makes the proxy read its maps again.
    pub(super) fn reload(&self) -> String {
        let signal = if self.name == "nginx" { "HUP" } else { "USR2" };
        format!("kill -{signal} {}", self.child.id())
    }

    fn start(mut command: Command, name: &'static str, address: SocketAddr, directory: TempDir) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("tests/run installs the proxies");
        let proxy = Self { address, name, child, directory };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "the proxy does not listen");
        }
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM lets nginx end its workers too.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn directory_with_files() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory can be made");
    for (name, file) in FILES {
        fs::write(directory.path().join(name), file).expect("the directory can be written to");
    }
    directory
}

fn path_of(directory: &TempDir) -> &str {
    directory.path().to_str().expect("temporary directories have plain names")
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the system has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// The example with one server for each cell, without the lines of second servers.
fn with_servers(example: &str, cells: &[RunningCell], leave_out: impl Fn(&str) -> bool) -> String {
    let lines: Vec<_> = example.lines().filter(|line| !leave_out(line)).collect();
    let mut config = lines.join("\n") + "\n";
    for (number, cell) in (1..).zip(cells) {
        config = replaced(&config, &[(&format!("10.0.{number}.11:8080"), &cell.server.address.to_string())]);
    }
    config
}

fn replaced(example: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(example.to_owned(), |config, (from, to)| {
        assert!(config.contains(from), "the example no longer has {from:?}");
        config.replace(from, to)
    })
}

/// The rest of a configuration of nginx, which writes only below `directory`.
fn in_context(config: &str, directory: &Path) -> String {
    let directory = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {directory}/{what};\n"))
        .collect();
    format!(
        "load_module {NGINX_MODULE};\ndaemon off;\npid {directory}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{config}}}\n"
    )
}
