//! Named numbers beside a result.

use std::{collections::BTreeMap, ops::Index};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use crate::numbers::Number;

/// Named numbers beside a result. Names are `name:reduction`, such as `loss:sum`.
///
/// ```
/// use tinsmith_wire::Metrics;
/// let metrics: Metrics = [("loss:sum", 1.5)].into_iter().collect();
/// assert_eq!(metrics["loss:sum"], 1.5);
/// assert_eq!(metrics.get("lr"), None);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    values: BTreeMap<String, f64>,
    /// `hash2` metrics whose value an `f64` would round.
    exact: BTreeMap<String, u64>,
}

impl Metrics {
    /// The value of this name. An integer above 2^53 is rounded, see
    /// [`exact_u64`](Self::exact_u64).
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// The value of this name as an integer, when it is one; exact up to 2^64 - 1.
    ///
    /// ```
    /// use tinsmith_wire::Metrics;
    /// let mut metrics = Metrics::default();
    /// metrics.insert_u64("data:hash2", u64::MAX);
    /// assert_eq!(metrics.exact_u64("data:hash2"), Some(u64::MAX));
    /// assert_eq!(metrics["data:hash2"], 2f64.powi(64)); // rounded
    /// ```
    pub fn exact_u64(&self, name: &str) -> Option<u64> {
        let exact = self.exact.get(name).copied();
        exact.or_else(|| {
            let x = self.get(name)?;
            (x >= 0.0 && x.fract() == 0.0 && x < 2f64.powi(53)).then_some(x as u64)
        })
    }

    /// Sets a value, in place of an earlier one.
    ///
    /// ```
    /// use tinsmith_wire::Metrics;
    /// let mut metrics = Metrics::default();
    /// metrics.insert("loss:sum", 1.0);
    /// metrics.insert("loss:sum", 2.0);
    /// assert_eq!((metrics.len(), metrics.remove("loss:sum")), (1, Some(2.0)));
    /// assert!(metrics.is_empty());
    /// ```
    pub fn insert(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        self.exact.remove(&name);
        self.values.insert(name, value);
    }

    /// Sets an integer that an `f64` may not hold.
    pub fn insert_u64(&mut self, name: impl Into<String>, value: u64) {
        let name = name.into();
        if value >= 1 << 53 {
            self.exact.insert(name.clone(), value);
        }
        self.values.insert(name, value as f64);
    }

    /// Takes a value out.
    pub fn remove(&mut self, name: &str) -> Option<f64> {
        self.exact.remove(name);
        self.values.remove(name)
    }

    /// Names and values, by name.
    ///
    /// ```
    /// use tinsmith_wire::Metrics;
    /// let metrics: Metrics = [("b:mean", 2.0), ("a:sum", 1.0)].into_iter().collect();
    /// assert_eq!(metrics.iter().collect::<Vec<_>>(), [("a:sum", 1.0), ("b:mean", 2.0)]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(name, &value)| (name.as_str(), value))
    }

    /// Number of metrics.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl Index<&str> for Metrics {
    type Output = f64;

    /// The value of this name.
    ///
    /// # Panics
    /// When there is none. Which metrics there are is up to the server, so a program that is to
    /// run against several asks [`Metrics::get`].
    ///
    /// ```should_panic
    /// let metrics: tinsmith_wire::Metrics = [("loss:sum", 1.5)].into_iter().collect();
    /// metrics["loss:mean"]; // no metric "loss:mean" among ["loss:sum"]; `Metrics::get` gives ..
    /// ```
    fn index(&self, name: &str) -> &f64 {
        match self.values.get(name) {
            Some(value) => value,
            None => panic!(
                "no metric {name:?} among {:?}; `Metrics::get` gives None for a name that may be \
                 missing",
                self.values.keys()
            ),
        }
    }
}

impl<S: Into<String>> FromIterator<(S, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (S, f64)>>(metrics: I) -> Self {
        let mut all = Metrics::default();
        all.extend(metrics);
        all
    }
}

impl<S: Into<String>> Extend<(S, f64)> for Metrics {
    fn extend<I: IntoIterator<Item = (S, f64)>>(&mut self, metrics: I) {
        for (name, value) in metrics {
            self.insert(name, value);
        }
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some((name, value)) = self.iter().find(|(_, x)| !x.is_finite()) {
            let message = format!("metric {name:?} is {value}, which JSON cannot carry");
            return Err(ser::Error::custom(message));
        }
        serializer.collect_map(self.iter().map(|(name, value)| {
            let number = match self.exact.get(name) {
                Some(&exact) => exact.into(),
                None => serde_json::json!(value),
            };
            (name, number)
        }))
    }
}

impl<'de> Deserialize<'de> for Metrics {
    /// A null value reads as NaN, which is what many servers mean by it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut metrics = Metrics::default();
        for (name, number) in BTreeMap::<String, Number>::deserialize(deserializer)? {
            match number {
                Number::Int(i) if i >= 0 => metrics.insert_u64(name, i as u64),
                Number::Large(exact) => metrics.insert_u64(name, exact),
                Number::Int(_) | Number::Float(_) => metrics.insert(name, number.into()),
            }
        }
        Ok(metrics)
    }
}
