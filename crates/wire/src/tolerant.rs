//! Reading tolerantly (what may be missing or null) and writing strictly (no NaN).

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

/// Null reads as the default. Pair with `#[serde(default)]`, for a missing field.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// For `skip_serializing_if`.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Refuses what JSON cannot carry; serde_json alone would write `null`.
pub(crate) fn finite<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if x.is_finite() {
        x.serialize(serializer)
    } else {
        Err(ser::Error::custom(format!("{x} has no JSON form")))
    }
}

/// A struct whose defaults stand beside its fields. Missing and null fields take them; writing
/// spells them out.
macro_rules! with_defaults {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $ty:ty = $default:expr,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                struct Given {
                    $(#[serde(default)] $field: Option<$ty>,)*
                }
                let given = Given::deserialize(deserializer)?;
                Ok($name { $($field: given.$field.unwrap_or_else(|| $default),)* })
            }
        }
    };
}
pub(crate) use with_defaults;
