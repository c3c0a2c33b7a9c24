//! The mistakes in the settings, and where they are.
//!
//! The text of a mistake is printed as it is. The code that makes it must keep secrets out of it.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from. The order is that of the layers: a later one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Default,
    /// A file, with the line if it is known.
    File(PathBuf, Option<usize>),
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::File(path, None) => write!(f, "{}", path.display()),
            Place::File(path, Some(line)) => write!(f, "{} line {line}", path.display()),
            Place::Environment(variable) => write!(f, "environment {variable}"),
            Place::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A mistake in the settings. It never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    pub(super) place: Place,
    /// The setting's full name, or the text found in its place. Empty for a mistake about the whole file.
    pub(super) key: String,
    pub(super) message: String,
}

impl Mistake {
    pub(super) fn new(place: &Place, key: &str, message: impl Into<String>) -> Self {
        Self { place: place.clone(), key: key.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { place, key, message } = self;
        match place {
            // The name of a variable or a flag already shows which setting it is.
            Place::Environment(_) | Place::Flag(_) => write!(f, "{place}: {message}"),
            _ if key.is_empty() => write!(f, "{place}: {message}"),
            _ => write!(f, "{place}: {key}: {message}"),
        }
    }
}

/// All mistakes in the settings, in the order of the layers. Displayed as one line each.
#[derive(Debug)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn new(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort();
        mistakes.dedup();
        Self(mistakes)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Mistake::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}
