//! Options: structs that may grow, made from their defaults by one setter after another.

/// A struct, and a setter for each of its fields with the field's documentation.
macro_rules! settings {
    ($(#[$attribute:meta])* pub struct $Name:ident {
        $($(#[$doc:meta])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[$attribute])*
        pub struct $Name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl $Name {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}
pub(crate) use settings;
