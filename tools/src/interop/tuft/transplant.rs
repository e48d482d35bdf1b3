//! Putting TuFT's adapter into a checkpoint of our trainer, so that both start from the same
//! weights.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;

/// Where TuFT keeps the adapter of `tinker://RUN/weights/NAME`.
pub fn of_tuft(checkpoints: &Path, path: &str) -> Result<PathBuf> {
    let (run, name) = parts(path)?;
    let saved = checkpoints.join(run).join(name);
    Ok(saved.join("adapter/adapter_model.safetensors"))
}

/// Where our trainer keeps it.
pub fn of_ours(state: &Path, path: &str) -> Result<PathBuf> {
    let (run, name) = parts(path)?;
    let folder = state.join(run.replace(':', "-")).join("weights");
    Ok(folder.join(format!("{name}.safetensors")))
}

fn parts(path: &str) -> Result<(&str, &str)> {
    path.strip_prefix("tinker://")
        .and_then(|rest| rest.split_once("/weights/"))
        .with_context(|| format!("`{path}` is no checkpoint"))
}

/// Replaces the weights of `checkpoint` by those of `adapter`. Names, shapes and scale (alpha 32)
/// are the same on both sides; what is ours is the header, which stays.
pub fn transplant(adapter: &Path, checkpoint: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let (theirs, ours) = (read(adapter)?, read(checkpoint)?);
    let (_, header) = SafeTensors::read_metadata(&ours)?;
    let [theirs, ours] = [SafeTensors::deserialize(&theirs)?, SafeTensors::deserialize(&ours)?];
    let names = |file: &SafeTensors| {
        let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    let (found, expected) = (names(&theirs), names(&ours));
    ensure!(found == expected, "the adapters differ: {found:?} and {expected:?}");
    let bytes = safetensors::serialize(theirs.tensors(), header.metadata().clone())?;
    fs::write(checkpoint, bytes).with_context(|| format!("writing {}", checkpoint.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::{Dtype, tensor::TensorView};

    use super::*;

    #[test]
    fn checkpoints_are_found_on_disk() {
        let path = "tinker://s:train:0/weights/start";
        let ours = of_ours(Path::new("state"), path).unwrap();
        assert_eq!(ours, Path::new("state/s-train-0/weights/start.safetensors"));
        let theirs = of_tuft(Path::new("kept"), path).unwrap();
        let adapter = Path::new("kept/s:train:0/start/adapter/adapter_model.safetensors");
        assert_eq!(theirs, adapter);
        assert!(of_ours(Path::new("state"), "tinker://s/sampler_weights/start").is_err());
    }

    #[test]
    fn the_weights_are_replaced_and_the_header_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, tensor: &str, data: [u8; 4], notes: Option<HashMap<_, _>>| {
            let view = TensorView::new(Dtype::F32, vec![1], &data).unwrap();
            let path = folder.path().join(name);
            let bytes = safetensors::serialize([(tensor, view)], notes).unwrap();
            fs::write(&path, bytes).unwrap();
            path
        };
        let notes = HashMap::from([("rank".to_owned(), "16".to_owned())]);
        let ours = file("ours", "a", [1; 4], Some(notes.clone()));
        transplant(&file("theirs", "a", [2; 4], None), &ours).unwrap();
        let bytes = fs::read(&ours).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref(), Some(&notes));
        let read = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("a").unwrap().data(), [2; 4]);

        let other = transplant(&file("other", "b", [3; 4], None), &ours);
        assert!(other.unwrap_err().to_string().contains("differ"));
    }
}
