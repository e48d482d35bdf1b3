//! Parts of sentences about a loss.

use std::fmt;

use tinsmith_grad as grad;

/// The loss, or a term of it.
pub(super) struct Whose<'a>(pub &'a Option<String>);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the loss"),
            Some(name) => write!(f, "the term {name:?} of the loss"),
        }
    }
}

pub(super) struct Because<'a>(pub &'a Option<Box<grad::Error>>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

/// A few numbers in full, many cut short.
pub(super) struct List<'a>(pub &'a [usize]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().take(8).map(usize::to_string).collect();
        f.write_str(&shown.join(", "))?;
        match self.0.len() {
            n if n > 8 => write!(f, " and {} more", n - 8),
            _ => Ok(()),
        }
    }
}
