//! Where one run writes: a directory of its own that goes when it is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A directory that goes when it is dropped.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(parent: &Path) -> Result<Scratch> {
        let dir = parent.join(format!("run-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        crate::cleanup::made(&dir);
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
        crate::cleanup::removed(&self.0);
    }
}
