//! Reads typed values from the layers. Each key is read once, in every layer, and the reader remembers which
//! layer the effective value came from.
//!
//! Each method takes a key from `config/default.toml` and panics on any other. A value that fails its check
//! becomes a mistake, and reading continues with the next key. [`Reader::finish`] reports all mistakes.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use chrono::TimeDelta;
use zeroize::Zeroizing;

use super::layers::{Layer, Setting, Sources, Value, gather};
use super::mistakes::{Mistake, Mistakes, Place};
use super::values::BadValue;

const BYTE_ORDER_MARK: char = '\u{feff}';

const ALL_KEYS: &str =
    "config/default.toml holds every key that is read, with a value of its type that passes";

/// The effective value of one key, as it is displayed, and where it came from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) key: &'static str,
    pub(super) shown: String,
    pub(super) place: Place,
}

/// The layers while they are read.
pub(super) struct Reader {
    /// Lowest first.
    layers: Vec<Layer>,
    mistakes: Vec<Mistake>,
    origins: Vec<Origin>,
}

impl Reader {
    pub(super) fn new(sources: &Sources) -> Self {
        let (layers, mistakes) = gather(sources);
        Self { layers, mistakes, origins: Vec::new() }
    }

    /// Where each value came from, in the order of reading, or all mistakes.
    pub(super) fn finish(self) -> Result<Vec<Origin>, Mistakes> {
        if self.mistakes.is_empty() { Ok(self.origins) } else { Err(Mistakes::new(self.mistakes)) }
    }

    pub(super) fn text<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, BadValue>) -> T {
        self.read(key, |value| match value {
            Value::Text(text) => Some(parse(text)),
            _ => None,
        })
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>) -> u32 {
        self.read(key, |value| match value {
            Value::Number(number) => Some(match u32::try_from(*number) {
                Ok(fitting) if range.contains(&fitting) => Ok(fitting),
                _ => {
                    let (min, max) = (range.start(), range.end());
                    Err(BadValue(format!("{number} is not in the range from {min} to {max}")))
                }
            }),
            _ => None,
        })
    }

    /// A number from 0 to `max`. `None` if it is -1.
    pub(super) fn number_if_any(&mut self, key: &'static str, max: u32) -> Option<u32> {
        self.read(key, |value| match value {
            Value::Number(-1) => Some(Ok(None)),
            Value::Number(number) => Some(match u32::try_from(*number) {
                Ok(fitting) if fitting <= max => Ok(Some(fitting)),
                _ => Err(BadValue(format!("{number} is not in the range from -1 to {max}"))),
            }),
            _ => None,
        })
    }

    /// A share, from 0 to 1.
    pub(super) fn share(&mut self, key: &'static str) -> f64 {
        self.read(key, |value| match value {
            Value::Share(share) if (0.0..=1.0).contains(share) => Some(Ok(*share)),
            Value::Share(share) => Some(Err(BadValue(format!("{share} is not in the range from 0 to 1")))),
            _ => None,
        })
    }

    /// A number of seconds.
    pub(super) fn duration(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Duration {
        Duration::from_secs(self.number(key, range).into())
    }

    /// A number of seconds, for arithmetic with timestamps.
    pub(super) fn time_delta(&mut self, key: &'static str, range: RangeInclusive<u32>) -> TimeDelta {
        TimeDelta::seconds(self.number(key, range).into())
    }

    pub(super) fn days(&mut self, key: &'static str, range: RangeInclusive<u32>) -> TimeDelta {
        TimeDelta::days(self.number(key, range).into())
    }

    pub(super) fn switch(&mut self, key: &'static str) -> bool {
        self.read(key, |value| match value {
            Value::Switch(switch) => Some(Ok(*switch)),
            _ => None,
        })
    }

    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        entries_max: usize,
        parse: impl Fn(&str) -> Result<T, BadValue>,
    ) -> Vec<T> {
        self.read(key, |value| match value {
            Value::List(entries) if entries.len() > entries_max => {
                let count = entries.len();
                Some(Err(BadValue(format!("{count} entries are more than {entries_max}"))))
            }
            Value::List(entries) => {
                let (mut parsed, mut bad) = (Vec::new(), Vec::new());
                for entry in entries {
                    match parse(entry) {
                        Ok(entry) => parsed.push(entry),
                        Err(error) => bad.push(error.to_string()),
                    }
                }
                Some(if bad.is_empty() { Ok(parsed) } else { Err(BadValue(bad.join("; "))) })
            }
            _ => None,
        })
    }

    /// The names in their order, and the descriptions of those that have one.
    pub(super) fn names(
        &mut self,
        key: &'static str,
        names_max: usize,
        parse: impl Fn(&str, &str) -> Result<(), BadValue>,
    ) -> Vec<(String, String)> {
        self.read(key, |value| match value {
            Value::Names(names) if names.len() > names_max => {
                let count = names.len();
                Some(Err(BadValue(format!("{count} entries are more than {names_max}"))))
            }
            Value::Names(names) => {
                let bad: Vec<String> = names
                    .iter()
                    .filter_map(|(name, about)| parse(name, about).err())
                    .map(|error| error.to_string())
                    .collect();
                Some(if bad.is_empty() { Ok(names.clone()) } else { Err(BadValue(bad.join("; "))) })
            }
            _ => None,
        })
    }

    /// The secret in `key`, or the contents of the file in `file_key`. `None` if no layer sets either.
    ///
    /// A layer in which both are empty is ignored, so that an empty variable cannot remove a secret. A secret
    /// that a higher layer replaces is not checked: its file may not exist here, and a `DATABASE_URL` may be
    /// meant for another program.
    pub(super) fn secret<T>(&mut self, key: &'static str, file_key: &'static str) -> Option<T>
    where
        T: FromStr<Err = BadValue>,
    {
        for layer in &self.layers {
            if let (Some(_), Some((_, place))) = (set_text(layer, key), set_text(layer, file_key)) {
                let message = format!("{key} is set in the same layer; only one of the two may be");
                self.mistakes.push(Mistake::new(place, file_key, message));
            }
        }
        let effective = effective_secret(&self.layers, key, file_key);
        let origin =
            |key, shown: &str, place: &Place| Origin { key, shown: shown.to_owned(), place: place.clone() };
        let unset = |key| origin(key, "\"\"", &Place::Default);
        self.origins.extend(match effective {
            None => [unset(key), unset(file_key)],
            Some((from, _, place)) if from == key => [origin(key, "(set)", place), unset(file_key)],
            Some((_, path, place)) => {
                [origin(key, "(set)", place), origin(file_key, &format!("{path:?}"), place)]
            }
        });
        let (from, text, place) = effective?;
        let secret = if from == key { text.parse() } else { secret_file(text) };
        match secret {
            Ok(secret) => Some(secret),
            Err(error) => {
                let mistake = Mistake::new(place, from, error.to_string());
                self.mistakes.push(mistake);
                None
            }
        }
    }

    /// The file that the secret `key` came from. `None` if it did not come from a file.
    pub(super) fn secret_file(&self, key: &'static str, file_key: &'static str) -> Option<PathBuf> {
        let (from, path, _) = effective_secret(&self.layers, key, file_key)?;
        (from == file_key).then(|| path.into())
    }

    /// Displays a value that was derived from other settings, because the key itself is not set.
    pub(super) fn show(&mut self, key: &'static str, shown: String) {
        self.origins
            .iter_mut()
            .filter(|origin| origin.key == key)
            .for_each(|origin| origin.shown.clone_from(&shown));
    }

    /// Adds a mistake unless the relation between two keys `holds`. It is reported at the key whose value
    /// comes from the higher layer. Nothing is reported if either key already has a mistake.
    pub(super) fn relate(&mut self, left: &'static str, relation: &str, right: &'static str, holds: bool) {
        let is_bad = |key| self.mistakes.iter().any(|mistake| mistake.key == key);
        if holds || is_bad(left) || is_bad(right) {
            return;
        }
        let origin = |key| {
            self.origins
                .iter()
                .find(|origin| origin.key == key)
                .expect("keys are read before they are related")
        };
        let (left, right) = (origin(left), origin(right));
        let blamed = if left.place >= right.place { left } else { right };
        let message = format!("{left} {relation} {right}");
        self.mistakes.push(Mistake::new(&blamed.place, blamed.key, message));
    }

    /// Checks `key` in every layer. The highest value that passes takes effect.
    fn read<T>(&mut self, key: &'static str, parse: impl Fn(&Value) -> Option<Result<T, BadValue>>) -> T {
        let mut effective = None;
        for Setting { value, place } in self.layers.iter().filter_map(|layer| layer.get(key)) {
            match parse(value).expect(ALL_KEYS) {
                Ok(parsed) => effective = Some((parsed, value, place)),
                Err(error) => self.mistakes.push(Mistake::new(place, key, error.to_string())),
            }
        }
        let (parsed, value, place) = effective.expect(ALL_KEYS);
        self.origins.push(Origin { key, shown: value.to_string(), place: place.clone() });
        parsed
    }
}

/// For example `tokens.access_ttl_secs (3600, default)`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { key, shown, place } = self;
        write!(f, "{key} ({shown}, {place})")
    }
}

/// The text of `key` in this layer, if it is set and not empty.
fn set_text<'a>(layer: &'a Layer, key: &str) -> Option<(&'a str, &'a Place)> {
    match layer.get(key) {
        Some(Setting { value: Value::Text(text), place }) if !text.is_empty() => Some((text, place)),
        _ => None,
    }
}

/// Finds the highest layer that sets one of the two keys. Returns that key and its text.
fn effective_secret<'a>(
    layers: &'a [Layer],
    key: &'static str,
    file_key: &'static str,
) -> Option<(&'static str, &'a str, &'a Place)> {
    let of =
        |layer: &'a Layer, key: &'static str| set_text(layer, key).map(|(text, place)| (key, text, place));
    layers.iter().rev().find_map(|layer| of(layer, key).or_else(|| of(layer, file_key)))
}

/// Reads a secret from a file. Errors do not show the path, because someone may have put the secret itself
/// there.
pub(super) fn secret_file<T: FromStr<Err = BadValue>>(path: impl AsRef<Path>) -> Result<T, BadValue> {
    let contents = read_secret(path.as_ref())
        .map_err(|error| BadValue(format!("the file that it names cannot be read: {error}")))?;
    contents.trim().parse().map_err(|error| BadValue(format!("in the file that it names: {error}")))
}

/// Reads a file and removes the byte order mark that editors on Windows add.
pub fn read_secret(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(std::fs::read_to_string(path)?);
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}
