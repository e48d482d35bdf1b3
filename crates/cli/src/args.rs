//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use tinsmith_client::SamplingParams;

pub const USAGE: &str = "\
Looks after what a training server keeps, and draws the curves of a training run.

Usage: tinsmith [OPTIONS] COMMAND

Commands:
  runs                        List training runs
  checkpoints [RUN]           List the checkpoints of a run, or all
  info RUN|PATH               Show a run, or what a checkpoint was trained from
  delete PATH..               Delete checkpoints
  download PATH [-o FILE]     Fetch a checkpoint, packed as the server does it [default: NAME.tar]
  sample MODEL                Continue a prompt; MODEL is a base model or a checkpoint
  probe                       Show what the server speaks and supports
  plot FILE [NAME..]          Draw the curves of a file of metrics [default: all, to FILE.svg]

A PATH is that of a checkpoint, tinker://RUN/weights/NAME.

Options:
  --json                      Print JSON
  --base-url URL              The server [default: $TINKER_BASE_URL, else the hosted service]
  --fireworks                 The server is Fireworks; the key is $FIREWORKS_API_KEY
  -o, --output FILE           Where a download or a picture goes
  -h, --help                  Print this help
The key is $TINKER_API_KEY, else what the command $TINKER_CREDENTIAL_CMD prints.

Options of sample:
  --tokens 1,2,3              The prompt as token ids
  --bytes TEXT                The prompt as text, a token a byte
  -n, --num-samples N         How many [default: 1]
  --max-tokens N              Most tokens of each [default: 64]
  --temperature T             0 takes the likeliest token [default: 1]
  --seed SEED                 Makes samples repeatable
";

/// What the command line asks for.
pub enum Invocation {
    Help,
    Run(Options, Command),
}

/// How to reach the server, and how to answer.
#[derive(Debug, Default)]
pub struct Options {
    pub json: bool,
    pub base_url: Option<String>,
    pub fireworks: bool,
}

/// What to do.
pub enum Command {
    Runs,
    Checkpoints { run: Option<String> },
    Info { of: String },
    Delete { paths: Vec<String> },
    Download { path: String, output: Option<PathBuf> },
    Sample(SampleArgs),
    Probe,
    Plot { file: PathBuf, names: Vec<String>, output: Option<PathBuf> },
}

/// What to sample.
pub struct SampleArgs {
    pub model: String,
    pub prompt: Vec<u32>,
    /// Whether tokens are bytes, so that samples can be shown as text.
    pub is_text: bool,
    pub num_samples: u32,
    pub params: SamplingParams,
}

pub fn parse() -> Result<Invocation> {
    let mut options = Options::default();
    let mut words: Vec<String> = Vec::new();
    let mut output = None;
    let (mut tokens, mut text) = (None, None);
    let mut num_samples = 1;
    let mut params = SamplingParams::max_tokens(64);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Invocation::Help),
            Long("json") => options.json = true,
            Long("base-url") => options.base_url = Some(args.value()?.string()?),
            Long("fireworks") => options.fireworks = true,
            Short('o') | Long("output") => output = Some(args.value()?.into()),
            Long("tokens") => tokens = Some(token_ids(&args.value()?.string()?)?),
            Long("bytes") => text = Some(args.value()?.string()?),
            Short('n') | Long("num-samples") => num_samples = args.value()?.parse()?,
            Long("max-tokens") => params.max_tokens = Some(args.value()?.parse()?),
            Long("temperature") => params.temperature = args.value()?.parse()?,
            Long("seed") => params.seed = Some(args.value()?.parse()?),
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut words = words.into_iter();
    let Some(name) = words.next() else {
        return Ok(Invocation::Help);
    };
    let mut word = |what: &str| words.next().with_context(|| format!("{name} needs {what}"));
    let command = match name.as_str() {
        "runs" => Command::Runs,
        "checkpoints" => Command::Checkpoints { run: words.next() },
        "info" => Command::Info { of: word("a run or the path of a checkpoint")? },
        "delete" => Command::Delete {
            paths: std::iter::once(word("the path of a checkpoint")?)
                .chain(words.by_ref())
                .collect(),
        },
        "download" => Command::Download { path: word("the path of a checkpoint")?, output },
        "sample" => {
            let is_text = text.is_some();
            let bytes = text.map(|text| text.bytes().map(u32::from).collect());
            Command::Sample(SampleArgs {
                model: word("a model")?,
                prompt: tokens.or(bytes).context("sample needs a prompt: --tokens or --bytes")?,
                is_text,
                num_samples,
                params,
            })
        }
        "probe" => Command::Probe,
        "plot" => Command::Plot {
            file: word("a file of metrics")?.into(),
            names: words.by_ref().collect(),
            output,
        },
        other => bail!("there is no command {other:?}; see tinsmith --help"),
    };
    if let Some(more) = words.next() {
        bail!("{more:?} is one argument too many for {name}");
    }
    Ok(Invocation::Run(options, command))
}

fn token_ids(list: &str) -> Result<Vec<u32>> {
    let id = |text: &str| text.trim().parse().with_context(|| format!("{text:?} is no token id"));
    list.split(',').map(id).collect()
}
