//! Arguments of the form `--name value`.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// What was given, each at most once.
pub struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    /// Reads arguments of these names.
    pub fn parse(arguments: &[&'a str], names: &[&str]) -> Result<Self> {
        let mut found = Vec::new();
        let mut arguments = arguments.iter().copied();
        while let Some(argument) = arguments.next() {
            if !names.contains(&argument) {
                bail!("`{argument}` is none of {}", names.join(", "));
            }
            let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
            if found.iter().any(|&(name, _)| name == argument) {
                bail!("{argument} is given twice");
            }
            found.push((argument, value));
        }
        Ok(Options(found))
    }

    /// The value of an option.
    pub fn text(&self, name: &str, default: &'a str) -> &'a str {
        let given = self.0.iter().find(|&&(given, _)| given == name);
        given.map_or(default, |&(_, value)| value)
    }

    /// The value of an option that is no text.
    pub fn value<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        let given = self.0.iter().find(|&&(given, _)| given == name);
        match given.map(|&(_, value)| value) {
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
        let parse = |arguments| Options::parse(arguments, &["--steps", "--seed"]);
        let options = parse(&["--steps", "7"]).unwrap();
        assert_eq!(options.value("--steps", 1).unwrap(), 7);
        assert_eq!(options.value("--seed", 3).unwrap(), 3);
        let problem = |arguments| parse(arguments).err().unwrap().to_string();
        assert_eq!(problem(&["--steps"]), "--steps needs a value");
        assert_eq!(problem(&["--seed", "1", "--seed", "2"]), "--seed is given twice");
        assert_eq!(problem(&["--step", "1"]), "`--step` is none of --steps, --seed");
        let bad = parse(&["--steps", "x"]).unwrap().value("--steps", 1);
        assert_eq!(bad.unwrap_err().to_string(), "--steps cannot be `x`");
    }
}
