//! `cargo xtask cuda-check`: type-checks the feature `cuda` with NVIDIA's compiler from Python
//! wheels, so that a machine without CUDA and without a GPU can tell whether a change breaks it.
//! See `docs/cuda.md`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{repository, target_folder};

/// The compiler and its headers. Newer ones than 13.4 are unknown to the bindings that candle uses,
/// which refuse them.
const WHEELS: [&str; 5] = [
    "nvidia-cuda-nvcc==13.2.*",
    "nvidia-cuda-crt==13.2.*",
    "nvidia-nvvm==13.2.*",
    "nvidia-cuda-cccl==13.2.*",
    "nvidia-cuda-runtime==13.2.*",
];

/// Hopper's: what kernels are compiled for where no GPU can be asked.
const COMPUTE_CAPABILITY: &str = "90";

pub fn check() -> Result<()> {
    let toolkit = toolkit()?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "-p", "tinsmith-grad", "--features", "cuda"]).current_dir(repository());
    for variable in ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"] {
        cargo.env(variable, &toolkit);
    }
    if env::var_os("CUDA_COMPUTE_CAP").is_none() {
        cargo.env("CUDA_COMPUTE_CAP", COMPUTE_CAPABILITY);
    }
    cargo.env("PATH", with_front(&toolkit.join("bin"))?);
    let status = cargo.status().context("starting cargo check")?;
    ensure!(status.success(), "cargo check --features cuda: {status}");
    println!("cuda-check: ok");
    Ok(())
}

/// The folder with `bin/nvcc`, downloaded on first use.
fn toolkit() -> Result<PathBuf> {
    let folder = target_folder()?.join("cuda-toolkit");
    if !folder.is_dir() {
        let partial = folder.with_extension("partial");
        println!("downloading {} to {}", WHEELS.join(", "), folder.display());
        let status = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"])
            .arg(&partial)
            .args(WHEELS)
            .status()
            .context("starting python3 -m pip, which fetches NVIDIA's wheels")?;
        ensure!(status.success(), "pip install: {status}");
        fs::rename(&partial, &folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let toolkit = folder.join("nvidia/cu13");
    ensure!(
        toolkit.join("bin/nvcc").is_file(),
        "no bin/nvcc in {}; delete {} to download it again",
        toolkit.display(),
        folder.display()
    );
    Ok(toolkit)
}

fn with_front(folder: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(env::split_paths(&path));
    env::join_paths(folders).context("joining PATH")
}
