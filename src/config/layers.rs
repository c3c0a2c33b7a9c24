//! Reads the layers of settings, and remembers where each value came from.
//!
//! This module knows which keys exist and their types, from `config/default.toml`. It does not know what a
//! key means. Messages made here never repeat a string, because it may be a secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use strsim::levenshtein;
use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistake, Place};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// How much a misspelt name may differ from the suggested one, in single-character edits.
const SUGGESTION_EDITS_MAX: usize = 3;

/// The same for a variable that may belong to another program. Smaller, to avoid false alarms.
const NEAR_MISS_EDITS_MAX: usize = 1;

/// Our environment variables begin with this.
const PREFIX: &str = "TOLLGATE__";

/// The only variable without the prefix. Other programs read it as well.
const PLAIN_URL: &str = "DATABASE_URL";

/// Where the settings of this process come from. It has no `Debug`, because the environment and the flags may
/// contain secrets.
#[derive(Default)]
pub struct Sources {
    /// The settings file, if one was given. It must then exist.
    pub file: Option<PathBuf>,
    /// The whole environment. Variables of other programs are ignored, even if they are not valid text.
    pub environment: Vec<(OsString, OsString)>,
    pub flags: Vec<Flag>,
}

/// A setting given on the command line.
pub struct Flag {
    /// The setting's full name, such as `server.listen`. An unknown name is a bug, and panics.
    pub key: &'static str,
    /// The flag as the user typed it, such as `--listen`.
    pub name: &'static str,
    /// The value as text, in the same form as in an environment variable.
    pub value: String,
}

/// A value of one of the types of settings. It has no `Debug`, because a text may be a secret.
#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    /// A number that may have a fraction.
    Share(f64),
    Switch(bool),
    List(Vec<String>),
    /// Names, each with a description. A plain list of names also fits: the descriptions are then empty.
    Names(Vec<(String, String)>),
}

impl Value {
    /// Converts a value from a file. The error names the type that was found instead.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, &'static str> {
        let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
        match value {
            DeValue::String(text) => Ok(Value::Text(text.to_string())),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Number)
                .map_err(|_| "a number of more than 64 bits"),
            DeValue::Boolean(switch) => Ok(Value::Switch(*switch)),
            DeValue::Array(entries) => entries
                .iter()
                .map(|entry| text(entry.get_ref()))
                .collect::<Option<_>>()
                .map(Value::List)
                .ok_or("a list with entries that are not strings"),
            DeValue::Float(number) => {
                number.as_str().parse().map(Value::Share).map_err(|_| "a number with a fraction")
            }
            DeValue::Datetime(_) => Err("a date"),
            DeValue::Table(entries) => entries
                .iter()
                .map(|(name, about)| Some((name.get_ref().to_string(), text(about.get_ref())?)))
                .collect::<Option<_>>()
                .map(Value::Names)
                .ok_or("a section"),
        }
    }

    /// Parses the text of a variable or a flag as the type of `self`.
    fn same_type_from(&self, text: &str) -> Result<Self, String> {
        let text = text.trim();
        match self {
            Value::Text(_) => Ok(Value::Text(text.to_owned())),
            Value::Number(_) => text
                .parse()
                .map(Value::Number)
                .map_err(|error| format!("{text:?} is no whole number: {error}")),
            Value::Share(_) => {
                text.parse().map(Value::Share).map_err(|_| format!("{text:?} is no number such as 0.1"))
            }
            Value::Switch(_) => {
                text.parse().map(Value::Switch).map_err(|_| format!("{text:?} is neither true nor false"))
            }
            Value::List(_) => {
                let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
                Ok(Value::List(entries.map(str::to_owned).collect()))
            }
            Value::Names(_) => Value::List(Vec::new()).same_type_from(text).map(Value::named),
        }
    }

    /// Converts this value to the type of `other`. `None` if it has a different type.
    fn into_type_of(self, other: &Value) -> Option<Self> {
        let is_same = std::mem::discriminant(&self) == std::mem::discriminant(other);
        match (other, &self) {
            (Value::Names(_), Value::List(_)) => Some(self.named()),
            (Value::Share(_), Value::Number(number @ (0 | 1))) => Some(Value::Share(*number as f64)),
            _ => is_same.then_some(self),
        }
    }

    /// Turns a list into names with empty descriptions.
    fn named(self) -> Self {
        match self {
            Value::List(names) => Value::Names(names.into_iter().map(|name| (name, String::new())).collect()),
            other => other,
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Number(_) => "a whole number",
            Value::Share(_) => "a number with a fraction",
            Value::Switch(_) => "true or false",
            Value::List(_) => "a list of strings",
            Value::Names(_) => "a section",
        }
    }
}

/// Similar to TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Share(share) => write!(f, "{share:?}"),
            Value::Switch(switch) => write!(f, "{switch}"),
            Value::List(entries) => write!(f, "{entries:?}"),
            Value::Names(names) if names.iter().all(|(_, about)| about.is_empty()) => {
                f.debug_list().entries(names.iter().map(|(name, _)| name)).finish()
            }
            Value::Names(names) => {
                let entries: Vec<_> =
                    names.iter().map(|(name, about)| format!("{name:?} = {about:?}")).collect();
                write!(f, "{{ {} }}", entries.join(", "))
            }
        }
    }
}

/// A setting that exists.
struct Known {
    /// Its position in the defaults.
    offset: usize,
    section: String,
    name: String,
    /// `section.name`
    key: String,
    /// `TOLLGATE__SECTION__NAME`
    variable: String,
    default: Value,
}

/// In the order of the defaults.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let document = DeTable::parse(DEFAULTS).expect("config/default.toml is TOML").into_inner();
    let mut known = Vec::new();
    for (section, keys) in &document {
        let section = section.get_ref().as_ref();
        for (name, value) in
            keys.get_ref().as_table().expect("config/default.toml has only sections at its top")
        {
            let (name, offset) = (name.get_ref().as_ref(), name.span().start);
            known.push(Known {
                offset,
                section: section.to_owned(),
                name: name.to_owned(),
                key: format!("{section}.{name}"),
                variable: format!("TOLLGATE__{section}__{name}").to_uppercase(),
                default: Value::from_toml(value.get_ref())
                    .expect("config/default.toml has only the types settings have"),
            });
        }
    }
    known.sort_by_key(|known| known.offset);
    known
});

fn known(key: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.key == key)
}

/// A value and where it came from.
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// The settings of one source, by full name.
pub(super) type Layer = BTreeMap<&'static str, Setting>;

/// The layers, lowest first, and the mistakes found in them. The layers contain only known keys with values
/// of the right type.
pub(super) fn gather(sources: &Sources) -> (Vec<Layer>, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    let default = |known: &'static Known| {
        (known.key.as_str(), Setting { value: known.default.clone(), place: Place::Default })
    };
    let mut layers = vec![KNOWN.iter().map(default).collect()];
    layers.extend(sources.file.as_deref().map(|path| file_layer(path, &mut mistakes)));
    layers.extend(environment_layers(&sources.environment, &mut mistakes));
    layers.push(flag_layer(&sources.flags, &mut mistakes));
    (layers, mistakes)
}

fn file_layer(path: &Path, mistakes: &mut Vec<Mistake>) -> Layer {
    let mut layer = Layer::new();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            mistakes.push(Mistake::new(
                &Place::File(path.to_owned(), None),
                "",
                format!("cannot be read: {error}"),
            ));
            return layer;
        }
    };
    let (table, errors) = DeTable::parse_recoverable(&text);
    let mut file = File { path, text: &text, broken_lines: Vec::new(), mistakes };
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        file.broken_lines.push(file.line(offset));
        // Do not display the error itself: it would quote the line, which may contain a secret.
        file.refuse(offset, "", format!("syntax error: {}", error.message()));
    }
    for (name, value) in table.get_ref() {
        let (section, span) = (name.get_ref().as_ref(), name.span());
        let is_known = KNOWN.iter().any(|known| known.section == section);
        match value.get_ref().as_table() {
            Some(keys) if is_known => file.read_section(section, keys, &mut layer),
            _ if file.is_broken(&span) => {}
            None if is_known => {
                file.refuse(span.start, section, format!("this is a section: write [{section}]"))
            }
            None => file.refuse_unknown(span.start, section),
            Some(_) => {
                let nearest = nearest(section, |known| &known.section);
                let hint = did_you_mean(nearest.map(|known| format!("[{}]", known.section)));
                file.refuse(span.start, &format!("[{section}]"), format!("unknown section{hint}"));
            }
        }
    }
    layer
}

/// A settings file while it is read.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    /// Lines with a syntax error. The parser guesses what they mean, and we ignore its guesses.
    broken_lines: Vec<usize>,
    mistakes: &'a mut Vec<Mistake>,
}

impl File<'_> {
    fn read_section(&mut self, section: &str, keys: &DeTable<'_>, layer: &mut Layer) {
        for (name, value) in keys {
            let start = name.span().start;
            if self.is_broken(&(start..value.span().end)) {
                continue;
            }
            let key = format!("{section}.{}", name.get_ref());
            let Some(known) = known(&key) else {
                self.refuse_unknown(start, &key);
                continue;
            };
            let found = match Value::from_toml(value.get_ref()) {
                Ok(value) => {
                    let found = value.type_name();
                    if let Some(value) = value.into_type_of(&known.default) {
                        layer.insert(&known.key, Setting { value, place: self.place(start) });
                        continue;
                    }
                    found
                }
                Err(found) => found,
            };
            let expected = match known.default {
                Value::Names(_) => "a list of strings, or a section of them",
                _ => known.default.type_name(),
            };
            self.refuse(start, &key, format!("expected {expected}, found {found}"));
        }
    }

    fn line(&self, offset: usize) -> usize {
        // An error at the end of the file is reported on its last line with text.
        let before = &self.text.as_bytes()[..offset.min(self.text.trim_end().len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn place(&self, offset: usize) -> Place {
        Place::File(self.path.to_owned(), Some(self.line(offset)))
    }

    fn is_broken(&self, span: &Range<usize>) -> bool {
        let lines = self.line(span.start)..=self.line(span.end);
        self.broken_lines.iter().any(|broken| lines.contains(broken))
    }

    fn refuse(&mut self, offset: usize, key: &str, message: String) {
        self.mistakes.push(Mistake::new(&self.place(offset), key, message));
    }

    fn refuse_unknown(&mut self, offset: usize, key: &str) {
        let hint = did_you_mean(nearest_key(key).map(|known| known.key.clone()));
        self.refuse(offset, key, format!("unknown setting{hint}"));
    }
}

/// Two layers: `DATABASE_URL`, which other programs read as well, and above it our own variables.
fn environment_layers(environment: &[(OsString, OsString)], mistakes: &mut Vec<Mistake>) -> [Layer; 2] {
    let (mut plain, mut own) = (Layer::new(), Layer::new());
    for (variable, text) in environment {
        let variable = variable.to_string_lossy();
        let place = Place::Environment(variable.clone().into_owned());
        let (layer, known) = if variable == PLAIN_URL {
            (&mut plain, known("database.url").expect("database.url is in config/default.toml"))
        } else if let Some(rest) = variable.strip_prefix(PREFIX) {
            let Some(known) = KNOWN.iter().find(|known| known.variable == variable) else {
                let nearest = nearest_key(&rest.to_lowercase().replace("__", "."));
                let hint = did_you_mean(nearest.map(|known| known.variable.clone()));
                mistakes.push(Mistake::new(&place, &variable, format!("unknown setting{hint}")));
                continue;
            };
            (&mut own, known)
        } else {
            continue;
        };
        match text.to_str() {
            Some(text) => insert(layer, known, text, place, mistakes),
            None => mistakes.push(Mistake::new(&place, &known.key, "is not UTF-8")),
        }
    }
    [plain, own]
}

/// Warnings about variables that look like misspelt settings, for example with one underscore instead of two.
/// Their values may be secrets, so they are not shown.
pub(super) fn near_misses(environment: &[(OsString, OsString)]) -> Vec<String> {
    let names = environment.iter().filter_map(|(variable, _)| variable.to_str());
    names.filter(|name| !name.starts_with(PREFIX)).filter_map(near_miss).collect()
}

fn near_miss(name: &str) -> Option<String> {
    let plain = without_repeats(&name.to_uppercase());
    let meant = KNOWN
        .iter()
        .find(|known| levenshtein(&plain, &without_repeats(&known.variable)) <= NEAR_MISS_EDITS_MAX)?;
    Some(format!("the environment variable {name} does nothing, did you mean {}?", meant.variable))
}

/// Replaces several underscores in a row with one.
fn without_repeats(name: &str) -> String {
    name.split('_').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

fn flag_layer(flags: &[Flag], mistakes: &mut Vec<Mistake>) -> Layer {
    let mut layer = Layer::new();
    for flag in flags {
        let known = known(flag.key).expect("flags name keys that are in config/default.toml");
        insert(&mut layer, known, &flag.value, Place::Flag(flag.name), mistakes);
    }
    layer
}

fn insert(layer: &mut Layer, known: &'static Known, text: &str, place: Place, mistakes: &mut Vec<Mistake>) {
    match known.default.same_type_from(text) {
        Ok(value) => {
            layer.insert(&known.key, Setting { value, place });
        }
        Err(message) => mistakes.push(Mistake::new(&place, &known.key, message)),
    }
}

fn did_you_mean(name: Option<String>) -> String {
    name.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// The setting that was probably meant: the one with the most similar full name, or one with the same name
/// in another section.
fn nearest_key(key: &str) -> Option<&'static Known> {
    let name = key.rsplit('.').next().unwrap_or(key);
    nearest(key, |known| &known.key).or_else(|| KNOWN.iter().find(|known| known.name == name))
}

fn nearest(name: &str, spelling: impl Fn(&Known) -> &str) -> Option<&'static Known> {
    KNOWN
        .iter()
        .map(|known| (levenshtein(name, spelling(known)), known))
        .filter(|(edits, known)| *edits <= SUGGESTION_EDITS_MAX.min(spelling(known).len() / 2))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, known)| known)
}
