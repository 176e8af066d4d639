//! The daemon's configuration file: YAML with the options of `serve` as keys. What the command line says wins.
//!
//! The file becomes options in front of clap, so that a value means the same and is refused in the same words here and
//! there.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::Command;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use crate::errors::Failure;
use spec::yaml;

/// The option that names the file.
const OPTION: &str = "config";

/// The command line with the options of the file that it names, if it names one. `program` is the whole program's
/// command; what it cannot read is left for it to refuse.
pub fn with_config_file(program: impl FnOnce() -> Command, given: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    // Mostly it names none, and to make the tree of all commands takes longer than many a command.
    let option = format!("--{OPTION}");
    if !given.iter().any(|word| word.as_encoded_bytes().starts_with(option.as_bytes())) {
        return Ok(given);
    }
    let program = program();
    let Ok(matches) = program.clone().try_get_matches_from(&given) else { return Ok(given) };
    let Some((name, matches)) = matches.subcommand() else { return Ok(given) };
    let Some(path) = matches.try_get_one::<PathBuf>(OPTION).ok().flatten() else { return Ok(given) };
    let of = |name: &str| program.get_subcommands().find(|command| command.get_name() == name);
    let (Some(serve), Some(asked)) = (of("serve"), of(name)) else { return Ok(given) };
    let mut arguments = given;
    arguments.extend(options(serve, asked, matches, path)?);
    Ok(arguments)
}

/// The file's options that the command `asked` has and `matches` lacks; all must be options of `serve`.
fn options(serve: &Command, asked: &Command, matches: &ArgMatches, path: &Path) -> Result<Vec<OsString>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read the configuration file {}", path.display())).because(error)
    })?;
    let mut options = Vec::new();
    for entry in entries(&text, path)? {
        let place = Place { path, at: entry.at };
        let argument = option_named(serve, &entry.key).ok_or_else(|| unknown_key(serve, &entry.key, &place))?;
        let words = words(argument, &entry, &place)?;
        check(serve, &words, &entry.key, &place)?;
        let id = argument.get_id().as_str();
        let on_command_line = matches.try_contains_id(id).is_ok()
            && matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        if option_named(asked, &entry.key).is_some() && !on_command_line {
            options.extend(words);
        }
    }
    Ok(options)
}

/// One key of the file.
#[derive(Debug)]
struct Entry {
    key: String,
    at: Location,
    value: Value,
}

#[derive(Debug, Default)]
struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("options and their values, such as `pod-cidr: 10.99.0.0/16`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while let Some((key, value)) = map.next_entry::<Spanned<String>, Value>()? {
                    entries.0.push(Entry { key: key.value, at: key.referenced, value });
                }
                Ok(entries)
            }

            fn visit_unit<E>(self) -> Result<Entries, E> {
                Ok(Entries::default())
            }
        }
        deserializer.deserialize_any(Keys)
    }
}

fn entries(text: &str, path: &Path) -> Result<Vec<Entry>, Failure> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let read = serde_saphyr::from_str::<Entries>(text).map_err(|error| {
        let at = error.location().unwrap_or(Location::UNKNOWN);
        Failure::new(format!("{}: not a configuration file", Place { path, at })).because(yaml::message(&error))
    })?;
    Ok(read.0)
}

fn option_named<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|argument| argument.get_long() == Some(key) && key != OPTION && key != "help")
}

fn unknown_key(serve: &Command, key: &str, place: &Place<'_>) -> Failure {
    let known = serve.get_arguments().filter_map(Arg::get_long).filter(|long| ![OPTION, "help"].contains(long));
    let known: Vec<&str> = known.collect();
    Failure::new(format!("{place}: there is no option {key:?}"))
        .hint(format!("the options are those of `monopod serve`: {}", known.join(", ")))
}

/// `--key=value`, once for each item of a list.
fn words(argument: &Arg, entry: &Entry, place: &Place<'_>) -> Result<Vec<OsString>, Failure> {
    let key = &entry.key;
    let refuse = |expected: &str| Err(Failure::new(format!("{place}: option {key:?} must be {expected}")));
    let word = |text: &str| OsString::from(format!("--{key}={text}"));
    match (argument.get_action(), &entry.value) {
        (_, Value::Null) => Ok(Vec::new()),
        (ArgAction::SetTrue, Value::Bool(set)) => Ok(if *set { vec![format!("--{key}").into()] } else { Vec::new() }),
        (ArgAction::SetTrue, _) => refuse("true or false"),
        (ArgAction::Append, Value::Array(items)) => match items.iter().map(scalar).collect::<Option<Vec<_>>>() {
            Some(items) => Ok(items.iter().map(|item| word(item)).collect()),
            None => refuse("a list of texts"),
        },
        (_, value) => match scalar(value) {
            Some(text) => Ok(vec![word(&text)]),
            None => refuse("one text or number"),
        },
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether `serve` would take these words, each file's option by itself so that a refusal has its place.
fn check(serve: &Command, words: &[OsString], key: &str, place: &Place<'_>) -> Result<(), Failure> {
    let line = std::iter::once(OsStr::new("serve").to_owned()).chain(words.iter().cloned());
    let Err(error) = serve.clone().try_get_matches_from(line) else { return Ok(()) };
    let text = error.to_string();
    let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Err(Failure::new(format!("{place}: option {key:?}")).because(why))
}

/// Where in the file something stands.
struct Place<'a> {
    path: &'a Path,
    at: Location,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.at.line() > 0 { write!(f, ": line {}, column {}", self.at.line(), self.at.column()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::args::Cli;
    use crate::errors::render;

    fn read(text: &str, line: &str) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        fs::write(&path, text).unwrap();
        let line = line.replace("FILE", path.to_str().unwrap());
        let given = line.split(' ').map(OsString::from).collect();
        let read = with_config_file(Cli::command, given)
            .map_err(|failure| render(&failure.into()).replace(path.to_str().unwrap(), "FILE"))?;
        // What comes out is a command line.
        Cli::from_arg_matches(&Cli::command().try_get_matches_from(&read).unwrap()).unwrap();
        let read = read.iter().map(|word| word.to_str().unwrap().replace(path.to_str().unwrap(), "FILE"));
        Ok(read.skip(line.split(' ').count()).collect())
    }

    #[test]
    fn keys_are_the_options_of_serve_and_the_command_line_wins() {
        let text = "# where\ndata-dir: /srv/pods\npod-pids-limit: 512\npod-cidr: 10.99.0.0/16\n\
            registry-mirror:\n- https://mirror.example\n- quay.io=https://other.example\n";
        let expected = [
            "--data-dir=/srv/pods",
            "--pod-pids-limit=512",
            "--pod-cidr=10.99.0.0/16",
            "--registry-mirror=https://mirror.example",
            "--registry-mirror=quay.io=https://other.example",
        ];
        assert_eq!(read(text, "monopod serve --config FILE").unwrap(), expected);
        let won = read(text, "monopod serve --data-dir /d --registry-mirror https://m --config FILE").unwrap();
        assert_eq!(won, expected[1..3]);
        let place = read(text, "monopod check --config FILE").unwrap();
        assert_eq!(place, ["--data-dir=/srv/pods", "--pod-cidr=10.99.0.0/16"], "options that `check` has");
        assert_eq!(read("# nothing\n", "monopod serve --config FILE").unwrap(), [""; 0]);
        assert_eq!(read("data-dir: /d\n", "monopod get pods").unwrap(), [""; 0]);
    }

    #[test]
    fn a_fault_has_its_line_and_column() {
        let faults = [
            ("data-dir: /d\npod-cdir: 10.0.0.0/8\n", "FILE: line 2, column 1: there is no option \"pod-cdir\""),
            ("config: other.yaml\n", "FILE: line 1, column 1: there is no option \"config\""),
            (
                "\npod-pids-limit: many\n",
                "FILE: line 2, column 1: option \"pod-pids-limit\"\n  caused by: invalid value 'many'",
            ),
            ("data-dir: [a, b]\n", "FILE: line 1, column 1: option \"data-dir\" must be one text or number"),
            ("data-dir: /d\n  pod-cidr: x\n", "FILE: line 2"),
            ("- data-dir\n", "FILE: not a configuration file"),
            ("data-dir: /d\ndata-dir: /e\n", "FILE: line 2, column 1: not a configuration file"),
        ];
        for (text, expected) in faults {
            let fault = read(text, "monopod serve --config FILE").unwrap_err();
            assert!(fault.contains(expected), "{text:?}: {fault}");
        }
        let missing =
            with_config_file(Cli::command, ["monopod", "serve", "--config", "/nowhere"].map(OsString::from).into());
        assert!(render(&missing.unwrap_err().into()).contains("cannot read the configuration file /nowhere"));
    }
}
