//! What the commands do.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use tinsmith_client::{
    Capabilities, CheckpointPath, ModelInput, RestClient, ServiceClient, ServiceClientBuilder,
    StderrProgress, wire::Checkpoint,
};

use crate::{
    args::{Command, Options, SampleArgs},
    new_file, plot,
    table::table,
};

pub fn run(options: &Options, command: Command) -> Result<()> {
    let builder = builder(options);
    match command {
        Command::Runs => runs(options, &builder.rest()?),
        Command::Checkpoints { run } => checkpoints(options, &builder.rest()?, run.as_deref()),
        Command::Info { of } => info(options, &builder.rest()?, &of),
        Command::Delete { paths } => delete(options, &builder.rest()?, &paths),
        Command::Download { path, output } => download(options, &builder.rest()?, &path, output),
        Command::Sample(args) => sample(options, &builder.connect()?, &args),
        Command::Probe => probe(options, &builder.connect()?),
        Command::Plot { file, names, output } => plot::run(&file, &names, output),
    }
}

fn builder(options: &Options) -> ServiceClientBuilder {
    let mut builder = ServiceClient::builder().progress(StderrProgress);
    if options.fireworks {
        builder = builder.fireworks();
    }
    if let Some(url) = &options.base_url {
        builder = builder.base_url(url);
    }
    builder
}

/// The value as JSON, or as people read it.
fn show(options: &Options, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    if options.json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        print!("{}", text());
    }
    Ok(())
}

fn runs(options: &Options, rest: &RestClient) -> Result<()> {
    let runs = rest.training_runs()?;
    show(options, &runs, || {
        let rows: Vec<_> = runs
            .iter()
            .map(|run| {
                let rank = run.lora_rank.map_or("-".to_owned(), |rank| rank.to_string());
                [
                    run.training_run_id.clone(),
                    run.base_model.clone(),
                    rank,
                    run.last_request_time.clone(),
                ]
            })
            .collect();
        table(["run", "base model", "rank", "last used"], &rows)
    })
}

fn checkpoints(options: &Options, rest: &RestClient, run: Option<&str>) -> Result<()> {
    let found = match run {
        Some(run) => rest.checkpoints(run)?,
        None => rest.all_checkpoints()?,
    };
    show(options, &found, || {
        let row = |checkpoint: &Checkpoint| {
            let size = checkpoint.size_bytes.map_or("-".to_owned(), human_size);
            let expires = checkpoint.expires_at.clone().unwrap_or("-".to_owned());
            let (path, time) = (&checkpoint.tinker_path, &checkpoint.time);
            [path.clone(), time.clone(), size, expires]
        };
        let rows: Vec<_> = found.iter().map(row).collect();
        table(["path", "made", "size", "expires"], &rows)
    })
}

fn info(options: &Options, rest: &RestClient, of: &str) -> Result<()> {
    let value = if of.starts_with("tinker://") {
        serde_json::to_value(rest.weights_info(of)?)?
    } else {
        serde_json::to_value(rest.training_run(of)?)?
    };
    show(options, &value, || {
        let fields = value.as_object().into_iter().flatten();
        let rows: Vec<_> = fields
            .map(|(name, value)| {
                let text = value.as_str().map(str::to_owned);
                [name.clone(), text.unwrap_or_else(|| value.to_string())]
            })
            .collect();
        table(["field", "value"], &rows)
    })
}

fn delete(options: &Options, rest: &RestClient, paths: &[String]) -> Result<()> {
    for path in paths {
        rest.delete_checkpoint(path).with_context(|| format!("cannot delete {path}"))?;
    }
    show(options, &json!({"deleted": paths}), || {
        paths.iter().map(|path| format!("deleted {path}\n")).collect()
    })
}

fn download(
    options: &Options,
    rest: &RestClient,
    path: &str,
    output: Option<PathBuf>,
) -> Result<()> {
    let id = path.parse::<CheckpointPath>()?.checkpoint_id;
    let name = id.rsplit('/').next().unwrap_or(&id);
    let output = output.unwrap_or_else(|| format!("{name}.tar").into());
    let archive = rest.archive_url(path)?;
    let bytes = new_file::write(&output, |file| Ok(rest.download(&archive.url, file)?))?;
    show(options, &json!({"file": output, "bytes": bytes}), || {
        format!("{}: {}\n", output.display(), human_size(bytes))
    })
}

fn sample(options: &Options, service: &ServiceClient, args: &SampleArgs) -> Result<()> {
    let sampler = service.create_sampling_client(&args.model)?;
    let prompt = ModelInput::from_tokens(args.prompt.clone());
    let answer = sampler.sample(&prompt, args.num_samples, &args.params)?.result()?;
    show(options, &answer, || {
        let text = |tokens: &[u32]| match args.is_text {
            true => {
                let bytes: Vec<u8> =
                    tokens.iter().map(|&id| id.try_into().unwrap_or(b'?')).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            false => tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        };
        let sequences = answer.sequences.iter();
        sequences.map(|sequence| text(&sequence.tokens) + "\n").collect()
    })
}

fn probe(options: &Options, service: &ServiceClient) -> Result<()> {
    let found = service.capabilities()?;
    show(options, &found, || capabilities(&found))
}

fn capabilities(found: &Capabilities) -> String {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let mut rows = vec![
        row("dialect", format!("{:?}", found.dialect)),
        row("health", format!("{:?}", found.health)),
        row("training runs", format!("{:?}", found.training_runs)),
        row("all checkpoints", format!("{:?}", found.checkpoints)),
        row("sessions", format!("{:?}", found.sessions)),
    ];
    if let Some(config) = &found.client_config {
        let (data, bytes) = (config.fwdbwd_max_chunk_len, config.fwdbwd_max_chunk_bytes_count);
        rows.push(row("a request holds", format!("{data} data, {bytes} bytes")));
    }
    for model in &found.models {
        rows.push(row("model", model.model_name.clone()));
    }
    table(["what", "answer"], &rows)
}

fn human_size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::human_size;

    #[test]
    fn sizes_are_short() {
        let sizes = [999, 1_000, 1_250_000, 3_400_000_000].map(human_size);
        assert_eq!(sizes, ["999 B", "1.0 kB", "1.2 MB", "3.4 GB"]);
    }
}
