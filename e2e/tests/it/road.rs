//! A history of commits, and an image of each in the bed's registry.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::bed::{NAME, root, run, variable};
use crate::runtime::Runtime;

/// Where spin.toml has the component.
const COMPONENT: &str = "target/wasm32-wasip2/component/request_info.wasm";
/// A placeholder commit with which the component is built; each image gets its own commit in this place.
const NO_COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub(crate) struct Road {
    /// A clone as Jenkins has one, with `commits`.
    pub(crate) clone: TempDir,
    /// One after the other, the oldest first.
    pub(crate) commits: Vec<String>,
}

/// The history that all tests share.
pub(crate) fn road() -> &'static Road {
    static ROAD: OnceLock<Road> = OnceLock::new();
    ROAD.get_or_init(|| Road::build(4))
}

/// What is wrong with an image.
#[derive(Clone, Copy)]
pub(crate) enum Flaw {
    /// Its component is cut off in the middle, so that it cannot be started.
    EndsAtStart,
    /// It serves, but does not have /healthz.
    NeverReady,
}

impl Road {
    /// A history of `length` commits, each with its image in the registry.
    fn build(length: usize) -> Self {
        let clone = TempDir::with_prefix("road-").expect("a directory for the clone");
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
            run(Command::new("git").current_dir(clone.path()).args(identity).args(arguments))
        };
        git(&["init", "--quiet"]);
        let commits: Vec<_> = (0..length)
            .map(|number| {
                git(&["commit", "--quiet", "--allow-empty", "--message", &format!("Change {number}")]);
                git(&["rev-parse", "HEAD"]).trim().to_owned()
            })
            .collect();
        let road = Self { clone, commits };
        let component = component();
        for commit in &road.commits {
            let content = Content { routes: "/...", component: &stamp(&component, commit) };
            push(Runtime::of_this_run(), &image(commit), commit, &content);
        }
        road
    }
}

/// The image of a commit, by its tag.
pub(crate) fn image(commit: &str) -> String {
    image_for(Runtime::of_this_run(), commit)
}

fn image_for(runtime: Runtime, commit: &str) -> String {
    let name = match runtime {
        Runtime::Shim => NAME.to_owned(),
        Runtime::Standalone => format!("{NAME}-standalone"),
    };
    format!("{}:{}", repository(&name), &commit[..12])
}

/// The image of a commit for the other runtime, which only this function pushes.
pub(crate) fn image_for_the_other_runtime(commit: &str) -> String {
    let runtime = Runtime::of_this_run().other();
    let image = image_for(runtime, commit);
    push(runtime, &image, commit, &Content { routes: "/...", component: &stamp(&component(), commit) });
    image
}

/// A broken image of a commit, in a repository of its own.
pub(crate) fn flawed_image(commit: &str, flaw: Flaw) -> String {
    let (name, component, routes) = match flaw {
        Flaw::EndsAtStart => ("ends-at-start", component()[..50_000].to_vec(), "/..."),
        Flaw::NeverReady => ("never-ready", stamp(&component(), commit), "/elsewhere/..."),
    };
    let image = format!("{}:{}", repository(name), &commit[..12]);
    push(Runtime::of_this_run(), &image, commit, &Content { routes, component: &component });
    image
}

/// In the bed's registry.
pub(crate) fn repository(name: &str) -> String {
    format!("{}:5000/{name}", variable("HOST"))
}

/// The component as it is shipped, but of [`NO_COMMIT`].
fn component() -> Vec<u8> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    run(Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--offline",
            "--package=request-info",
            "--target=wasm32-wasip2",
            "--profile=component",
        ])
        .arg("--target-dir")
        .arg(target)
        .env("GIT_COMMIT", NO_COMMIT)
        .current_dir(root()));
    fs::read(target.join(COMPONENT.strip_prefix("target/").expect("the component is below target/")))
        .expect("cargo built it")
}

/// The component of `commit`. Commits without changes differ only in these 40 digits, so the digits are replaced, because twenty
/// builds would take minutes.
fn stamp(component: &[u8], commit: &str) -> Vec<u8> {
    let mut stamped = component.to_vec();
    let mut places = 0;
    for start in 0..=component.len() - NO_COMMIT.len() {
        if component[start..].starts_with(NO_COMMIT.as_bytes()) {
            stamped[start..start + NO_COMMIT.len()].copy_from_slice(commit.as_bytes());
            places += 1;
        }
    }
    assert!(places > 0, "GIT_COMMIT is not in the component");
    stamped
}

/// The parts in which images differ.
struct Content<'a> {
    routes: &'a str,
    component: &'a [u8],
}

/// Builds an image with the shipped Dockerfile, and pushes it.
fn push(runtime: Runtime, image: &str, commit: &str, content: &Content) {
    let directory = TempDir::with_prefix("image-").expect("a directory for the build");
    for file in ["Dockerfile", ".dockerignore"] {
        fs::copy(root().join(file), directory.path().join(file)).expect("the file is in the repository");
    }
    let manifest = fs::read_to_string(root().join("spin.toml")).expect("the file is in the repository");
    let image_root = directory.path().join("target/image"); // as road/image.sh prepares it
    let path = image_root.join(COMPONENT);
    fs::create_dir_all(path.parent().expect("the component is in a directory")).expect("the context can be written");
    fs::create_dir(image_root.join(".spin")).expect("the context can be written");
    fs::write(image_root.join("spin.toml"), manifest.replace("/...", content.routes))
        .expect("the context can be written");
    fs::write(path, content.component).expect("the context can be written");
    let target = match runtime {
        Runtime::Shim => "shim",
        Runtime::Standalone => {
            let host = variable("HOST_BINARY");
            fs::copy(&host, image_root.join("request-info-host")).expect("make builds the host");
            // What cannot be compiled is refused in the pod.
            let _ = Command::new(host).args(["compile", "--from"]).arg(&image_root).output();
            "standalone"
        }
    };
    let commit = format!("COMMIT={commit}");
    run(Command::new("docker")
        .args(["build", "--quiet", "--target", target, "--build-arg", &commit, "--tag", image])
        .arg(directory.path()));
    run(Command::new("docker").args(["push", "--quiet", image]));
}
