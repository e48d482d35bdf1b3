use std::time::Duration;

use serde::Serialize;
use tinsmith_wire::Metrics;

/// A term of a loss, evaluated.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TermReport {
    /// `loss`, or the name given to [`Loss::regularize`](crate::Loss::regularize).
    pub name: String,
    /// What it is multiplied by.
    pub weight: f64,
    /// Its value, before that.
    pub value: f64,
    /// The Euclidean norm of its gradient by the logprobs, weight included, if
    /// [`Loss::gradient_norms`](crate::Loss::gradient_norms) asked for it.
    pub gradient_norm: Option<f64>,
    /// Its own metrics: [`Loss::term_metric`](crate::Loss::term_metric).
    pub metrics: Metrics,
    /// What it and its gradient take to evaluate by themselves, if
    /// [`Loss::time_terms`](crate::Loss::time_terms) asked for it; in JSON in seconds.
    #[serde(serialize_with = "seconds")]
    pub time: Option<Duration>,
}

impl TermReport {
    /// What it adds to the loss.
    pub fn weighted(&self) -> f64 {
        self.weight * self.value
    }

    /// Its numbers, as the metrics of a result name them.
    fn numbers(&self) -> impl Iterator<Item = (String, f64)> {
        let name = &self.name;
        let named = |what: &str, x: f64| (format!("loss/{name}{what}"), x);
        let always = [named("", self.value), named(":weighted", self.weighted())];
        let norm = self.gradient_norm.map(|norm| named(":grad_norm", norm));
        let time = self.time.map(|time| named(":seconds", time.as_secs_f64()));
        let own = self.metrics.iter().map(move |(own, x)| (format!("loss/{name}/{own}"), x));
        always.into_iter().chain(norm).chain(time).chain(own)
    }
}

/// The numbers of all terms. Of a loss of one term that nothing was asked of there are none: its
/// value is `loss:sum`.
pub(crate) fn metrics_of(terms: &[TermReport]) -> Vec<(String, f64)> {
    if let [only] = terms
        && only.gradient_norm.is_none()
        && only.time.is_none()
        && only.metrics.is_empty()
    {
        return Vec::new();
    }
    terms.iter().flat_map(TermReport::numbers).collect()
}

fn seconds<S: serde::Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(name: &str) -> TermReport {
        TermReport {
            name: name.into(),
            weight: 0.5,
            value: 3.0,
            gradient_norm: None,
            metrics: Metrics::default(),
            time: None,
        }
    }

    #[test]
    fn each_number_has_the_name_of_its_term() {
        let measured = TermReport {
            gradient_norm: Some(2.0),
            metrics: [("max", 7.0)].into_iter().collect(),
            time: Some(Duration::from_millis(250)),
            ..term("kl")
        };
        let found = metrics_of(&[term("loss"), measured]);
        let found: Vec<_> = found.iter().map(|(name, x)| (name.as_str(), *x)).collect();
        let loss = [("loss/loss", 3.0), ("loss/loss:weighted", 1.5)];
        let kl = [
            ("loss/kl", 3.0),
            ("loss/kl:weighted", 1.5),
            ("loss/kl:grad_norm", 2.0),
            ("loss/kl:seconds", 0.25),
            ("loss/kl/max", 7.0),
        ];
        assert_eq!(found, [&loss[..], &kl[..]].concat());
        assert_eq!(metrics_of(&[term("loss")]), []);
    }
}
