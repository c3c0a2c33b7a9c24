//! Starts the program as a process, reads its output, signals it and kills it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Database;
use super::app::TOKEN_KEY;

/// Longer than anything that the tests wait for, even on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// `tollgate` with these arguments and an empty environment.
pub(crate) fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("the program was built for this test")
}

/// The standard output of a command, which must succeed.
#[track_caller]
pub(crate) fn stdout_of(command: &mut Command) -> String {
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// A process of `tollgate serve` or `demo`, which is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Server {
    /// Starts `tollgate serve` on a free port and waits until it is ready.
    pub(crate) fn serve(database: &Database) -> Self {
        Self::start(&mut Self::command("serve", database))
    }

    /// Starts a `serve` command and waits until the server is ready.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::spawn(command).once_ready(|server| {
            // The log may be text or JSON.
            let names = ["listen=", "\"listen\":\""];
            let is_ready =
                |line: &str| line.contains("ready") && names.iter().any(|name| line.contains(name));
            let line = server.stderr.wait_for(is_ready)?;
            names.iter().find_map(|name| address_in(&line, name))
        })
    }

    /// `tollgate serve` with its log sent elsewhere. The caller has to wait until it listens.
    pub(crate) fn with_log_to(mut command: Command, address: SocketAddr, log: impl Into<Stdio>) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(log).spawn().expect("the program was built for this test");
        // Nothing is written to it, and like standard error it closes when the process ends.
        let stdout = Lines::read(child.stdout.take().expect("it was piped above"));
        Self { address, child, stderr: stdout.clone(), stdout }
    }

    /// Starts a `serve` command without waiting for anything.
    pub(crate) fn begin(command: &mut Command) -> Self {
        Self::spawn(command)
    }

    /// Starts `tollgate demo` on a free port, and returns the text that it printed.
    pub(crate) fn demo(database: &Database) -> (Self, String) {
        let server = Self::spawn(&mut Self::command("demo", database)).once_ready(|server| {
            // Wait for the last line of either text. The first line has the address.
            server.stdout.wait_for(|line| line.contains("start again") || line.contains("fresh demo"))?;
            address_in(&server.stdout.text(), "Tollgate demo on http://")
        });
        let printed = server.stdout.text();
        (server, printed)
    }

    /// The command line of a server on `database`, for tests that add to it.
    pub(crate) fn command(what: &str, database: &Database) -> Command {
        let directory = database.directory().to_str().expect("temporary directories have plain names");
        let mut command = tollgate(&[
            what,
            "--listen=127.0.0.1:0",
            &format!("--data-dir={directory}"),
            &format!("--database-url={}", database.url),
        ]);
        if what == "serve" {
            command.env("TOLLGATE__TOKENS__KEYS", hex::encode(TOKEN_KEY));
        }
        command
    }

    /// A command other than `serve` and `demo`, for the database and the token keys of a server on
    /// `database`.
    pub(crate) fn command_of(arguments: &[&str], database: &Database) -> Command {
        let mut command = tollgate(arguments);
        let directory = database.directory().to_str().expect("temporary directories have plain names");
        command.arg(format!("--data-dir={directory}")).arg(format!("--database-url={}", database.url));
        command.env("TOLLGATE__TOKENS__KEYS", hex::encode(TOKEN_KEY));
        command
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built for this test");
        let stdout = Lines::read(child.stdout.take().expect("it was piped above"));
        let stderr = Lines::read(child.stderr.take().expect("it was piped above"));
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), child, stdout, stderr }
    }

    fn once_ready(mut self, address: impl FnOnce(&Self) -> Option<SocketAddr>) -> Self {
        match address(&self) {
            Some(address) => self.address = address,
            None => panic!("it did not start:\n{}\n{}", self.stdout.text(), self.stderr.text()),
        }
        self
    }

    /// Waits until a line of its log contains `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        assert!(
            self.stderr.wait_for(|line| line.contains(text)).is_some(),
            "no {text:?} in:\n{}",
            self.log()
        );
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.stderr.text()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child that was not waited for can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// SIGTERM, as from a service manager.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .expect("every Unix has `kill`");
        assert!(status.success(), "the server was gone already");
    }

    /// Waits until it ends, and returns its status and its log.
    pub(crate) fn ended_within(mut self, limit: Duration) -> (ExitStatus, String) {
        // Its standard error closes only when it ends.
        assert!(self.stderr.wait_for_end(limit), "still running after {limit:?}:\n{}", self.stderr.text());
        let status = self.child.wait().expect("a child that was not waited for has a status");
        (status, self.stderr.text())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address that follows `before`.
fn address_in(text: &str, before: &str) -> Option<SocketAddr> {
    let rest = text.split(before).nth(1)?;
    rest.split(|c: char| c.is_whitespace() || c == '"').next()?.parse().ok()
}

/// The output of a process. A thread collects it, so that the process never waits for its reader.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn read(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                writer.change(|collected| collected.lines.push(line));
            }
            writer.change(|collected| collected.ended = true);
        });
        lines
    }

    fn change(&self, change: impl FnOnce(&mut Collected)) {
        let (collected, changed) = &*self.0;
        change(&mut collected.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    /// The first line that matches `wanted`. `None` if the output ends without one.
    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.wait(PATIENCE, |collected| {
            let line = collected.lines.iter().find(|line| wanted(line)).cloned();
            (line.is_some() || collected.ended).then_some(line)
        })
        .flatten()
    }

    fn wait_for_end(&self, limit: Duration) -> bool {
        self.wait(limit, |collected| collected.ended.then_some(())).is_some()
    }

    fn wait<T>(&self, limit: Duration, outcome: impl Fn(&Collected) -> Option<T>) -> Option<T> {
        let until = Instant::now() + limit;
        let (collected, changed) = &*self.0;
        let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = outcome(&collected) {
                return Some(outcome);
            }
            let left = until.checked_duration_since(Instant::now())?;
            collected = changed.wait_timeout(collected, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn text(&self) -> String {
        let (collected, _) = &*self.0;
        collected.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }
}
