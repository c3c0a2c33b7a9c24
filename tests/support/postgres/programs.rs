//! Finds PostgreSQL's programs, and the user to run them as.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) fn psql(program: &Path, url: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", url]);
    command
}

pub(super) fn execute(mut psql: Command, sql: &str) -> String {
    let output = psql.arg("--command").arg(sql).stdin(Stdio::null()).output().expect("psql was found before");
    assert!(output.status.success(), "psql: `{sql}` failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Removes the developer's own `PGHOST`, `PGOPTIONS` and so on, which are for other servers.
pub(super) fn forget_libpq_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
}

pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Makes a command run as a user who is not root, and gives that user the directory.
pub(crate) fn run_unprivileged(command: &mut Command, directory: &Path) {
    if let Some(user) = unprivileged_user() {
        std::os::unix::fs::chown(directory, Some(user.uid), Some(user.gid))
            .expect("root may give files away");
        command.uid(user.uid).gid(user.gid);
    }
}

/// The user to run the server as if we are root, because PostgreSQL refuses to run as root.
pub(super) fn unprivileged_user() -> Option<User> {
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let user = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some(User { uid: id(&["-u", name])?, gid: id(&["-g", name])? }))
        .expect("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`");
    Some(user)
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().expect("every Unix has `id`");
    str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
}

/// The path of one of PostgreSQL's programs.
pub(crate) fn program(name: &str) -> PathBuf {
    directory_of(name).join(name)
}

/// The directory of a program of PostgreSQL: `PGBIN` if it has the program, or else the newest version from the
/// distribution's packages, or else the first directory on `PATH`.
pub(super) fn directory_of(program: &str) -> PathBuf {
    let given = env::var_os("PGBIN").and_then(|given| path::absolute(given).ok());
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&on_path).filter(|path| path.is_absolute());
    let candidates: Vec<PathBuf> = given.into_iter().chain(packaged_versions()).chain(on_path).collect();
    candidates.into_iter().find(|directory| directory.join(program).is_file()).unwrap_or_else(|| {
        panic!(
            "the tests need PostgreSQL, and `{program}` is neither in PGBIN nor in \
                 /usr/lib/postgresql/*/bin or on PATH: `apt-get install postgresql-15`, \
                 or set TOLLGATE_TEST_POSTGRES_URL to a server on which they may create databases \
                 (`psql`, and the package for the tests that stop a server, are still needed)"
        )
    })
}

/// Debian's layout, the highest version first.
fn packaged_versions() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    versions.into_iter().map(|(_, bin)| bin).collect()
}
