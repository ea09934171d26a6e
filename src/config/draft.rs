//! A configuration in the making: layers of settings, and where each was set.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::env::{ENVIRONMENT, Setting};
use super::input::Input;
use super::unknown::unknown_key;
use super::{Config, Environment, Log, MAX_CONFIG_SIZE, rules};
use crate::error::{Error, Result};

/// The section of the log.
const LOG: &str = "log";

/// Takes layers in turn, each on top of those before, and becomes a [`Config`] when they fit together.
pub(super) struct Draft<'a> {
    /// What errors call the TOML text.
    origin: &'a str,
    config: Config,
    /// Key to the place that set it last: "/etc/tlsresume.toml:7", or the name of a variable.
    places: BTreeMap<&'static str, String>,
}

impl<'a> Draft<'a> {
    /// The defaults.
    pub(super) fn new(origin: &'a str) -> Self {
        Draft { origin, config: Config::default(), places: BTreeMap::new() }
    }

    /// Adds the settings of a TOML document.
    pub(super) fn read_toml(&mut self, text: &str) -> Result<()> {
        if text.len() > MAX_CONFIG_SIZE {
            return Err(mistake(self.origin, "is longer than 1 MiB"));
        }
        if let Some(at) = too_deep(text) {
            let place = format!("{}:{}", self.origin, line_and_column(text, at));
            return Err(mistake(&place, "is nested too deeply"));
        }
        let document = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let place = format!("{}:{}", self.origin, line_and_column(text, at));
            mistake(&place, error.message())
        })?;
        for (name, value) in document.get_ref() {
            match value.get_ref() {
                DeValue::Table(entries) if Setting::is_section(name.get_ref()) => {
                    for (key, value) in entries {
                        self.set(text, name.get_ref(), key, value.get_ref())?;
                    }
                }
                value => self.set(text, "", name, value)?,
            }
        }
        Ok(())
    }

    fn set(
        &mut self,
        text: &str,
        section: &str,
        name: &Spanned<DeString<'_>>,
        value: &DeValue<'_>,
    ) -> Result<()> {
        let place = format!("{}:{}", self.origin, line(text, name.span().start));
        let path = (section, name.get_ref().as_ref());
        match ENVIRONMENT.iter().find(|setting| setting.path() == path) {
            Some(setting) => self.apply(setting, place, &Input::Toml(value)),
            None => Err(mistake(&place, &unknown_key(section, name.get_ref()))),
        }
    }

    /// Adds the settings of the environment. A variable that is empty counts as not set.
    pub(super) fn read_environment(&mut self, env: Environment<'_>) -> Result<()> {
        for setting in ENVIRONMENT {
            if let Some(text) = env(setting.name) {
                self.apply(setting, setting.name.to_owned(), &Input::Variable(&text))?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, setting: &Setting, place: String, input: &Input<'_>) -> Result<()> {
        if input.is_empty() {
            return Ok(());
        }
        (setting.set)(&mut self.config, input).map_err(|problem| {
            let Setting { key, allowed, .. } = setting;
            mistake(&place, &format!("{key}: {problem}; allowed: {allowed}"))
        })?;
        self.places.insert(setting.key, place);
        Ok(())
    }

    /// Adds the settings of the log, of a document and then of the environment, as far as they can be read.
    pub(super) fn read_log(&mut self, text: &str, env: Environment<'_>) {
        let document = too_deep(text).is_none().then(|| DeTable::parse(text).ok()).flatten();
        let section = document.as_ref().and_then(|it| it.get_ref().get(LOG)?.get_ref().as_table());
        for setting in ENVIRONMENT.iter().filter(|setting| setting.path().0 == LOG) {
            if let Some(value) = section.and_then(|entries| entries.get(setting.path().1)) {
                let _ = (setting.set)(&mut self.config, &Input::Toml(value.get_ref()));
            }
            if let Some(text) = env(setting.name).filter(|text| !text.is_empty()) {
                let _ = (setting.set)(&mut self.config, &Input::Variable(&text));
            }
        }
    }

    /// The settings of the log.
    pub(super) fn log(self) -> Log {
        self.config.log
    }

    /// The finished configuration, if its settings fit together.
    pub(super) fn finish(self) -> Result<Config> {
        match rules::broken(&self.config) {
            None => Ok(self.config),
            Some((key, problem)) => {
                let place = self.places.get(key).map_or(self.origin, String::as_str);
                Err(mistake(place, &format!("{key}: {problem}")))
            }
        }
    }
}

/// Where more brackets are open than any configuration needs: the parser's stack grows with them, and servers have threads
/// with little of it. Brackets in strings and comments count too.
fn too_deep(text: &str) -> Option<usize> {
    const DEEPEST: usize = 32;
    let mut depth = 0_usize;
    let opens_too_many = |(_, byte): &(usize, u8)| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEEPEST
    };
    text.bytes().enumerate().find(opens_too_many).map(|(at, _)| at)
}

/// An error on one line, whatever control characters the names in it have.
pub(super) fn mistake(place: &str, problem: &str) -> Error {
    Error::Config(format!("{place}: {problem}").replace(char::is_control, " "))
}

fn line(text: &str, at: usize) -> usize {
    1 + before(text, at).matches('\n').count()
}

fn line_and_column(text: &str, at: usize) -> String {
    let start = before(text, at).rfind('\n').map_or(0, |newline| newline + 1);
    let column = 1 + before(text, at)[start..].chars().count();
    format!("{}:{column}", line(text, at))
}

fn before(text: &str, at: usize) -> &str {
    text.get(..at).unwrap_or(text)
}
