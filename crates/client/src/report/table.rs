use std::fmt;
use std::time::Duration;

use tinsmith_wire::GradAccumulationNormalization;

use super::{Normalization, StepReport, metrics_of};

/// Several lines, aligned.
impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![("loss".to_owned(), number(self.loss))];
        if !metrics_of(&self.terms).is_empty() {
            for term in &self.terms {
                let norm =
                    term.gradient_norm.map(|norm| format!(", gradient norm {}", number(norm)));
                let time = term.time.map(|time| format!(", {}", duration(time)));
                let value = format!(
                    "{} = {} x {}{}{}",
                    number(term.weighted()),
                    number(term.weight),
                    number(term.value),
                    norm.unwrap_or_default(),
                    time.unwrap_or_default()
                );
                rows.push((format!("  {}", term.name), value));
                let own = term.metrics.iter();
                rows.extend(own.map(|(name, x)| (format!("    {name}"), number(x))));
            }
        }
        rows.extend(self.metrics.iter().map(|(name, value)| (name.to_owned(), number(value))));
        let gradient = &self.gradient;
        let zeros = format!("{:.1} % zeros", gradient.zeros * 100.0);
        rows.push((
            "gradient".to_owned(),
            format!("norm {}, max {}, {zeros}", number(gradient.norm), number(gradient.max_abs)),
        ));
        if let Some(Normalization { by, count }) = self.normalization {
            let what = match by {
                GradAccumulationNormalization::NumLossTokens => "loss tokens",
                GradAccumulationNormalization::NumSequences => "sequences",
                GradAccumulationNormalization::None => "nothing",
            };
            rows.push(("  divided by".to_owned(), format!("{count} {what}")));
        }
        if let Some(gap) = &self.rollout {
            let outside = gap.outside * 100.0;
            rows.push((
                "rollout".to_owned(),
                format!(
                    "k1 {}, k3 {} nats, ratio mean {}, max {}, {outside:.1} % outside 0.8 to 1.2",
                    number(gap.k1),
                    number(gap.k3),
                    number(gap.mean_ratio),
                    number(gap.max_ratio)
                ),
            ));
        }
        if let Some(drift) = &self.drift {
            let drift =
                format!("max {}, mean {} nats", number(drift.max_abs), number(drift.mean_abs));
            rows.push(("drift".to_owned(), drift));
        }
        if let Some(check) = &self.surrogate {
            let verdict = if check.agrees { "agrees" } else { "DISAGREES" };
            let value = format!(
                "{}, the server {}: {verdict}",
                number(check.expected),
                number(check.server)
            );
            rows.push(("surrogate loss".to_owned(), value));
        }
        let used = [
            ("forward", self.usage.forward_tokens, self.usage.forward_sequences),
            ("backward", self.usage.forward_backward_tokens, self.usage.forward_backward_sequences),
        ];
        let used = used.iter().filter(|(_, tokens, _)| *tokens > 0);
        let used: Vec<String> = used
            .map(|(pass, tokens, sequences)| format!("{pass} {tokens} in {sequences} sequences"))
            .collect();
        if !used.is_empty() {
            rows.push(("tokens".to_owned(), used.join(", ")));
        }
        let phases = [
            ("forward", self.times.forward),
            ("loss", self.times.loss),
            ("submit", self.times.submit),
            ("backward", self.times.backward),
        ];
        let phases = phases.map(|(name, time)| format!("{name} {}", duration(time)));
        rows.push(("time".to_owned(), phases.join(", ")));
        let bytes = [("sent", self.bytes_sent), ("received", self.bytes_received)];
        let bytes = bytes.map(|(name, bytes)| format!("{name} {}", size(bytes)));
        rows.push(("bodies".to_owned(), bytes.join(", ")));
        rows.extend(
            self.warnings.iter().map(|warning| ("warning".to_owned(), warning.to_string())),
        );

        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (i, (name, value)) in rows.iter().enumerate() {
            let end = if i + 1 < rows.len() { "\n" } else { "" };
            write!(f, "{name:width$}  {value}{end}")?;
        }
        Ok(())
    }
}

/// Six digits, whatever the magnitude.
fn number(x: f64) -> String {
    let magnitude = x.abs();
    match magnitude {
        0.0 => "0".to_owned(),
        1e-4..1e6 => {
            let decimals = (5 - magnitude.log10().floor() as i32).clamp(0, 9) as usize;
            let fixed = format!("{x:.decimals$}");
            let trimmed = if fixed.contains('.') {
                fixed.trim_end_matches('0').trim_end_matches('.')
            } else {
                &fixed
            };
            trimmed.to_owned()
        }
        _ => format!("{x:.5e}"),
    }
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        b => format!("{b} B"),
    }
}

fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.2} s"),
        s => format!("{:.1} ms", s * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_six_digits() {
        let shown = [0.0, -1.5, 0.000_123_456_7, 123_456.78, 2.5e-7, 1e9].map(number);
        assert_eq!(shown, ["0", "-1.5", "0.000123457", "123457", "2.50000e-7", "1.00000e9"]);
    }
}
