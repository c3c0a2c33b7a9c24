//! Nothing of a server may outlive the test process, however that ends, and Rust drops no statics. So a
//! cluster is kept by a small shell, the watcher, whose standard input is a pipe that only the test
//! process holds: when the pipe closes, by a drop or by the kernel after a `kill -9`, the watcher
//! stops the server and removes the directory. It also does the starting, one request at a time, so
//! that it cannot miss a server that is only just coming up, and makes the directory, so that there
//! is none before somebody watches it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A shell that acts on requests while this process lives, and cleans up once it does not.
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

    /// In a process group of its own, so that what kills the tests' group does not take it along,
    /// and in a working directory that any user may read.
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
        // Waiting closes the pipe first, which is the signal to clean up. There is nobody to tell
        // of a failure.
        self.shell.wait().ok();
    }
}
