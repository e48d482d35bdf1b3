//! What can be wrong with a datum.

use std::fmt;

use tinsmith_wire::DType;

/// What is wrong with a tensor or a text.
///
/// ```
/// use tinsmith_client::{Datum, DatumProblem, Error, LoraConfig, LossFn, ModelInput, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// let datum = Datum::new(ModelInput::default()).with("target_tokens", vec![2i64]);
/// match training.forward(&[datum], LossFn::CrossEntropy, None) {
///     Err(Error::Datum { index: 0, field, problem: DatumProblem::Empty }) => assert_eq!(field, "model_input"),
///     other => panic!("{other:?}"),
/// }
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DatumProblem {
    /// It is not there.
    Missing,
    /// It has nothing in it.
    Empty,
    /// It has another dtype than needed.
    DType {
        /// The dtype needed.
        expected: DType,
        /// The dtype found.
        found: DType,
    },
    /// Its shape does not fit the rest of the datum.
    Shape {
        /// The shape found.
        found: Vec<usize>,
        /// What it must agree with, in words.
        expected: String,
    },
    /// It is sparse where only dense will do.
    Sparse,
    /// It holds a NaN or an infinity.
    NonFinite {
        /// Where, row-major.
        position: usize,
        /// The value.
        value: f32,
    },
    /// It holds a token id that is negative or does not fit 31 bits.
    TokenOutOfRange {
        /// Where, row-major.
        position: usize,
        /// The id.
        token: i64,
    },
    /// It cannot be converted.
    Unusable(String),
}

impl fmt::Display for DatumProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatumProblem::Missing => f.write_str("is missing"),
            DatumProblem::Empty => f.write_str("is empty"),
            DatumProblem::DType { expected, found } => {
                write!(f, "is {found}, it must be {expected}")
            }
            DatumProblem::Shape { found, expected } => {
                write!(f, "has shape {found:?}, it must be {expected}")
            }
            DatumProblem::Sparse => f.write_str("is sparse, it must be dense"),
            DatumProblem::NonFinite { position, value } => {
                write!(f, "is {value} at element {position}, it must be finite")
            }
            DatumProblem::TokenOutOfRange { position, token } => {
                write!(f, "has token id {token} at element {position}, it must be in 0..2^31")
            }
            DatumProblem::Unusable(reason) => write!(f, "cannot be used: {reason}"),
        }
    }
}
