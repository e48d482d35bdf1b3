use super::{OURS, Row};

const MIB: f64 = (1 << 20) as f64;

/// Two Markdown tables: whole steps, of all clients, each with the ratio to ours; and our phases.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = "\n| dialect | workload | client | CPU | / ours | wall | / ours | sent | received | memory: data made | peak | peak / ours |\n\
        | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by_key(|row| (row.dialect, &row.workload, row.client != OURS, &row.client));
    for row in &sorted {
        let same = |other: &&Row| {
            other.client == OURS
                && (&other.dialect, &other.workload) == (&row.dialect, &row.workload)
        };
        let ours = rows.iter().find(same);
        let over = |of: fn(&Row) -> f64| match ours {
            Some(ours) if row.client != OURS => format!("{:.2}", of(row) / of(ours)),
            _ => String::new(),
        };
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / MIB);
        text += &format!(
            "| {} | {} | {} | {:.1} ms | {} | {:.1} ms | {} | {} | {} | {} | {} | {} |\n",
            row.dialect.name(),
            row.workload,
            row.client,
            row.cpu_ms,
            over(|row| row.cpu_ms),
            row.wall_ms,
            over(|row| row.wall_ms),
            mib(row.bytes_to_server),
            mib(row.bytes_to_client),
            mib(row.resident_before),
            mib(row.resident_peak),
            over(|row| row.resident_peak as f64),
        );
    }
    let ours = sorted.iter().filter(|row| row.client == OURS);
    for (i, row) in ours.enumerate() {
        if i == 0 {
            let names: Vec<&str> = row.phases.iter().map(|phase| &*phase.name).collect();
            text += &format!(
                "\n| dialect | workload | {} |\n| --- | ---{} |\n",
                names.join(" | "),
                " | ---:".repeat(names.len())
            );
        }
        text += &format!("| {} | {} |", row.dialect.name(), row.workload);
        for phase in &row.phases {
            text += &format!(" {:.1} of {:.1} ms |", phase.cpu_ms, phase.wall_ms);
        }
        text += "\n";
    }
    text
}
