//! Adds to the component what is known only when it is built: its commit, the hash by which the Content-Security-Policy
//! allows the inlined stylesheet, and the `OpenAPI` document without its white space.

use std::{fs, path::Path, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");

    println!("cargo::rerun-if-env-changed=GIT_COMMIT");
    let commit = std::env::var("GIT_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(checked_out_commit)
        .unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=REQUEST_INFO_COMMIT={commit}");

    let style = fs::read("src/style.css").expect("src/style.css is beside page.rs");
    let hash = STANDARD.encode(Sha256::digest(style));
    println!("cargo::rustc-env=REQUEST_INFO_STYLE_HASH=sha256-{hash}");

    let openapi = fs::read("src/openapi.json").expect("src/openapi.json is beside routes.rs");
    let openapi: serde_json::Value = serde_json::from_slice(&openapi).expect("src/openapi.json is JSON");
    let out = std::env::var_os("OUT_DIR").expect("cargo says where to write");
    fs::write(Path::new(&out).join("openapi.json"), openapi.to_string()).expect("cargo lets us write there");
}

/// The commit of the work tree, followed by `-dirty` if a tracked file differs from it.
fn checked_out_commit() -> Option<String> {
    // A commit changes HEAD or its log, and staging changes the index. The sources are watched above.
    for file in ["HEAD", "logs/HEAD", "index"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    // `git describe --dirty` would write the index each time, and the next build would start again.
    let changes = git(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
