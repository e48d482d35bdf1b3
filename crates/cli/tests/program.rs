//! The program, against a local trainer.

use std::process::{Command, Output};

use serde_json::Value;
use tinsmith_client::{LoraConfig, ServiceClient};
use tinsmith_trainer::Trainer;

fn tinsmith(trainer: &Trainer, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tinsmith"))
        .args(["--base-url", &trainer.url()])
        .args(args)
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

#[test]
fn checkpoints_are_listed_shown_and_deleted() {
    let trainer = Trainer::spawn().unwrap();
    let service = ServiceClient::builder().base_url(trainer.url()).connect().unwrap();
    let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(4)).unwrap();
    let path = training.save_state("kept").unwrap().result().unwrap().path;
    let run = training.model_id();
    let list = printed(&tinsmith(&trainer, &["checkpoints", run]));
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("path") && lines[1].starts_with(&path), "{list}");
    assert_eq!(lines.len(), 2);
    let list = json(&tinsmith(&trainer, &["--json", "checkpoints", run]));
    assert_eq!(list[0]["tinker_path"], path.as_str());
    let info = json(&tinsmith(&trainer, &["info", &path, "--json"]));
    assert_eq!((&info["base_model"], &info["lora_rank"]), (&"tiny-qwen3".into(), &4.into()));
    assert_eq!(printed(&tinsmith(&trainer, &["delete", &path])), format!("deleted {path}\n"));
    assert_eq!(json(&tinsmith(&trainer, &["checkpoints", run, "--json"])), Value::Array(vec![]));
    let again = tinsmith(&trainer, &["delete", &path]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("404"));
}

#[test]
fn samples_are_repeatable_and_the_server_is_probed() {
    let trainer = Trainer::spawn().unwrap();
    let args = ["sample", "tiny-qwen3", "--tokens", "1,2,3", "--seed", "7", "--max-tokens", "5"];
    let first = printed(&tinsmith(&trainer, &args));
    assert!(first.trim().split(',').all(|id| id.parse::<u32>().is_ok()), "{first}");
    assert_eq!(printed(&tinsmith(&trainer, &args)), first);
    let found = json(&tinsmith(&trainer, &["--json", "probe"]));
    assert_eq!(found["health"], "yes");
    assert!(printed(&tinsmith(&trainer, &["probe"])).contains("tiny-qwen3"));
}

#[test]
fn mistakes_are_told() {
    let trainer = Trainer::spawn().unwrap();
    let complaint = |args: &[&str]| {
        let output = tinsmith(&trainer, args);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(complaint(&["shine"]).contains("there is no command \"shine\""));
    assert!(complaint(&["info"]).contains("info needs a run or the path of a checkpoint"));
    assert!(complaint(&["sample", "tiny-qwen3"]).contains("--tokens or --bytes"));
    assert!(complaint(&["sample", "m", "--tokens", "1,x"]).contains("\"x\" is no token id"));
    assert!(complaint(&["probe", "again"]).contains("one argument too many"));
    assert!(complaint(&["delete", "weights/a"]).contains("is not a path such as tinker://"));
    assert!(printed(&tinsmith(&trainer, &["--help"])).contains("Usage: tinsmith"));
}

#[cfg(unix)]
#[test]
fn the_key_may_come_from_a_command() {
    let trainer = Trainer::builder().api_key("tml-printed").spawn().unwrap();
    let probe = |command: &str| {
        Command::new(env!("CARGO_BIN_EXE_tinsmith"))
            .args(["--base-url", &trainer.url(), "probe"])
            .env_remove("TINKER_API_KEY")
            .env("TINKER_CREDENTIAL_CMD", command)
            .output()
            .unwrap()
    };
    assert!(printed(&probe("echo tml-printed")).contains("tiny-qwen3"));
    let failed = probe("echo locked >&2; exit 4");
    let told = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success() && told.contains("ended with exit status: 4: locked"),
        "{told}"
    );
}
