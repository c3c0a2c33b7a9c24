//! Stops a cluster when the test process ends, however it ends.
//!
//! Rust does not drop statics, so a small shell script, the watcher, keeps the cluster. Its standard input is
//! a pipe from the test process. When the pipe closes, by a drop or by the kernel after a `kill -9`, the
//! watcher stops the server and removes the directory. The watcher also makes the directory and starts the
//! server itself, so there is never a directory or server that it does not know about.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A shell that handles requests while this process lives, and cleans up after it.
pub(super) struct Watcher {
    shell: Child,
    answers: BufReader<ChildStdout>,
}

impl Watcher {
    pub(super) fn command<'a>(script: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("tollgate-test-watcher").args(arguments);
        command
    }

    /// Starts the shell in its own process group, so that a signal to the tests' group does not kill it, and
    /// in a working directory that any user may read.
    pub(super) fn spawn(mut command: Command) -> Self {
        let mut shell = command
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("every Unix has a shell");
        let answers = BufReader::new(shell.stdout.take().expect("it was piped above"));
        Self { shell, answers }
    }

    pub(super) fn ask(&mut self, request: &str) -> bool {
        let stdin = self.shell.stdin.as_mut().expect("it is closed only by the drop");
        writeln!(stdin, "{request}").expect("the watcher reads until its input ends");
        self.answer() == "ok"
    }

    pub(super) fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the watcher writes UTF-8");
        assert!(
            line.ends_with('\n'),
            "the watcher ended before it answered; its message is on standard error"
        );
        line.truncate(line.len() - 1);
        line
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Waiting first closes the pipe, which tells the shell to clean up. A failure cannot be reported
        // here.
        self.shell.wait().ok();
    }
}
