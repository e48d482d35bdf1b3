//! Arguments of the form `--name value`, and switches.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// What was given, each at most once.
pub struct Options<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Options<'a> {
    /// Reads arguments of which the `switches` have no value.
    pub fn parse(arguments: &[&'a str], names: &[&str], switches: &[&str]) -> Result<Self> {
        let mut found = Vec::new();
        let mut arguments = arguments.iter().copied();
        while let Some(argument) = arguments.next() {
            let value = match argument {
                switch if switches.contains(&switch) => None,
                name if names.contains(&name) => {
                    Some(arguments.next().with_context(|| format!("{name} needs a value"))?)
                }
                other => bail!("`{other}` is none of {}", [names, switches].concat().join(", ")),
            };
            if found.iter().any(|&(name, _)| name == argument) {
                bail!("{argument} is given twice");
            }
            found.push((argument, value));
        }
        Ok(Options(found))
    }

    /// Whether a switch is given.
    pub fn has(&self, switch: &str) -> bool {
        self.0.iter().any(|&(name, _)| name == switch)
    }

    /// The value of an option.
    pub fn text(&self, name: &str, default: &'a str) -> &'a str {
        let given = self.0.iter().find(|&&(given, _)| given == name);
        given.and_then(|&(_, value)| value).unwrap_or(default)
    }

    /// The value of an option that is no text.
    pub fn value<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        let given = self.0.iter().find(|&&(given, _)| given == name);
        match given.and_then(|&(_, value)| value) {
            None => Ok(default),
            Some(text) => text.parse().ok().with_context(|| format!("{name} cannot be `{text}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_mistakes_are_named() {
        let parse = |arguments| Options::parse(arguments, &["--steps", "--seed"], &["--all"]);
        let options = parse(&["--steps", "7", "--all"]).unwrap();
        assert_eq!((options.value("--steps", 1).unwrap(), options.has("--all")), (7, true));
        assert_eq!(options.value("--seed", 3).unwrap(), 3);
        let problem = |arguments| parse(arguments).err().unwrap().to_string();
        assert_eq!(problem(&["--steps"]), "--steps needs a value");
        assert_eq!(problem(&["--all", "--all"]), "--all is given twice");
        assert_eq!(problem(&["--step", "1"]), "`--step` is none of --steps, --seed, --all");
        let bad = parse(&["--steps", "x"]).unwrap().value("--steps", 1);
        assert_eq!(bad.unwrap_err().to_string(), "--steps cannot be `x`");
    }
}
