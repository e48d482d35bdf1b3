//! Python environments under `target/interop`, each made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::target_folder;

/// A scratch folder for one peer.
pub fn folder(name: &str) -> Result<PathBuf> {
    let folder = target_folder()?.join("interop").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// `folder`, empty.
pub fn emptied(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("clearing {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder.to_path_buf())
}

/// What an environment has, in pip's words.
#[derive(Default)]
pub struct Packages<'a> {
    /// With all that they ask for.
    pub complete: Vec<&'a str>,
    /// Without it.
    pub alone: &'a [&'a str],
}

impl<'a> Packages<'a> {
    /// The lines of a requirements file.
    pub fn listed(requirements: &'a str) -> Self {
        let lines = requirements.lines().map(str::trim);
        Self {
            complete: lines.filter(|l| !l.is_empty() && !l.starts_with('#')).collect(),
            alone: &[],
        }
    }
}

/// The interpreter of a virtual environment in `folder` that has `packages`.
///
/// PyTorch is large. With `TORCH_SITE` set to a `site-packages` that has it, it is taken from there
/// and not installed; `PYTHON` names the interpreter to start from.
pub fn python(folder: &Path, packages: &Packages) -> Result<PathBuf> {
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    let complete = venv.join(".complete");
    let all: Vec<&str> = packages.complete.iter().chain(packages.alone).copied().collect();
    let wanted = all.join("\n");
    if fs::read_to_string(&complete).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("installing {} into {}", all.join(", "), venv.display());
    let interpreter = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    run(Command::new(interpreter).args(["-m", "venv"]).arg(&venv))?;
    let borrowed = std::env::var("TORCH_SITE").ok();
    let installed = packages.complete.iter().filter(|p| borrowed.is_none() || !is_torch(p));
    let pip = || {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet"]);
        pip
    };
    run(pip().args(installed))?;
    if !packages.alone.is_empty() {
        run(pip().arg("--no-deps").args(packages.alone))?;
    }
    if let Some(site) = borrowed {
        borrow(&python, &site)?;
    }
    fs::write(complete, wanted).context("marking the environment complete")?;
    Ok(python)
}

/// Lets an environment see the packages in `site` behind its own.
fn borrow(python: &Path, site: &str) -> Result<()> {
    let own = Command::new(python)
        .args(["-c", "import site; print(site.getsitepackages()[0])"])
        .output()
        .context("asking for site-packages")?;
    let own = PathBuf::from(String::from_utf8_lossy(&own.stdout).trim());
    let line = format!("import sys; sys.path.append({site:?})\n");
    fs::write(own.join("zz_borrowed.pth"), line).context("writing zz_borrowed.pth")
}

fn is_torch(package: &str) -> bool {
    package == "torch" || package.starts_with("torch==")
}

/// Runs `command`; it must end well.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
