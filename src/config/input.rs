//! One value as somebody wrote it, and the ways to read it.
//!
//! A reading that fails says what is wrong with the value (`"8d" is too long`); the caller adds where it stands and
//! what is allowed.

#![forbid(unsafe_code)]

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::{DeInteger, DeValue};

use crate::log::Target;

/// A value that was read, or what is wrong with it.
pub(super) type Reading<T> = Result<T, String>;

/// Where a value came from decides how it is spelt: a variable can only hold text.
pub(super) enum Input<'a> {
    /// A value of a TOML document.
    Toml(&'a DeValue<'a>),
    /// The content of an environment variable.
    Variable(&'a str),
}

impl<'a> Input<'a> {
    /// Whether this is the empty text, which leaves a setting as it was.
    pub(super) fn is_empty(&self) -> bool {
        self.text().is_ok_and(str::is_empty)
    }

    /// Text, as it is.
    pub(super) fn text(&self) -> Reading<&str> {
        match self {
            Input::Toml(DeValue::String(text)) => Ok(text),
            Input::Toml(_) => self.problem("is not a string"),
            Input::Variable(text) => Ok(text),
        }
    }

    /// One of the words of an enum.
    pub(super) fn word<T: FromStr>(&self) -> Reading<T> {
        self.text()?.parse().or_else(|_| self.problem("is unknown"))
    }

    /// Yes or no.
    pub(super) fn boolean(&self) -> Reading<bool> {
        match self {
            Input::Toml(DeValue::Boolean(value)) => Ok(*value),
            Input::Toml(_) => self.problem("is not true or false"),
            Input::Variable(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => self.problem("is not true or false"),
            },
        }
    }

    /// Yes or no, or the one word beside them.
    pub(super) fn boolean_or<T>(
        &self,
        word: &str,
        meant: T,
        other: impl Fn(bool) -> T,
    ) -> Reading<T> {
        if self.text() == Ok(word) { Ok(meant) } else { self.boolean().map(other) }
    }

    /// A whole number.
    pub(super) fn whole<T>(&self, range: RangeInclusive<T>) -> Reading<T>
    where
        T: Copy + Into<i128> + TryFrom<i128>,
    {
        let number = match self {
            Input::Toml(DeValue::Integer(number)) => value_of(number),
            Input::Toml(_) => None,
            Input::Variable(text) => text.parse().ok(),
        };
        match number {
            None => self.problem("is not a whole number"),
            Some(number) if number < (*range.start()).into() => self.problem("is too small"),
            Some(number) if number > (*range.end()).into() => self.problem("is too large"),
            Some(number) => T::try_from(number).or_else(|_| self.problem("is too large")),
        }
    }

    /// A length of time with its unit: "12h", "1h 30m", "5ms".
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Reading<Duration> {
        if self.is_bare_number() {
            return self.problem(r#"has no unit, as in "30s" or "12h""#);
        }
        match humantime::parse_duration(self.text()?) {
            Err(_) => self.problem("is not a duration"),
            Ok(duration) if duration < *range.start() => self.problem("is too short"),
            Ok(duration) if duration > *range.end() => self.problem("is too long"),
            Ok(duration) => Ok(duration),
        }
    }

    fn is_bare_number(&self) -> bool {
        match self {
            Input::Toml(DeValue::Integer(_) | DeValue::Float(_)) => true,
            _ => self.text().is_ok_and(|text| text.parse().is_ok_and(f64::is_finite)),
        }
    }

    /// A number of bytes: a bare number, or one with a unit of 1024s.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Reading<u64> {
        let text = match self {
            Input::Toml(DeValue::Integer(_)) => return self.whole(range),
            _ => self.text()?,
        };
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(unit_at);
        if digits.is_empty() {
            return self.problem("is not a size");
        }
        let shift = match unit.trim_start() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            other => return self.problem(&unknown_unit(digits, other)),
        };
        let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        match bytes {
            Some(bytes) if bytes < *range.start() => self.problem("is too small"),
            Some(bytes) if bytes <= *range.end() => Ok(bytes),
            _ => self.problem("is too large"),
        }
    }

    /// A path. One with a NUL names no file.
    pub(super) fn path(&self) -> Reading<PathBuf> {
        match self.text()? {
            text if text.contains('\0') => self.problem("is not a path"),
            text => Ok(PathBuf::from(text)),
        }
    }

    /// A path that means the same file whatever the working directory is.
    pub(super) fn absolute_path(&self) -> Reading<PathBuf> {
        let path = self.path()?;
        if path.is_absolute() { Ok(path) } else { self.problem("is not an absolute path") }
    }

    /// Several values, each read by `read`: a TOML array, or text with commas. Empty elements count for nothing.
    pub(super) fn list<T>(&self, read: impl Fn(&Input<'a>) -> Reading<T>) -> Reading<Vec<T>> {
        let present = |element: &Input<'a>| !element.is_empty();
        match self {
            Input::Toml(DeValue::Array(elements)) => {
                let elements = elements.iter().map(|element| Input::Toml(element.get_ref()));
                elements.filter(present).map(|element| read(&element)).collect()
            }
            Input::Toml(_) => self.problem("is not a list of strings"),
            Input::Variable(text) => {
                let elements = text.split(',').map(|element| Input::Variable(element.trim()));
                elements.filter(present).map(|element| read(&element)).collect()
            }
        }
    }

    /// The name of a realm.
    pub(super) fn realm(&self) -> Reading<String> {
        let text = self.text()?;
        if text.len() > 64 {
            return self.problem("is too long");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return self.problem("has other characters");
        }
        Ok(text.to_owned())
    }

    /// Where lines of log go.
    pub(super) fn log_target(&self) -> Reading<Target> {
        match self.text()? {
            "stderr" => Ok(Target::Stderr),
            "syslog" => Ok(Target::Syslog),
            _ => self.absolute_path().map(Target::File),
        }
    }

    pub(super) fn problem<T>(&self, what: &str) -> Reading<T> {
        Err(format!("{} {what}", self.quoted()))
    }

    /// The value for an error message: on one line, and not longer than one.
    fn quoted(&self) -> String {
        match self {
            Input::Variable(text) => format!("{:?}", shortened(text)),
            Input::Toml(DeValue::String(text)) => format!("{:?}", shortened(text)),
            Input::Toml(DeValue::Integer(number)) => shortened(&number.to_string()),
            Input::Toml(DeValue::Float(number)) => shortened(&number.to_string()),
            Input::Toml(DeValue::Boolean(value)) => value.to_string(),
            Input::Toml(DeValue::Datetime(time)) => time.to_string(),
            Input::Toml(DeValue::Array(_)) => "a list".to_owned(),
            Input::Toml(DeValue::Table(_)) => "a table".to_owned(),
        }
    }
}

/// At most the first 60 characters of `text`.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn value_of(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

fn unknown_unit(digits: &str, unit: &str) -> String {
    match unit.chars().next().map(|letter| letter.to_ascii_uppercase()) {
        Some(letter @ ('K' | 'M' | 'G' | 'T')) if unit.len() <= 3 => {
            format!("has an unknown unit, write \"{digits}{letter}iB\"")
        }
        _ => "has an unknown unit".to_owned(),
    }
}
