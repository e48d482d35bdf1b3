//! What is wrong with a message, and where in it.

use std::fmt::Display;

/// A reason and the path to where it holds, which grows from the inside out.
#[derive(Debug)]
pub struct Fault {
    pub path: String,
    pub reason: String,
}

impl Fault {
    pub fn new(reason: impl Into<String>) -> Self {
        Fault { path: String::new(), reason: reason.into() }
    }

    /// The fault as seen from the message that holds `field`.
    pub fn within(mut self, field: impl Display) -> Self {
        self.path = match self.path.is_empty() {
            true => field.to_string(),
            false => format!("{field}.{}", self.path),
        };
        self
    }
}

impl From<crate::Error> for Fault {
    fn from(error: crate::Error) -> Self {
        Fault::new(error.to_string())
    }
}

pub type Result<T> = std::result::Result<T, Fault>;

/// [`Fault::within`] on results. The field is formatted only when there is a fault.
pub trait Within<T> {
    fn within(self, field: impl Display) -> Result<T>;
}

impl<T, E: Into<Fault>> Within<T> for std::result::Result<T, E> {
    fn within(self, field: impl Display) -> Result<T> {
        self.map_err(|fault| fault.into().within(field))
    }
}

/// Converts every item; a fault names its index.
pub fn each<A, B>(
    field: &str,
    items: impl IntoIterator<Item = A>,
    convert: impl Fn(A) -> Result<B>,
) -> Result<Vec<B>> {
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| convert(item).within(format_args!("{field}[{i}]")))
        .collect()
}
