//! `cargo xtask soak | kills | crowd`: what the tests of reliability do in seconds, for as long as
//! is wanted, with figures.

mod crowd;
#[cfg(unix)]
mod kills;
mod options;
mod soak;

pub use crowd::run as crowd;
#[cfg(unix)]
pub use kills::{party, run as kills};
pub use soak::run as soak;

use options::Options;

/// A Markdown table of two columns.
fn print_table(head: [&str; 2], rows: &[(String, String)]) {
    let widest = rows.iter().map(|(name, _)| name.len()).chain([head[0].len()]).max();
    let width = widest.unwrap_or_default();
    println!("\n| {:width$} | {} |", head[0], head[1]);
    println!("| {:-<width$} | ---: |", "");
    for (name, value) in rows {
        println!("| {name:width$} | {value} |");
    }
}

fn yes_or_no(is_so: bool) -> String {
    if is_so { "yes" } else { "NO" }.to_owned()
}
