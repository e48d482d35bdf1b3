//! What the checks allow, with the reasons. An entry that is needed no more is an error, so the
//! lists can only shrink.

use super::arrows::Known;
use super::foreign::Shown;

pub(super) const ARROWS: Known = Known {
    // From the lowest to the highest. Elsewhere any order will do, so long as there is one.
    orders: &[
        ("tinsmith_grad", "error sealed graph ops ragged autobatch exec diagnose calculus"),
        (
            "tinsmith_client",
            "settings dialect report error observe http protocol sampling training custom_loss capabilities rest service builder",
        ),
        (
            "tinsmith_client::http",
            "masked message address no_proxy proxy tls route phase buffer_pool semaphore error_body key_command connection auth retry api download",
        ),
    ],
    up: &[],
    circles: &[
        // Types that contain each other.
        (
            "tinsmith_grad::graph",
            "custom op var",
            "a node holds an op, a custom op takes and gives nodes",
        ),
        (
            "tinsmith_grad::exec::math",
            "arith erf exp hyper log loops polynomial pow real trig",
            "the trait of numbers has each function as a method, and each is written for any such number",
        ),
    ],
};

pub(super) const FOREIGN_TYPES: &[Shown] = &[
    // Tensors are candle's: what goes in and comes out needs no copy.
    ("tinsmith_grad", "candle_core::DType", "of a Var"),
    ("tinsmith_grad", "candle_core::Device", "of a Var"),
    ("tinsmith_grad", "candle_core::Tensor", "values and gradients"),
    ("tinsmith_grad", "candle_core::WithDType", "what an Element is to candle"),
    ("tinsmith_grad", "candle_core::Error", "Error::Backend hands on what candle says"),
    ("tinsmith_grad", "candle_core::Result", "a CustomOp is written in candle's ops"),
    // JSON of any form, and types that go into a user's own files.
    ("tinsmith_wire", "serde::Deserialize", "messages can be read in any format"),
    ("tinsmith_wire", "serde::Serialize", "messages can be written in any format"),
    ("tinsmith_wire", "serde::de::DeserializeOwned", "the bound of its JSON codec"),
    ("tinsmith_wire", "serde_json::Value", "what the protocol leaves open"),
    ("tinsmith_wire", "candle_core::Device", "the feature `candle`"),
    ("tinsmith_wire", "candle_core::Tensor", "the feature `candle`"),
    // A loss may fail in any way of the user's.
    ("tinsmith_client", "anyhow::Error", "Error::LossFailed hands on what the loss said"),
    ("tinsmith_client", "anyhow::Result", "what a loss returns"),
    ("tinsmith_client", "serde::Serialize", "rows of metrics are of the user's types"),
    // A peer for tests and examples, whose model can be called.
    ("tinsmith_trainer", "axum::response::IntoResponse", "errors are replies"),
    ("tinsmith_trainer", "candle_core::DType", "of a model"),
    ("tinsmith_trainer", "candle_core::Error", "becomes one of its own"),
    ("tinsmith_trainer", "candle_core::Tensor", "weights"),
];

/// With the lines that each may have.
pub(super) const LONG_FILES: &[(&str, usize)] = &[];

/// Folders and files whose comments may be wide, and stay so under `--fix`.
pub(super) const WIDE_COMMENTS: &[&str] = &[];
