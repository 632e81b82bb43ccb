//! Components compiled ahead of time: `X.cwasm` beside `X.wasm`.
//!
//! Such a file begins with a digest of the component and of its code, so that a changed component and a truncated file are
//! noticed. Wasmtime itself refuses code of another version, with other settings, or for a processor with more features than
//! this one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::component::unusable;

/// How long a digest is.
const DIGEST: usize = 32;

fn digest(wasm: &[u8], code: &[u8]) -> [u8; DIGEST] {
    Sha256::new().chain_update(wasm).chain_update(code).finalize().into()
}

fn path(source: &Path) -> PathBuf {
    source.with_extension("cwasm")
}

/// Compiles a component for the engine's target and writes the code beside it.
///
/// # Errors
/// When the component cannot be read, the code cannot be written, or the file is not a component.
pub(crate) fn write(engine: &Engine, source: &Path) -> anyhow::Result<()> {
    let wasm = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    let code = engine.precompile_component(&wasm).map_err(|error| unusable(source, &error))?;
    let target = path(source);
    let content = [&digest(&wasm, &code)[..], &code].concat();
    std::fs::write(&target, content).with_context(|| format!("cannot write {}", target.display()))
}

/// Loads the code of a component.
///
/// # Errors
/// When the file is missing, is of another component, or cannot run on this host.
pub(crate) fn load(engine: &Engine, source: &Path, wasm: &[u8]) -> anyhow::Result<Component> {
    let file = path(source);
    let content = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let (stated, code) = content.split_at_checked(DIGEST).unwrap_or_default();
    ensure!(stated == digest(wasm, code), "{} was made from another component, or is truncated", file.display());
    deserialize(engine, code).map_err(|error| anyhow!("{} is for another host: {error:#}", file.display()))
}

#[expect(unsafe_code, reason = "wasmtime cannot check that it made the code itself; the author of the file knows")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the code must be made by `Engine::precompile_component`. Only `write` makes the file, and its digest shows that it
    // is complete. It is read only with `--precompiled`, which the image uses. There it is beside this program, so only
    // those who can change this program can change it.
    unsafe { Component::deserialize(engine, code) }
}
