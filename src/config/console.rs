//! `[console]`: the web console, and the other cells that it asks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use url::{Host, Url};

use super::reader::{Reader, secret_file};
use super::values::{BadValue, file, optional, web_url};
use crate::domain::secret::{PlainSecret, looks_like_admin_token};

/// Enough for a large platform. Each page of a list that spans cells asks all of them.
const CELLS_MAX: usize = 16;

/// A name is a short word in a column of a table.
const NAME_CHARS_MAX: usize = 32;

#[derive(Debug)]
pub struct Console {
    /// Whether a user needs a second factor to work with live keys.
    pub totp_required_for_live: bool,
    /// The other cells whose merchants and audit events are shown too.
    pub cells: Vec<CellUrl>,
    /// A token for each of the cells.
    pub cell_tokens: CellTokens,
    /// The file that the tokens came from, if any.
    pub cell_tokens_file: Option<PathBuf>,
    /// A PEM file of authorities that may have made the certificates of the cells.
    pub cell_ca_file: Option<PathBuf>,
}

impl Console {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let (tokens, tokens_file) = ("console.cell_tokens", "console.cell_tokens_file");
        let console = Self {
            totp_required_for_live: reader.switch("console.totp_required_for_live"),
            cells: reader.list("console.cells", CELLS_MAX, |text| text.parse()),
            cell_tokens: reader.secret(tokens, tokens_file).unwrap_or_default(),
            cell_tokens_file: reader.secret_file(tokens, tokens_file),
            cell_ca_file: reader.text("console.cell_ca_file", optional(file)),
        };
        let mut named: Vec<&str> = console.cells.iter().map(|cell| cell.name.as_str()).collect();
        let mut with_token: Vec<&str> = console.cell_tokens.0.iter().map(|(name, _)| name.as_str()).collect();
        named.sort_unstable();
        with_token.sort_unstable();
        let is_clear = named.windows(2).all(|pair| pair[0] != pair[1]);
        reader.relate(
            "console.cells",
            "must name each cell once, and exactly those in",
            tokens,
            is_clear && named == with_token,
        );
        console
    }
}

/// Another cell: its name, and the URL at which it has its admin API and its console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellUrl {
    pub name: String,
    /// Without a trailing slash. https, or http to this machine.
    pub url: String,
}

/// `NAME=URL`. The error does not repeat the text, because it may be a token that was put into the wrong setting.
impl FromStr for CellUrl {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let (name, url) = name_and_value(text).ok_or_else(|| {
            BadValue("an entry is not of the form NAME=URL, with letters and digits in NAME".to_owned())
        })?;
        let bad = |what| BadValue(format!("the URL of {name:?} {what}"));
        let url =
            web_url(url).map_err(|_| bad("is no URL without user, query, fragment and trailing slash"))?;
        if !is_confidential(&url) {
            return Err(bad("would show the token on the network: use https"));
        }
        Ok(Self { name: name.to_owned(), url })
    }
}

/// Whether nobody on the network can read what is sent there.
fn is_confidential(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        url.scheme() == "https"
            || match url.host() {
                Some(Host::Domain(name)) => name == "localhost",
                Some(Host::Ipv4(ip)) => ip.is_loopback(),
                Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
                None => false,
            }
    })
}

/// Admin tokens of other cells, by the name of the cell.
#[derive(Clone, Default)]
pub struct CellTokens(Arc<[(String, PlainSecret)]>);

impl CellTokens {
    /// Reads the tokens from a file. The error shows neither the path nor a token.
    pub fn read_from(path: &Path) -> Result<Self, BadValue> {
        secret_file(path)
    }

    pub fn of(&self, cell: &str) -> Option<&PlainSecret> {
        self.0.iter().find(|(name, _)| name == cell).map(|(_, token)| token)
    }
}

/// Entries `NAME=TOKEN`, separated by commas or line breaks. Lines that begin with `#` are ignored.
impl FromStr for CellTokens {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let entries = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty());
        let parse = |(number, entry)| {
            let bad =
                || BadValue(format!("entry {number} is not of the form NAME=TOKEN with an admin token"));
            let (name, token) = name_and_value(entry).ok_or_else(bad)?;
            let token = Some(token).filter(|token| looks_like_admin_token(token)).ok_or_else(bad)?;
            Ok((name.to_owned(), PlainSecret::new(token.to_owned())))
        };
        Ok(Self((1..).zip(entries).map(parse).collect::<Result<_, _>>()?))
    }
}

impl fmt::Debug for CellTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellTokens({} redacted)", self.0.len())
    }
}

/// The parts of `NAME=VALUE`. A name has only letters and digits.
fn name_and_value(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim_start());
    let is_name =
        (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && name.chars().all(char::is_alphanumeric);
    is_name.then_some((name, value))
}
