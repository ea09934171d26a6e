//! `config check`: what is wrong with a configuration, or what it sets.

use std::path::Path;

use serde_json::{Map, Value, json};
use tlsresume::config::{Config, process_environment};
use tlsresume::engine::Engine;

use crate::output::{Exit, Failure, Output};

pub(crate) fn check(file: &Path, out: Output) -> Result<Exit, Failure> {
    let config = Config::load(Some(file), &process_environment)?;
    Engine::check(&config)?;
    let changed = changed(&config);
    let json = || {
        let settings = changed.iter().map(|set| (set.key.to_owned(), set.json.clone()));
        json!({ "ok": true, "settings": Map::from_iter(settings) })
    };
    let text = || {
        let lines = changed.iter().map(|set| format!("{} = {}\n", set.key, set.toml));
        "ok\n".to_owned() + &lines.collect::<String>()
    };
    out.print(json, text)
}

struct Setting {
    key: &'static str,
    toml: String,
    json: Value,
}

/// The settings that differ from the defaults.
fn changed(config: &Config) -> Vec<Setting> {
    let settings = config.settings().into_iter().zip(Config::default().settings());
    let changed = settings.filter(|(set, default)| set != default).map(|(set, _)| set);
    // What these settings say in TOML, JSON can say.
    let json = |value| serde_json::to_value(value).unwrap_or_default();
    changed
        .map(|(key, value)| Setting { key, toml: value.to_string(), json: json(value) })
        .collect()
}
