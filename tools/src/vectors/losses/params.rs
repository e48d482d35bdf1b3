//! The settings of a case, checked off as they are read.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::vectors::number::Number;

/// Settings by name. A case with one that nothing has read is not what it says it tests:
/// [`finish`](Params::finish) refuses it.
pub(super) struct Params<'a> {
    values: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Params<'a> {
    pub fn new(values: &'a Map<String, Value>) -> Params<'a> {
        let read = RefCell::default();
        Params { values, read }
    }

    /// The value of `name`, if it is given and not null.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.read.borrow_mut().insert(name.to_owned());
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let value = T::deserialize(value).with_context(|| format!("reading `{name}`"))?;
                Ok(Some(value))
            }
        }
    }

    pub fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.get(name)?.with_context(|| format!("no `{name}`"))
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        Ok(self.get::<Number>(name)?.map(|number| number.0))
    }

    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.number(name)?.unwrap_or(default))
    }

    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.get(name)?.unwrap_or(default))
    }

    /// The choice that `name` makes among `choices`, or `default`.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)], default: T) -> Result<T> {
        let Some(chosen) = self.get::<String>(name)? else {
            return Ok(default);
        };
        match choices.iter().find(|(name, _)| *name == chosen) {
            Some((_, choice)) => Ok(*choice),
            None => bail!("unknown {name} `{chosen}`"),
        }
    }

    /// Says that `names` mean nothing here.
    pub fn ignore(&self, names: &[&str]) {
        let mut read = self.read.borrow_mut();
        read.extend(names.iter().map(|name| name.to_string()));
    }

    /// An error if there is a setting that nothing has read.
    pub fn finish(&self) -> Result<()> {
        let read = self.read.borrow();
        let unread: Vec<&String> =
            self.values.keys().filter(|&name| !read.contains(name)).collect();
        ensure!(unread.is_empty(), "settings that nothing reads: {unread:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_setting_that_nothing_reads_is_refused() {
        let values = params(r#"{"beta": 0.1, "label_smoothing": 0.2}"#);
        let params = Params::new(&values);
        assert_eq!(params.number("beta").unwrap(), Some(0.1));
        let error = params.finish().unwrap_err().to_string();
        assert_eq!(error, r#"settings that nothing reads: ["label_smoothing"]"#);
        assert_eq!(params.number_or("label_smoothing", 0.0).unwrap(), 0.2);
        assert!(params.finish().is_ok());
    }

    #[test]
    fn a_value_of_another_kind_and_an_unknown_choice_are_refused() {
        let values = params(r#"{"beta": [], "level": "batch", "cap": "Infinity", "h": null}"#);
        let params = Params::new(&values);
        assert!(params.number_or("beta", 1.0).is_err());
        assert!(params.choice("level", &[("token", 1), ("sequence", 2)], 1).is_err());
        assert_eq!(params.number("cap").unwrap(), Some(f64::INFINITY));
        assert_eq!(params.number("h").unwrap(), None);
    }
}
