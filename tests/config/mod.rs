//! Settings: which layer wins, which values are refused, and that no secret is shown.

mod layers;
mod mistakes;
mod values;

use std::fs;

use tempfile::TempDir;
use tollgate::config::{Flag, Settings, Sources};

const DEFAULTS: &str = include_str!("../../config/default.toml");
const PASSWORD: &str = "correct-horse";
const URL: &str = "postgres://tollgate:correct-horse@db/tollgate";
const KEY_1: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const KEY_2: &str = "abABabABabABabABabABabABabABabABabABabABabABabABabABabABabABabAB";

/// The sources of one start of the server, and the directory that its files are in.
struct Start {
    directory: TempDir,
    sources: Sources,
}

fn start() -> Start {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    Start { directory, sources: Sources::default() }
}

impl Start {
    fn file(mut self, contents: &str) -> Self {
        self.sources.file = Some(self.path("tollgate.toml").into());
        self.other_file("tollgate.toml", contents)
    }

    fn other_file(self, name: &str, contents: &str) -> Self {
        fs::write(self.path(name), contents).expect("a file in the temporary directory can be written");
        self
    }

    fn env(mut self, variable: &str, value: &str) -> Self {
        self.sources.environment.push((variable.into(), value.into()));
        self
    }

    fn flag(mut self, key: &'static str, name: &'static str, value: &str) -> Self {
        self.sources.flags.push(Flag { key, name, value: value.to_owned() });
        self
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn loads(&self) -> Settings {
        Settings::load(&self.sources).unwrap_or_else(|mistakes| panic!("refused:\n{mistakes}"))
    }

    /// The mistakes, with the temporary directory shortened to `DIR`.
    fn mistakes(&self) -> Vec<String> {
        let mistakes = Settings::load(&self.sources).expect_err("these settings have a mistake");
        assert_eq!(mistakes.to_string().lines().count(), mistakes.iter().count());
        mistakes.to_string().lines().map(|line| self.shortened(line)).collect()
    }

    fn explained(&self) -> Vec<String> {
        self.loads().explain().lines().map(|line| self.shortened(line)).collect()
    }

    fn shortened(&self, line: &str) -> String {
        line.replace(&self.directory.path().display().to_string(), "DIR")
    }
}
