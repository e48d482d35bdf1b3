//! Tables for people.

use std::fmt::Write;

/// Rows below a header, each column as wide as its widest entry.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let entries = rows.iter().map(|row| row[column].chars().count());
        entries.fold(header[column].chars().count(), usize::max)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    let header = header.map(str::to_owned);
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (entry, width) in row.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{entry:width$}  ");
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let rows = [["a".into(), "long entry".into()], ["long".into(), "ü".into()]];
        let expected = "id    what\na     long entry\nlong  ü\n";
        assert_eq!(table(["id", "what"], &rows), expected);
        assert_eq!(table(["id"], &[]), "id\n");
    }
}
