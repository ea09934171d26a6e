//! What a configuration shows of itself gives the same configuration again.

use super::*;

/// The document that the settings of `config` make.
fn shown(config: &Config) -> String {
    config.settings().iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

#[test]
fn every_setting_is_shown_in_the_order_of_the_documentation() {
    let shown: Vec<_> = Config::default().settings().iter().map(|(key, _)| *key).collect();
    let all: Vec<_> = ENVIRONMENT.iter().map(|setting| setting.key).collect();
    assert_eq!(shown, all);
}

#[test]
fn what_is_shown_gives_the_same_configuration() {
    let samples = SAMPLES.iter().filter(|(key, _, _)| *key != "redis.url");
    let text: String =
        samples.map(|(key, _, value)| format!("{key} = {value}\n")).collect::<String>()
            + "redis.url = \"rediss://host\"\n";
    let config = Config::from_toml(&text, "text", &|_| None).unwrap();
    let shown = shown(&config).replace("(hidden)", "rediss://host");
    assert_eq!(Config::from_toml(&shown, "shown", &|_| None).unwrap(), config);
    let odd = Memory { size: (1 << 20) + 1, ..Memory::default() };
    for config in [Config::default(), Config { memory: odd, ..Config::default() }] {
        let again = Config::from_toml(&self::shown(&config), "shown", &|_| None);
        assert_eq!(again.unwrap(), config);
    }
}

#[test]
fn the_address_of_redis_is_hidden_with_its_password() {
    let mut config = Config::default();
    config.redis.url = vec!["redis://user:hunter2@host".into()];
    let shown = shown(&config);
    assert!(shown.contains("redis.url = \"(hidden)\"") && !shown.contains("hunter2"), "{shown}");
}
