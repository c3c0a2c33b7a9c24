//! What is wrong with a submitted form. Each mistake is shown at its field, and the first such field gets
//! the focus.

use std::fmt;

use super::words;
use crate::flows::error::Refused;

/// In the order of the form.
#[derive(Default)]
pub(super) struct Mistakes(Vec<(&'static str, String)>);

/// HTML made here. Every text in it is escaped.
pub(super) struct Markup(String);

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::filters::HtmlSafe for Markup {}

impl Mistakes {
    pub(super) fn of(refused: &Refused) -> Self {
        let field = match refused {
            // The form asks for a day.
            Refused::Invalid { field: "expires_at", .. } => "expires_on",
            Refused::Invalid { field, .. } => field,
            _ => "",
        };
        Self(vec![(field, words::refusal(refused))])
    }

    /// The same for a form in which a conflict is about this field.
    pub(super) fn with_conflict_at(field: &'static str, refused: &Refused) -> Self {
        match refused {
            Refused::Conflict(_) => Self::one(field, words::refusal(refused)),
            _ => Self::of(refused),
        }
    }

    /// Records what a check refuses at its field.
    pub(super) fn check(&mut self, checked: Result<(), Refused>) {
        if let Err(refused) = checked {
            self.0.extend(Self::of(&refused).0);
        }
    }

    pub(super) fn one(field: &'static str, words: String) -> Self {
        Self(vec![(field, words)])
    }

    /// Returns the value, or records the mistake at its field.
    pub(super) fn take<T>(&mut self, field: &'static str, read: Result<T, String>) -> Option<T> {
        read.map_err(|words| self.0.push((field, words))).ok()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn at(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(at, _)| *at == field).map(|(_, words)| words.as_str())
    }

    pub(super) fn is_at(&self, field: &str) -> bool {
        self.at(field).is_some()
    }

    /// The HTML attributes that mark a field as wrong. The first wrong field also gets the focus.
    pub(super) fn marks(&self, field: &str) -> Markup {
        let is_first = self.0.first().is_some_and(|(at, _)| *at == field);
        let focus = if is_first { " autofocus" } else { "" };
        Markup(match self.at(field) {
            Some(_) => format!(" aria-invalid=\"true\" aria-describedby=\"{field}-mistake\"{focus}"),
            None => String::new(),
        })
    }

    /// The message below a field that is wrong.
    pub(super) fn note(&self, field: &str) -> Markup {
        let note = |words| format!("<p class=\"mistake\" id=\"{field}-mistake\">{}</p>", escaped(words));
        Markup(self.at(field).map(note).unwrap_or_default())
    }

    /// The message about the form as a whole, or about something that has no field in it.
    pub(super) fn elsewhere(&self, fields: &[&str]) -> Markup {
        let others = self.0.iter().filter(|(at, _)| !fields.contains(at));
        let notes = others
            .map(|(_, words)| format!("<p class=\"note note-bad\" role=\"alert\">{}</p>", escaped(words)));
        Markup(notes.collect())
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&#38;"),
            '<' => safe.push_str("&#60;"),
            '>' => safe.push_str("&#62;"),
            '"' => safe.push_str("&#34;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
